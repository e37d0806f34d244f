-- Where announcements are read. The user names them; none is known from the start.
CREATE TABLE hubs (
  network TEXT NOT NULL,
  address TEXT NOT NULL,
  added   INTEGER NOT NULL,
  heard   INTEGER NOT NULL,      -- when its book was read to its end, 0: never
  next    INTEGER NOT NULL,      -- where its book goes on
  whole   INTEGER NOT NULL,      -- when it was last read from the start
  fault   TEXT NOT NULL,         -- why it could not be read since, or empty
  PRIMARY KEY (network, address)
) STRICT, WITHOUT ROWID;

-- The best announcement of each relay. It stays when it has expired, until forget: else an older one could come back.
CREATE TABLE relays (
  network TEXT NOT NULL,
  key     BLOB NOT NULL CHECK (length(key) = 32),
  seq     INTEGER NOT NULL,
  hash    BLOB NOT NULL,
  work    INTEGER NOT NULL,
  until   INTEGER NOT NULL,      -- valid
  forget  INTEGER NOT NULL,
  first   INTEGER NOT NULL,      -- when this user first heard of the relay
  changed INTEGER NOT NULL,      -- when this announcement came
  hosts   TEXT NOT NULL,         -- one a line
  envelope BLOB NOT NULL,        -- byte for byte as it was signed
  PRIMARY KEY (network, key)
) STRICT; -- with rowids: without, each announcement would take a page of its own
