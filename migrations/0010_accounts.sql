-- +goose Up

-- What a bill knows beside its lines: what was refused of it, and whether it is still counted in money.
ALTER TABLE bills
    ADD COLUMN closed          boolean NOT NULL DEFAULT false, -- what is owed is final: lines go on, and cost nothing more
    ADD COLUMN drops           bigint  NOT NULL DEFAULT 0 CHECK (drops >= 0),            -- records taken off it
    ADD COLUMN waived_stored   numeric(39) NOT NULL DEFAULT 0 CHECK (waived_stored >= 0),   -- byte-milliseconds, refused and dropped
    ADD COLUMN waived_moved    numeric(39) NOT NULL DEFAULT 0 CHECK (waived_moved >= 0),    -- bytes
    ADD COLUMN disputed_stored numeric(39) NOT NULL DEFAULT 0 CHECK (disputed_stored >= 0), -- refused and not dropped
    ADD COLUMN disputed_moved  numeric(39) NOT NULL DEFAULT 0 CHECK (disputed_moved >= 0);

-- Lines that payers refused. The key is what makes a refusal count once, however often it comes.
CREATE TABLE ledger_refusals (
    bill    bigint NOT NULL REFERENCES bills (id),
    line    bigint NOT NULL,
    kind    text   NOT NULL, -- of the line
    reason  text   NOT NULL, -- the payer's word
    stored  numeric(39) NOT NULL CHECK (stored >= 0), -- byte-milliseconds that are refused
    moved   numeric(39) NOT NULL CHECK (moved >= 0),  -- bytes
    dropped boolean NOT NULL, -- a line gave it back
    at      bigint NOT NULL,
    PRIMARY KEY (bill, line)
);

-- Records that were taken off a bill. A page that was made before still names the bill, and costs it nothing.
CREATE TABLE ledger_dropped (
    bill bigint NOT NULL REFERENCES bills (id),
    hash bytea  NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (bill, hash)
);

-- What contracts owe, in double entry: a row is what one cause did to one bill on one day (UTC), in msat, a column for each
-- account, debit above 0 and credit below. Every row balances, by constraint, so every sum of rows does:
-- owed = (earned + reserved) − paid − written_off − carried, the accounts in brackets being on the credit side.
CREATE TABLE ledger_entries (
    bill        bigint NOT NULL REFERENCES bills (id),
    day         date   NOT NULL,
    cause       text   NOT NULL CHECK (cause IN ('usage', 'payment', 'refusal', 'renewal', 'close', 'loss')),
    owed        bigint NOT NULL, -- by the payer, what is reserved for him included; below 0: paid ahead
    earned      bigint NOT NULL, -- used, and not coming back
    reserved    bigint NOT NULL, -- may be used yet, or come back
    paid        bigint NOT NULL, -- by states of the contract, for usage
    written_off bigint NOT NULL, -- refused and dropped, or never paid
    carried     bigint NOT NULL, -- to the contract that renewed this one, or from the one before
    PRIMARY KEY (bill, day, cause),
    CONSTRAINT ledger_entries_balance CHECK (owed::numeric + earned + reserved + paid + written_off + carried = 0)
) WITH (fillfactor = 70); -- a day's row is updated with every posting
-- What came in from one day to another, of all bills.
CREATE INDEX ledger_entries_day ON ledger_entries (day, bill);

-- What there is already. Days before this step are not known one by one: all of it stands on the day the contract was opened.
CREATE FUNCTION pg_temp.cost(stored numeric, storage_price bigint, moved numeric, bandwidth_price bigint) RETURNS bigint LANGUAGE sql AS
    'SELECT div(stored * storage_price + moved * bandwidth_price * 86400000 + 86399999999999999, 86400000000000000)::bigint';

UPDATE bills b SET closed = true WHERE NOT EXISTS (SELECT FROM accounts a WHERE a.bill = b.id);

