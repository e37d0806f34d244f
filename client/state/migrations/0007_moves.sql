-- What the owner is to be told of friends: cards that changed or were refused, contradictions, first words of strangers.
CREATE TABLE notices (
  n         INTEGER PRIMARY KEY AUTOINCREMENT,
  friend    BLOB NOT NULL,
  kind      TEXT NOT NULL,
  about     BLOB NOT NULL,         -- hash of what it is about: it is noticed once
  at        INTEGER NOT NULL,
  relay     BLOB,                  -- that brought it
  before    BLOB,                  -- the card that was known
  after     BLOB,                  -- the card that came
  record_id TEXT NOT NULL,
  detail    TEXT NOT NULL,
  shown     INTEGER,               -- when the owner saw it
  UNIQUE (friend, kind, about)
) STRICT;
CREATE INDEX notices_fresh ON notices (n) WHERE shown IS NULL;

-- When the owner was told of a gap.
ALTER TABLE gaps ADD COLUMN shown INTEGER;

-- What each friend was told of the owner's own card. Of those who are friends already it is taken that they know it.
CREATE TABLE told (
  friend BLOB PRIMARY KEY,
  card   BLOB,                     -- the one that he was told last; null: none
  before BLOB,                     -- the one before it: where he looks until he knows better
  n      INTEGER,                  -- the outbox's number of the record that says so; null: none was needed
  at     INTEGER NOT NULL
) STRICT;
INSERT INTO told SELECT f.key, o.card, NULL, NULL, 0 FROM friends f, owner o;

-- Whom the owner admits beside any friend, or otherwise than any friend, and who was invited.
CREATE TABLE admissions (
  key        BLOB PRIMARY KEY,
  bytes      INTEGER NOT NULL,     -- 0: not admitted, he said no
  records    INTEGER NOT NULL,
  invitation INTEGER NOT NULL,     -- 1: the key of an invitation, 0: of a person
  note       TEXT NOT NULL,        -- what the owner calls the invitation
  created    INTEGER NOT NULL,
  until      INTEGER NOT NULL,     -- 0: without end
  used       INTEGER NOT NULL      -- first words that came by it
) STRICT;

-- What any friend is admitted with. No row: the usual.
CREATE TABLE admission_default (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  bytes   INTEGER NOT NULL,        -- 0: no friend is admitted by himself
  records INTEGER NOT NULL
) STRICT;

-- What this device put on each relay's list of admitted keys, and when it looked there.
CREATE TABLE admitted (
  relay   BLOB NOT NULL,
  key     BLOB NOT NULL,
  bytes   INTEGER NOT NULL,
  records INTEGER NOT NULL,
  PRIMARY KEY (relay, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE admitted_looked (
  relay  BLOB PRIMARY KEY,
  at     INTEGER NOT NULL,
  wished BLOB NOT NULL             -- hash of what the owner wished then
) STRICT, WITHOUT ROWID;

-- Who left a first word and is no friend yet.
CREATE TABLE strangers (
  key        BLOB PRIMARY KEY,
  card       BLOB NOT NULL,        -- envelope, verified when it was stored
  invitation BLOB NOT NULL,
  received   INTEGER NOT NULL
) STRICT;

-- A first word is signed by the key of an invitation, not by the owner.
ALTER TABLE outbox ADD COLUMN signer BLOB;

-- Those who were invited are pulled from like friends, and are none.
CREATE TABLE members (
  relay  BLOB NOT NULL,
  friend BLOB NOT NULL,            -- or the key of an invitation
  grp    INTEGER,                  -- null: a newcomer, who is pulled alone
  after  TEXT,                     -- how far the newcomer was pulled
  PRIMARY KEY (relay, friend)
) STRICT, WITHOUT ROWID;
INSERT INTO members SELECT relay, friend, grp, after FROM memberships;
DROP TABLE memberships;
ALTER TABLE members RENAME TO memberships;
