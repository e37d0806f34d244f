-- What a daemon notices is told when its user looks.
CREATE TABLE gaps_told (
  id   INTEGER PRIMARY KEY CHECK (id = 1),
  till INTEGER NOT NULL            -- gaps that were noticed before this time were told
) STRICT;

-- Changes of friends' cards that were noticed when nobody looked, JSON.
CREATE TABLE untold_changes (
  n      INTEGER PRIMARY KEY AUTOINCREMENT,
  change BLOB NOT NULL
) STRICT;
