-- +goose Up

-- The bill of one contract: how far its ledger is posted and reported, and the totals of what is posted. With nothing
-- left to post, written + pulled + reserved_pulled are the account's used_moved, stored + reserved_stored its used_stored.
CREATE TABLE bills (
    id              bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    contract        bytea   NOT NULL UNIQUE CHECK (octet_length(contract) = 32),
    payer           bytea   NOT NULL CHECK (octet_length(payer) = 32),
    storage_price   bigint  NOT NULL, -- msat for a GB-day
    bandwidth_price bigint  NOT NULL, -- msat for a GB
    last            bigint  NOT NULL DEFAULT 0, -- line posted last
    written         numeric(39) NOT NULL DEFAULT 0 CHECK (written >= 0),         -- bytes
    pulled          numeric(39) NOT NULL DEFAULT 0 CHECK (pulled >= 0),          -- bytes
    stored          numeric(39) NOT NULL DEFAULT 0 CHECK (stored >= 0),          -- byte-milliseconds
    reserved_pulled numeric(39) NOT NULL DEFAULT 0 CHECK (reserved_pulled >= 0), -- bytes
    reserved_stored numeric(39) NOT NULL DEFAULT 0 CHECK (reserved_stored >= 0)  -- byte-milliseconds
) WITH (fillfactor = 50);

-- The bill that a contract account charges now. A record keeps the one it was charged to: contracts are renewed, and
-- clocks are set back. A page keeps those of its records, which may be gone when it is acknowledged.
ALTER TABLE accounts ADD COLUMN bill bigint REFERENCES bills (id);
ALTER TABLE records ADD COLUMN bill bigint; -- null: a grant's
ALTER TABLE pages
    ADD COLUMN bills  bigint[], -- 0: a grant's; null: all are
    ADD COLUMN lapsed boolean NOT NULL DEFAULT false; -- its pulls were given back: it is billed no more

-- What is to be posted. Rows come and go within a second, in no order and by no key: a heap is all it takes.
CREATE TABLE ledger_acks (
    reader  bytea  NOT NULL,
    page_id text   COLLATE "C" NOT NULL,
    upto    bigint NOT NULL, -- the last place in the page
    records integer NOT NULL, -- in the page
    at      bigint NOT NULL  -- when it was acknowledged
);
CREATE TABLE ledger_facts (
    n        bigint   NOT NULL, -- the record's place: its write is posted first
    bill     bigint   NOT NULL,
    kind     smallint NOT NULL, -- 1 end, 2 lapse
    sender   bytea    NOT NULL,
    receiver bytea    NOT NULL,
    id       text     COLLATE "C" NOT NULL,
    hash     bytea    NOT NULL,
    bytes    integer  NOT NULL,
    written  bigint   NOT NULL,
    expires  bigint   NOT NULL,
    ended    bigint   NOT NULL,
    pulls    integer  NOT NULL
);
ALTER TABLE ledger_acks SET (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE ledger_facts SET (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- Writes are posted up to this place. No record beyond it is removed.
CREATE TABLE ledger_posted (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    n        bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO ledger_posted (n) SELECT n FROM relay_cursor;

-- The lines of bills, many to a row, in a form of their own: a row for each would double what a record costs here.
CREATE TABLE ledger_blocks (
    bill  bigint NOT NULL REFERENCES bills (id),
    last  bigint NOT NULL, -- number of its last line
    lines bytea  NOT NULL,
    PRIMARY KEY (bill, last) -- a report reads its blocks in order
);
-- Keys, hashes and signatures do not compress.
ALTER TABLE ledger_blocks ALTER COLUMN lines SET STORAGE EXTERNAL;

-- Reports as they were signed. The key is what keeps a relay from signing two after one predecessor.
CREATE TABLE usage_reports (
    bill     bigint NOT NULL REFERENCES bills (id),
    first    bigint NOT NULL, -- number of its first line
    last     bigint NOT NULL,
    envelope bytea  NOT NULL,
    cost     bigint NOT NULL, -- msat: of what was used, without reservations, after its last line
    paid_at  bigint,          -- when a payment covered it: its evidence is kept for a while from then on
    dropped  boolean NOT NULL DEFAULT false, -- its lines are not kept any more
    PRIMARY KEY (bill, first)
);
-- What was not paid for is looked through at each payment; what was paid is dropped in its time.
CREATE INDEX usage_reports_unpaid ON usage_reports (bill, first) WHERE paid_at IS NULL;
CREATE INDEX usage_reports_paid ON usage_reports (paid_at) WHERE paid_at IS NOT NULL AND NOT dropped;

-- +goose Down
DROP TABLE usage_reports, ledger_blocks, ledger_posted, ledger_facts, ledger_acks;
ALTER TABLE pages DROP COLUMN bills, DROP COLUMN lapsed;
ALTER TABLE records DROP COLUMN bill;
ALTER TABLE accounts DROP COLUMN bill;
DROP TABLE bills;
