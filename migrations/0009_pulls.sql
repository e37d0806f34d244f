-- +goose Up

-- Pulls left, for runs of records: all that one sender has for one reader from the place first to the place upto, which were pulled
-- together and have as many left. A page of a hundred that lie beside each other is counted by one row. The runs of a pair never overlap, and a
-- record in none of them was never pulled. Only the transaction that makes a reader's page changes his runs, and the check is what
-- keeps maxPulls exact.
ALTER TABLE pulls RENAME TO pulls_of_records;
ALTER TABLE pulls_of_records RENAME CONSTRAINT pulls_pkey TO pulls_of_records_pkey;
CREATE TABLE pulls (
    receiver  bytea   NOT NULL,
    sender    bytea   NOT NULL,
    first     bigint  NOT NULL,
    upto      bigint  NOT NULL CHECK (upto >= first),
    remaining integer NOT NULL CHECK (remaining >= 0), -- of each record in it
    last      bigint  NOT NULL, -- this relay's clock at their last pull
    -- When they were used up. As long as they are not, another pull changes no column of an index.
    spent     bigint  GENERATED ALWAYS AS (CASE WHEN remaining = 0 THEN last END) STORED,
    PRIMARY KEY (receiver, sender, upto) -- the first that ends at a record or after it is the one it is in, if any
) WITH (fillfactor = 80);
INSERT INTO pulls (receiver, sender, first, upto, remaining, last)
    SELECT r.receiver, r.sender, n, n, p.remaining, p.last FROM pulls_of_records p JOIN records r USING (n) WHERE r.state = 0;
DROP TABLE pulls_of_records;
-- The sweeper finds what is used up.
CREATE INDEX pulls_spent ON pulls (spent) WHERE spent IS NOT NULL;
ALTER TABLE pulls SET (
    autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 2, autovacuum_vacuum_cost_limit = 2000,
    autovacuum_analyze_scale_factor = 0.2
);

-- A reader's pages have turns, one after the other: only the last may be open, and two that were made at once would have one turn. Pages
-- from before this have none, but the open ones.
ALTER TABLE pages ADD COLUMN turn bigint NOT NULL DEFAULT 0;
UPDATE pages SET turn = 1 WHERE got IS NULL;
CREATE UNIQUE INDEX pages_turn ON pages (reader, turn) WHERE turn > 0;
-- No index has a column that the acknowledgement of a page changes. Where there is room beside it, it is stored without touching any of them.
DROP INDEX pages_open, pages_got, pages_abandoned;
-- The sweeper alone looks for pages by the time they were made, and says made > 0.
CREATE INDEX pages_made ON pages (made) WHERE made > 0;
ALTER TABLE pages SET (fillfactor = 40);

-- +goose Down
ALTER TABLE pages RESET (fillfactor);
DROP INDEX pages_made, pages_turn;
ALTER TABLE pages DROP COLUMN turn;
CREATE UNIQUE INDEX pages_open ON pages (reader) WHERE got IS NULL;
CREATE INDEX pages_got ON pages (got_at) WHERE got IS NOT NULL;
CREATE INDEX pages_abandoned ON pages (made) WHERE got IS NULL AND made > 0;
ALTER TABLE pulls RENAME TO pulls_of_runs;
ALTER TABLE pulls_of_runs RENAME CONSTRAINT pulls_pkey TO pulls_of_runs_pkey;
DROP INDEX pulls_spent;
CREATE TABLE pulls (
    n         bigint  PRIMARY KEY,
    remaining integer NOT NULL CHECK (remaining >= 0),
    last      bigint  NOT NULL
) WITH (fillfactor = 80);
INSERT INTO pulls (n, remaining, last) SELECT r.n, p.remaining, p.last FROM pulls_of_runs p
    JOIN records r ON r.receiver = p.receiver AND r.sender = p.sender AND r.n BETWEEN p.first AND p.upto AND r.state = 0;
DROP TABLE pulls_of_runs;
CREATE INDEX pulls_spent ON pulls (last) WHERE remaining = 0;
ALTER TABLE pulls SET (
    autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 2, autovacuum_vacuum_cost_limit = 2000,
    autovacuum_analyze_scale_factor = 0.2
);
