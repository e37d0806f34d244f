-- Backups that were written and rehearsed: doctor tells how old the last one is.
CREATE TABLE backups (
  n      INTEGER PRIMARY KEY AUTOINCREMENT,
  at     INTEGER NOT NULL,         -- of the snapshot
  place  TEXT NOT NULL,            -- path of the file; empty: sealed on the owner's relays
  bytes  INTEGER NOT NULL,
  sha256 BLOB NOT NULL
) STRICT;

-- Each time that this state was put back from a backup.
CREATE TABLE restores (
  n      INTEGER PRIMARY KEY AUTOINCREMENT,
  at     INTEGER NOT NULL,
  taken  INTEGER NOT NULL,         -- when the backup was made
  outbox INTEGER NOT NULL          -- messages up to this one may have been sent after that, under envelopes that are not known here
) STRICT;
