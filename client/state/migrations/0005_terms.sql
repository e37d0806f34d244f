-- What the owner would take of a relay, what he likes best first. None: the usual.
CREATE TABLE wishes (
  place     INTEGER PRIMARY KEY,
  type      TEXT NOT NULL,
  topic     TEXT NOT NULL,            -- empty: none
  plaintext INTEGER NOT NULL,
  ads       INTEGER NOT NULL
) STRICT;

-- What a relay announced when it was asked last, or when it refused: contracts are opened on it.
CREATE TABLE offers (
  relay        BLOB PRIMARY KEY,
  address      TEXT NOT NULL,
  at           INTEGER NOT NULL,
  announcement BLOB NOT NULL          -- the envelope
) STRICT, WITHOUT ROWID;

-- What a relay said to the wishes that it was asked last.
CREATE TABLE answers (
  relay     BLOB PRIMARY KEY,
  at        INTEGER NOT NULL,
  asked     TEXT NOT NULL,            -- JSON: the wishes
  refused   TEXT NOT NULL,            -- JSON: why, of each
  accepted  INTEGER,                  -- which; NULL: none
  ads       INTEGER NOT NULL,         -- 1: the owner is to be shown the relay's notice
  topic     TEXT NOT NULL,            -- the one tag that the account takes; empty: any
  plaintext INTEGER NOT NULL          -- 1: it takes nothing sealed
) STRICT, WITHOUT ROWID;

-- Messages may come that were not sealed.
ALTER TABLE messages ADD COLUMN plain INTEGER NOT NULL DEFAULT 0;
