-- Files that are sent in pieces. A piece is a row of outbox, with its copies and attempts like a message; its content
-- is not kept, because it is made again from the file.
CREATE TABLE uploads (
  n           INTEGER PRIMARY KEY AUTOINCREMENT,
  record_id   TEXT NOT NULL,       -- that the message with the manifest will have, the file's id for people
  receiver    BLOB NOT NULL,
  path        TEXT NOT NULL,
  name        TEXT NOT NULL,
  size        INTEGER NOT NULL,
  modified    INTEGER NOT NULL,    -- of the file, ns: another one is another file
  chunk_bytes INTEGER NOT NULL,
  secret      BLOB NOT NULL,
  sha256      BLOB NOT NULL,
  hashes      BLOB NOT NULL,       -- of all pieces, those of the index behind
  expires     INTEGER NOT NULL,
  max_pulls   INTEGER NOT NULL,
  copies      INTEGER NOT NULL,    -- how many relays must have every piece before the friend is told
  created     INTEGER NOT NULL,
  ready       INTEGER NOT NULL,    -- 0: the rows of its pieces are still being made
  manifest    INTEGER REFERENCES outbox (n), -- the message that tells the friend; null: not yet
  removed     INTEGER,
  holder      TEXT NOT NULL,
  held_until  INTEGER NOT NULL
) STRICT;

ALTER TABLE outbox ADD COLUMN upload INTEGER REFERENCES uploads (n) ON DELETE CASCADE;
ALTER TABLE outbox ADD COLUMN piece INTEGER;
CREATE UNIQUE INDEX outbox_pieces ON outbox (upload, piece) WHERE upload IS NOT NULL;
-- When its sender was told that a message expires soon and was not fetched.
ALTER TABLE outbox ADD COLUMN warned INTEGER;
-- Sealed content is kept while a relay may lose it; what expired is dropped.
CREATE INDEX outbox_sealed ON outbox (expires) WHERE sealed IS NOT NULL;

-- What the relay says of a copy when it is asked what is there: its word, beside the readers' receipts.
ALTER TABLE copies ADD COLUMN pulls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE copies ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;

-- Files that are fetched. What is here of one is in the file named part.
CREATE TABLE fetches (
  n          INTEGER PRIMARY KEY REFERENCES messages (n) ON DELETE CASCADE,
  part       TEXT NOT NULL,
  hashes     BLOB,                 -- of the chunks, once the whole index is here
  begun      INTEGER NOT NULL,
  saved      TEXT NOT NULL,        -- where the whole file went; empty: not yet
  finished   INTEGER NOT NULL,
  holder     TEXT NOT NULL,
  held_until INTEGER NOT NULL
) STRICT;

-- Chunks that are here, and the page of one piece that brought each, until the relay has our acknowledgement of it.
CREATE TABLE fetched (
  n     INTEGER NOT NULL REFERENCES fetches ON DELETE CASCADE,
  piece INTEGER NOT NULL,
  relay BLOB NOT NULL,
  page  TEXT,
  root  BLOB,
  PRIMARY KEY (n, piece)
) STRICT, WITHOUT ROWID;
