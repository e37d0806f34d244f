-- How far the reports on a contract were audited, and what of them was accepted: totals as in a report, JSON.
CREATE TABLE bills (
  contract BLOB PRIMARY KEY CHECK (length(contract) = 32),
  relay    BLOB NOT NULL,
  last     INTEGER NOT NULL,       -- line
  report   BLOB NOT NULL,          -- hash of the last report's envelope
  claimed  TEXT NOT NULL,
  accepted TEXT NOT NULL,
  audited  INTEGER NOT NULL
) STRICT;

-- Every report as the relay signed it: with another one of its place, it proves a lie.
CREATE TABLE reports (
  contract BLOB NOT NULL,
  first    INTEGER NOT NULL,
  last     INTEGER NOT NULL,
  envelope BLOB NOT NULL,
  PRIMARY KEY (contract, first)
) STRICT, WITHOUT ROWID;

-- What accepted lines said of each record.
CREATE TABLE standings (
  contract  BLOB NOT NULL,
  hash      BLOB NOT NULL,
  sender    BLOB NOT NULL,
  receiver  BLOB NOT NULL,
  record_id TEXT NOT NULL,
  line      INTEGER NOT NULL,      -- of its write
  written   INTEGER NOT NULL,
  expires   INTEGER NOT NULL,
  bytes     INTEGER NOT NULL,
  max_pulls INTEGER NOT NULL,
  pulled    INTEGER NOT NULL,
  returned  INTEGER NOT NULL,
  end_line  INTEGER NOT NULL,      -- 0: it did not end
  ended     INTEGER NOT NULL,
  PRIMARY KEY (contract, hash)
) STRICT, WITHOUT ROWID;

-- Pulls that were billed: the same record of the same page is not billed again.
CREATE TABLE claims (
  contract BLOB NOT NULL,
  hash     BLOB NOT NULL,
  page     TEXT NOT NULL,
  line     INTEGER NOT NULL,
  PRIMARY KEY (contract, hash, page)
) STRICT, WITHOUT ROWID;

-- Lines, or parts of them, that were refused.
CREATE TABLE refused (
  contract BLOB NOT NULL,
  line     INTEGER NOT NULL,
  kind     TEXT NOT NULL,
  reason   TEXT NOT NULL,
  why      TEXT NOT NULL,
  sender   BLOB NOT NULL,
  receiver BLOB NOT NULL,
  record_id TEXT NOT NULL,
  bytes    INTEGER NOT NULL,
  stored   TEXT NOT NULL,          -- bytes × ms refused, decimal
  moved    TEXT NOT NULL,          -- bytes refused, decimal
  PRIMARY KEY (contract, line)
) STRICT, WITHOUT ROWID;
