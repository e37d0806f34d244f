-- Whose contracts these are. One file serves one key: the keys of its contracts come from the same seed.
CREATE TABLE owner (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  key BLOB NOT NULL CHECK (length(key) = 32)
) STRICT;

-- The Bitcoin node that is asked, if the user named one.
CREATE TABLE node (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  settings BLOB NOT NULL           -- JSON; the password is not in it, only the name of the file that has it
) STRICT;

-- When a command that had other things to do looked after the contracts last.
CREATE TABLE glance (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  at  INTEGER NOT NULL
) STRICT;

CREATE TABLE contracts (
  id         BLOB PRIMARY KEY CHECK (length(id) = 32),
  network    TEXT NOT NULL,
  relay      BLOB NOT NULL CHECK (length(relay) = 32),
  address    TEXT NOT NULL,        -- of the relay, when the contract was opened or restored
  state      TEXT NOT NULL,
  step       TEXT NOT NULL CHECK (step IN ('drawn', 'answered', 'kept', 'signed', 'taken', 'restored', 'over')),
  foreign_inputs INTEGER NOT NULL, -- the inputs belong to a wallet that is not ours to sign with
  announced  BLOB,                 -- the envelope of the announcement relied on: null if restored
  request    BLOB,                 -- the contractOpen as it is asked, again and again: null if restored
  answer     BLOB,                 -- the envelope of contractServerAddInputs, as evidence
  document   BLOB,                 -- the backup document: all that a refund needs beside the seed
  psbt       TEXT NOT NULL,        -- the whole funding; from step 'signed' on with our witnesses
  accepted   INTEGER NOT NULL,     -- usage that the user accepted, millisatoshi, cumulative
  cushion    INTEGER NOT NULL,     -- how far a payment may run ahead of it, satoshi
  renewed_by BLOB,
  told       BLOB,                 -- the relay's last contractStatus, an envelope
  fault      TEXT NOT NULL,        -- why the exchange does not go on, or empty
  created    INTEGER NOT NULL,
  changed    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Every state that we signed, before it was sent. Amounts only grow: a row is never changed but for taken.
CREATE TABLE payments (
  contract  BLOB NOT NULL REFERENCES contracts ON DELETE CASCADE,
  seq       INTEGER NOT NULL CHECK (seq >= 0),
  amount    INTEGER NOT NULL CHECK (amount >= 0),  -- satoshi
  usage     INTEGER,               -- millisatoshi that it pays for
  signature BLOB NOT NULL,
  created   INTEGER NOT NULL,
  taken     INTEGER NOT NULL,      -- the relay said that it has it
  PRIMARY KEY (contract, seq)
) STRICT, WITHOUT ROWID;

-- Every transaction of a contract that we made or saw. One of ours is here before it is broadcast.
CREATE TABLE transactions (
  contract BLOB NOT NULL REFERENCES contracts ON DELETE CASCADE,
  txid     BLOB NOT NULL CHECK (length(txid) = 32),
  kind     TEXT NOT NULL,
  raw      BLOB NOT NULL,
  fee      INTEGER NOT NULL,       -- satoshi; 0 for one whose fee is not ours
  ours     INTEGER NOT NULL,       -- it is broadcast again until it, or what conflicts with it, is in a block
  height   INTEGER,                -- of the block it is in; null: in none
  bid      INTEGER NOT NULL,       -- height of the chain when we made it, so that it is bid again in time
  created  INTEGER NOT NULL,
  PRIMARY KEY (contract, txid)
) STRICT, WITHOUT ROWID;

-- The newest blocks that were looked at, so that a reorganization is seen for what it is.
CREATE TABLE blocks (
  network TEXT NOT NULL,
  height  INTEGER NOT NULL,
  hash    BLOB NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (network, height)
) STRICT, WITHOUT ROWID;

-- What was done, for the user to read.
CREATE TABLE journal (
  n        INTEGER PRIMARY KEY AUTOINCREMENT,
  contract BLOB NOT NULL REFERENCES contracts ON DELETE CASCADE,
  at       INTEGER NOT NULL,
  text     TEXT NOT NULL,
  told     INTEGER NOT NULL        -- a command has shown it
) STRICT;

-- Each command asks what was not told yet.
CREATE INDEX journal_untold ON journal (n) WHERE told = 0;