-- Contracts in force: what is posted, what they came with, and what was paid. What is queued comes with its lines.
INSERT INTO ledger_entries (bill, day, cause, owed, earned, reserved, paid, written_off, carried)
SELECT b.id, d.day, 'usage', c.all_of_it, -c.used, c.used - c.all_of_it, 0, 0, 0
FROM bills b LEFT JOIN contracts k ON k.id = b.contract
CROSS JOIN LATERAL (SELECT coalesce(to_timestamp(k.opened / 1000.0) AT TIME ZONE 'UTC', 'epoch')::date AS day) d
CROSS JOIN LATERAL (SELECT pg_temp.cost(b.stored, b.storage_price, b.written + b.pulled, b.bandwidth_price) AS used,
    pg_temp.cost(b.stored + b.reserved_stored, b.storage_price, b.written + b.pulled + b.reserved_pulled, b.bandwidth_price) AS all_of_it) c
WHERE NOT b.closed AND c.all_of_it > 0;

-- Those whose usage is final, which has what they were renewed with in it.
INSERT INTO ledger_entries (bill, day, cause, owed, earned, reserved, paid, written_off, carried)
SELECT b.id, (to_timestamp(k.opened / 1000.0) AT TIME ZONE 'UTC')::date, 'usage', k.final_owed - k.carried, k.carried - k.final_owed, 0, 0, 0, 0
FROM bills b JOIN contracts k ON k.id = b.contract WHERE b.closed AND k.final_owed IS NOT NULL AND k.final_owed <> k.carried;

INSERT INTO ledger_entries (bill, day, cause, owed, earned, reserved, paid, written_off, carried)
SELECT b.id, (to_timestamp(k.opened / 1000.0) AT TIME ZONE 'UTC')::date, 'renewal', k.carried - n.handed, 0, 0, 0, 0, n.handed - k.carried
FROM bills b JOIN contracts k ON k.id = b.contract
CROSS JOIN LATERAL (SELECT coalesce(sum(s.carried), 0)::bigint AS handed FROM contracts s JOIN bills sb ON sb.contract = s.id
    WHERE s.id = k.renewed_by AND b.closed) n
WHERE k.carried <> n.handed;

INSERT INTO ledger_entries (bill, day, cause, owed, earned, reserved, paid, written_off, carried)
SELECT b.id, (to_timestamp(k.opened / 1000.0) AT TIME ZONE 'UTC')::date, 'payment', -p.msat, 0, 0, p.msat, 0, 0
FROM bills b JOIN contracts k ON k.id = b.contract
CROSS JOIN LATERAL (SELECT coalesce((SELECT s.renews_amount FROM contracts s JOIN bills sb ON sb.contract = s.id WHERE s.id = k.renewed_by AND b.closed), k.amount) AS amount) a
CROSS JOIN LATERAL (SELECT (a.amount - (k.terms ->> 'OpeningPrice')::bigint) * 1000 AS msat) p
WHERE p.msat <> 0;

-- What is over and was not paid is lost.
INSERT INTO ledger_entries (bill, day, cause, owed, earned, reserved, paid, written_off, carried)
SELECT b.id, (to_timestamp(k.opened / 1000.0) AT TIME ZONE 'UTC')::date, 'loss', -o.owed, 0, 0, 0, o.owed, 0
FROM bills b JOIN contracts k ON k.id = b.contract
CROSS JOIN LATERAL (SELECT coalesce(sum(e.owed), 0)::bigint AS owed FROM ledger_entries e WHERE e.bill = b.id) o
WHERE k.state IN ('closed', 'archived', 'abandoned') AND o.owed > 0;

DROP FUNCTION pg_temp.cost(numeric, bigint, numeric, bigint);

-- +goose Down
DROP TABLE ledger_entries, ledger_dropped, ledger_refusals;
ALTER TABLE bills DROP COLUMN closed, DROP COLUMN drops, DROP COLUMN waived_stored, DROP COLUMN waived_moved,
    DROP COLUMN disputed_stored, DROP COLUMN disputed_moved;
