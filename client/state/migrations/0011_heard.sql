-- When each of the owner's devices was alive last, by its clock but not later than by this one's. Empty: one that was added and
-- not heard yet.
CREATE TABLE heard (
  device TEXT PRIMARY KEY,
  at     INTEGER NOT NULL,
  since  INTEGER NOT NULL          -- what it said before is no sign of life: then it was this device, whose state was put back
) STRICT, WITHOUT ROWID;
INSERT INTO heard SELECT device, min(max(at), CAST(unixepoch('subsec') * 1000 AS INTEGER)), 0 FROM batches GROUP BY device;
INSERT INTO heard SELECT CAST(key AS TEXT), CAST(unixepoch('subsec') * 1000 AS INTEGER), 0 FROM registers WHERE kind = 'device'
  ON CONFLICT DO NOTHING;
INSERT INTO heard SELECT '', CAST(unixepoch('subsec') * 1000 AS INTEGER), 0 FROM sharing WHERE company;

-- How much of each sender's messages was noted to be told, in bytes, on a day.
CREATE TABLE arrivals (
  sender BLOB PRIMARY KEY,
  day    INTEGER NOT NULL,
  bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
