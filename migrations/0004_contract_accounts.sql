-- +goose Up

-- A contract is an account too: its payer's key has the row, and what the contract's writers use is charged to it. The
-- counters run from since on and hold what is reserved; divided by a GB-day and a GB they are what is owed. They are
-- numeric because byte-milliseconds pass 2^63 with forty large records, and a rounded counter would be a wrong bill.
ALTER TABLE accounts DROP CONSTRAINT accounts_kind_check;
ALTER TABLE accounts
    ADD CONSTRAINT accounts_kind_check CHECK (kind IN ('grant', 'contract')),
    ADD COLUMN latest          bigint  NOT NULL DEFAULT 0, -- when the last record charged here was written: since is later, in whatever order clocks run
    ADD COLUMN contract        bytea   CHECK (octet_length(contract) = 32), -- in force or being settled; null: none
    ADD COLUMN taking          boolean NOT NULL DEFAULT false, -- whether the contract takes writes
    ADD COLUMN since           bigint  NOT NULL DEFAULT 0, -- records written before are not on this contract's bill
    ADD COLUMN credit          bigint  NOT NULL DEFAULT 0, -- msat that may be owed: credit limit and what was paid
    ADD COLUMN storage_price   bigint  NOT NULL DEFAULT 0 CHECK (storage_price >= 0),   -- msat for a GB-day
    ADD COLUMN bandwidth_price bigint  NOT NULL DEFAULT 0 CHECK (bandwidth_price >= 0), -- msat for a GB
    ADD COLUMN used_stored     numeric(39) NOT NULL DEFAULT 0 CHECK (used_stored >= 0), -- byte-milliseconds
    ADD COLUMN used_moved      numeric(39) NOT NULL DEFAULT 0 CHECK (used_moved >= 0),  -- bytes
    ADD CONSTRAINT accounts_kind_contract_check CHECK (kind = 'contract' OR contract IS NULL);

-- Keys that a contract pays for beside its payer's own. A key has one payer: who lists it last, with its consent.
CREATE TABLE writers (
    key     bytea PRIMARY KEY CHECK (octet_length(key) = 32),
    account bytea NOT NULL REFERENCES accounts (key)
);
-- A contract's writers are replaced and removed together.
CREATE INDEX writers_account ON writers (account);

-- Such a key admits others and has a card like any account holder, without a row of its own in accounts.
ALTER TABLE admissions DROP CONSTRAINT admissions_owner_fkey;
ALTER TABLE cards DROP CONSTRAINT cards_owner_fkey;

-- Whether the receiver admitted the writer: with a payer for both, the account does not tell any more.
ALTER TABLE records ADD COLUMN admitted boolean NOT NULL DEFAULT false;
UPDATE records SET admitted = true WHERE account <> sender;

-- +goose Down
ALTER TABLE records DROP COLUMN admitted;
DELETE FROM cards WHERE owner NOT IN (SELECT key FROM accounts);
ALTER TABLE cards ADD CONSTRAINT cards_owner_fkey FOREIGN KEY (owner) REFERENCES accounts (key);
DELETE FROM admissions WHERE owner NOT IN (SELECT key FROM accounts);
ALTER TABLE admissions ADD CONSTRAINT admissions_owner_fkey FOREIGN KEY (owner) REFERENCES accounts (key);
DROP TABLE writers;
ALTER TABLE accounts
    DROP CONSTRAINT accounts_kind_contract_check, DROP CONSTRAINT accounts_kind_check,
    DROP COLUMN latest, DROP COLUMN contract, DROP COLUMN taking, DROP COLUMN since, DROP COLUMN credit,
    DROP COLUMN storage_price, DROP COLUMN bandwidth_price, DROP COLUMN used_stored, DROP COLUMN used_moved;
UPDATE accounts SET kind = 'grant';
ALTER TABLE accounts ADD CONSTRAINT accounts_kind_check CHECK (kind IN ('grant'));
