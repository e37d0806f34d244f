-- What an envelope costs is known from it alone: for the audit of a bill. Of envelopes signed before, nothing is known.
ALTER TABLE attempts ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN signed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX attempts_hash ON attempts (hash); -- a line of a bill names the envelope

-- Every record that this device pulled, from whichever relay: what receipts are written of, and what a bill may say of records
-- that others left on our account.
CREATE TABLE received (
  relay     BLOB NOT NULL,
  hash      BLOB NOT NULL,         -- of the envelope
  sender    BLOB NOT NULL,
  record_id TEXT NOT NULL,
  bytes     INTEGER NOT NULL,
  signed    INTEGER NOT NULL,
  expires   INTEGER NOT NULL,
  max_pulls INTEGER NOT NULL,
  page      TEXT,                  -- that brought it whole; null: a page that was cut
  got       INTEGER,               -- when that page was acknowledged; null: not yet
  receipt   INTEGER,               -- the outbox's number of the record that says so; 0: none is due
  PRIMARY KEY (relay, hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX received_page ON received (relay, page) WHERE got IS NULL;
CREATE INDEX received_due ON received (sender, got) WHERE got IS NOT NULL AND receipt IS NULL;
CREATE INDEX received_expires ON received (expires);

-- Receipts of readers for what we wrote. Only what we did write is kept.
CREATE TABLE receipts (
  relay  BLOB NOT NULL,
  hash   BLOB NOT NULL,            -- of our envelope
  reader BLOB NOT NULL,
  bytes  INTEGER NOT NULL,         -- as he says
  got    INTEGER NOT NULL,         -- his clock
  filed  INTEGER NOT NULL,
  PRIMARY KEY (relay, hash, reader)
) STRICT, WITHOUT ROWID;
