-- What audits found, in their order. One that finds the same again adds to the last row of its contract.
CREATE TABLE audits (
  n        INTEGER PRIMARY KEY AUTOINCREMENT,
  contract BLOB NOT NULL,
  relay    BLOB NOT NULL,
  address  TEXT NOT NULL,          -- of the relay, at the time
  first    INTEGER NOT NULL,       -- when it was found
  last     INTEGER NOT NULL,       -- when it was found again
  times    INTEGER NOT NULL,       -- audits that found it
  lines    INTEGER NOT NULL,       -- of the ledger, up to which they went
  claimed  INTEGER NOT NULL,       -- millisatoshi, as the next three
  accepted INTEGER NOT NULL,
  waiting  INTEGER NOT NULL,
  disputed INTEGER NOT NULL,
  fault    TEXT NOT NULL           -- why the next report cannot be true, or empty
) STRICT;
CREATE INDEX audits_contract ON audits (contract, n); -- its last row

-- How the user wants to pay.
CREATE TABLE policies (
  contract BLOB PRIMARY KEY,       -- empty: every contract that has no row of its own
  mode     TEXT NOT NULL,
  most     INTEGER NOT NULL,       -- satoshi beyond the opening price that are paid without asking, for the contract
  daily    INTEGER NOT NULL,       -- and within 24 hours; 0: no limit of this kind
  cushion  INTEGER,                -- satoshi; null: what the contract says
  closes   INTEGER NOT NULL,       -- close a contract whose relay stands by what is disputed
  changed  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A line about a record that another writer may have written waits for his word: raw is the line until then. What is
-- refused for good is named to the relay, which answers; a line of its ledger may drop it.
ALTER TABLE refused ADD COLUMN hash BLOB NOT NULL DEFAULT x'';    -- of the record's envelope
ALTER TABLE refused ADD COLUMN until INTEGER NOT NULL DEFAULT 0;  -- of an end that is billed too long: storage is accepted up to then
ALTER TABLE refused ADD COLUMN audited INTEGER NOT NULL DEFAULT 0;
ALTER TABLE refused ADD COLUMN raw BLOB;
ALTER TABLE refused ADD COLUMN answer TEXT NOT NULL DEFAULT '';   -- the relay's word, once it was told; empty: it was not
ALTER TABLE refused ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0; -- the line that drops it; 0: none
CREATE INDEX refused_unnamed ON refused (contract, line) WHERE answer = '' AND raw IS NULL; -- asked after each audit
CREATE INDEX refused_waiting ON refused (contract, line) WHERE raw IS NOT NULL;             -- before each audit
CREATE INDEX refused_record ON refused (contract, hash);                                    -- a drop takes a whole record

-- Whose contract pays for what this key writes on a relay: he is told what was written.
CREATE TABLE payers (
  relay BLOB NOT NULL,
  payer BLOB NOT NULL,
  since INTEGER NOT NULL,
  PRIMARY KEY (relay, payer)
) STRICT, WITHOUT ROWID;

-- Copies of which payers are to be told, as stored or as deleted.
CREATE TABLE untold (
  payer BLOB NOT NULL,
  relay BLOB NOT NULL,
  n     INTEGER NOT NULL,          -- of the outbox
  PRIMARY KEY (payer, relay, n)
) STRICT, WITHOUT ROWID;

-- What other writers say that they wrote on our account.
CREATE TABLE writings (
  relay     BLOB NOT NULL,
  hash      BLOB NOT NULL,         -- of the envelope
  sender    BLOB NOT NULL,
  receiver  BLOB NOT NULL,
  record_id TEXT NOT NULL,
  bytes     INTEGER NOT NULL,
  signed    INTEGER NOT NULL,
  expires   INTEGER NOT NULL,
  max_pulls INTEGER NOT NULL,
  deleted   INTEGER NOT NULL,      -- when the relay confirmed to him that it is deleted; 0: not
  PRIMARY KEY (relay, hash, sender) -- nobody can take another's place
) STRICT, WITHOUT ROWID;
CREATE INDEX writings_expires ON writings (expires);
