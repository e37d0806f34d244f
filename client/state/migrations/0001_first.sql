-- Whose state this is. One folder serves one key: the sealing of messages and the counting of seq depend on it.
CREATE TABLE owner (
  one    INTEGER PRIMARY KEY CHECK (one = 1),
  key    BLOB NOT NULL CHECK (length(key) = 32),
  device TEXT NOT NULL,
  label  TEXT NOT NULL,
  card   BLOB                      -- the newest card of our own that we signed
) STRICT;

CREATE TABLE relays (
  key       BLOB PRIMARY KEY CHECK (length(key) = 32),
  address   TEXT NOT NULL,
  added     INTEGER NOT NULL,
  bytes     INTEGER NOT NULL,      -- the most that its announcement lets a record have
  published BLOB                   -- hash of the card that this relay took, so that only changes are sent
) STRICT, WITHOUT ROWID;

CREATE TABLE friends (
  key       BLOB PRIMARY KEY CHECK (length(key) = 32),
  name      TEXT NOT NULL COLLATE NOCASE UNIQUE,
  card      BLOB NOT NULL,
  added     INTEGER NOT NULL,
  refreshed INTEGER NOT NULL       -- when his relays were last asked for a newer card
) STRICT;

-- What arrived. The row outlives what the user removes: else the next relay would bring it again.
CREATE TABLE messages (
  n             INTEGER PRIMARY KEY AUTOINCREMENT,
  sender        BLOB NOT NULL,
  record_id     TEXT NOT NULL,
  content       BLOB NOT NULL,     -- hash over content and tag, what another copy must agree with
  envelope      BLOB NOT NULL,     -- hash of the envelope that came first
  relay         BLOB NOT NULL,     -- that brought it
  tag           TEXT NOT NULL,
  content_type  TEXT NOT NULL,
  name          TEXT NOT NULL,
  device        TEXT NOT NULL,
  seq           INTEGER NOT NULL,
  body          BLOB,
  fault         TEXT NOT NULL,     -- why it cannot be read, or empty
  sent          INTEGER NOT NULL,
  expires       INTEGER NOT NULL,
  received      INTEGER NOT NULL,
  read          INTEGER,
  removed       INTEGER,
  contradiction BLOB,              -- hash of different content under the same name
  UNIQUE (sender, record_id)
) STRICT;

-- The highest seq of each device that writes to us, and what is missing below it.
CREATE TABLE sequences (
  sender BLOB NOT NULL,
  device TEXT NOT NULL,
  high   INTEGER NOT NULL,
  PRIMARY KEY (sender, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE gaps (
  sender  BLOB NOT NULL,
  device  TEXT NOT NULL,
  first   INTEGER NOT NULL,
  last    INTEGER NOT NULL,
  noticed INTEGER NOT NULL,
  PRIMARY KEY (sender, device, first)
) STRICT, WITHOUT ROWID;

-- The seq that this device gave last, for each receiver.
CREATE TABLE counters (
  receiver BLOB PRIMARY KEY,
  seq      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
  n            INTEGER PRIMARY KEY AUTOINCREMENT,
  record_id    TEXT NOT NULL UNIQUE,
  receiver     BLOB NOT NULL,
  sealed       BLOB,               -- until no copy waits: sealing again would be another record
  tag          TEXT NOT NULL,
  content_type TEXT NOT NULL,
  name         TEXT NOT NULL,
  device       TEXT NOT NULL,
  seq          INTEGER NOT NULL,
  body         BLOB NOT NULL,
  expires      INTEGER NOT NULL,
  max_pulls    INTEGER NOT NULL,
  created      INTEGER NOT NULL,
  removed      INTEGER
) STRICT;

CREATE TABLE copies (
  n       INTEGER NOT NULL REFERENCES outbox ON DELETE CASCADE,
  relay   BLOB NOT NULL,
  address TEXT NOT NULL,
  state   TEXT NOT NULL CHECK (state IN ('queued', 'stored', 'removing', 'gone', 'failed')),
  error   TEXT NOT NULL,
  changed INTEGER NOT NULL,
  hash    BLOB,                    -- of the envelope that the relay keeps
  cursor  TEXT NOT NULL,
  PRIMARY KEY (n, relay)
) STRICT, WITHOUT ROWID;

-- Each start of a program asks what waits for one relay.
CREATE INDEX copies_waiting ON copies (relay, n) WHERE state IN ('queued', 'removing');

-- Every envelope signed for a copy. A relay that answers with another hash did not store ours.
CREATE TABLE attempts (
  n     INTEGER NOT NULL REFERENCES outbox ON DELETE CASCADE,
  relay BLOB NOT NULL,
  hash  BLOB NOT NULL,
  PRIMARY KEY (n, relay, hash)
) STRICT, WITHOUT ROWID;

-- Pulling from one relay: the page that was asked for and is not done, the page that is stored and not
-- acknowledged, and who is at work.
CREATE TABLE pulls (
  relay        BLOB PRIMARY KEY,
  page         TEXT,
  page_grp     INTEGER,            -- scope of the page: a group, a newcomer, or neither (another device's)
  page_friend  BLOB,
  page_senders BLOB,
  page_after   TEXT,
  page_limit   INTEGER,
  ack_page     TEXT,
  ack_root     BLOB,
  next_limit   INTEGER NOT NULL,
  holder       TEXT NOT NULL,
  held_until   INTEGER NOT NULL
) STRICT;

-- How far each group of friends was pulled. Groups exist because one pull names at most 1,000 senders.
CREATE TABLE cursors (
  relay BLOB NOT NULL,
  grp   INTEGER NOT NULL,
  after TEXT,
  PRIMARY KEY (relay, grp)
) STRICT, WITHOUT ROWID;

CREATE TABLE memberships (
  relay  BLOB NOT NULL,
  friend BLOB NOT NULL REFERENCES friends (key) ON DELETE CASCADE,
  grp    INTEGER,                  -- null: a newcomer, who is pulled alone
  after  TEXT,                     -- how far the newcomer was pulled
  PRIMARY KEY (relay, friend)
) STRICT, WITHOUT ROWID;
