-- The owner himself is pulled on his own relays, friend or not: his other devices write to him there. Whoever is a friend no more, also because
-- another device says so, is pulled from the beginning when he comes back.
CREATE TRIGGER friends_pulled AFTER DELETE ON friends BEGIN
  DELETE FROM memberships WHERE friend = OLD.key;
END;

-- How this device and the owner's others tell each other what they did.
CREATE TABLE sharing (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  company  INTEGER NOT NULL,       -- 1: there is another device; alone, only contacts are told, for whoever restores the words
  applying INTEGER NOT NULL,       -- 1: while in this transaction another device's word is taken in, which is no change of ours
  hello    INTEGER NOT NULL,       -- 1: the others do not know of this device, tell them at once
  seq      INTEGER NOT NULL,       -- of the last batch
  restated INTEGER NOT NULL        -- when everything was said again
) STRICT;
INSERT INTO sharing VALUES (1, 0, 0, 0, 0, 0);

-- What changed here and the others were not told. at is 0 within the transaction that made the change.
CREATE TABLE changes (
  kind TEXT NOT NULL,
  key  BLOB NOT NULL,
  at   INTEGER NOT NULL,
  due  INTEGER NOT NULL,           -- not to be told before then
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX changes_unstamped ON changes (at) WHERE at = 0; -- looked at after each transaction

-- What names, relays and the like come to, of all that this device and the others said: JSON, see client/devices.
CREATE TABLE registers (
  kind  TEXT NOT NULL,
  key   BLOB NOT NULL,
  entry TEXT NOT NULL,
  shown TEXT NOT NULL,             -- the friend's name here: another one, if two friends were given the same
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- The batches that were taken in.
CREATE TABLE batches (
  device TEXT NOT NULL,
  seq    INTEGER NOT NULL,
  at     INTEGER NOT NULL,         -- the device's clock
  PRIMARY KEY (device, seq)
) STRICT, WITHOUT ROWID;

-- Marks of messages, also of such as are not here yet.
CREATE TABLE marks (
  sender    BLOB NOT NULL,
  record_id TEXT NOT NULL,
  read      INTEGER NOT NULL,      -- 0: not
  removed   INTEGER NOT NULL,
  expires   INTEGER NOT NULL,
  PRIMARY KEY (sender, record_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX marks_expires ON marks (expires);

-- Whoever changes a contact, a relay or a message, in whatever way, has it noted here. Deleting before inserting, because the
-- conflict clause of the statement that fires a trigger would override one in it.
CREATE TRIGGER friends_new AFTER INSERT ON friends WHEN (SELECT NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'friend' AND key = NEW.key;
  INSERT INTO changes VALUES ('friend', NEW.key, 0, 0);
END;
CREATE TRIGGER friends_changed AFTER UPDATE OF name, card ON friends
WHEN (NEW.name <> OLD.name OR NEW.card <> OLD.card) AND (SELECT NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'friend' AND key = NEW.key;
  INSERT INTO changes VALUES ('friend', NEW.key, 0, 0);
END;
CREATE TRIGGER friends_gone AFTER DELETE ON friends WHEN (SELECT NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'friend' AND key = OLD.key;
  INSERT INTO changes VALUES ('friend', OLD.key, 0, 0);
END;
CREATE TRIGGER relays_new AFTER INSERT ON relays WHEN (SELECT NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'relay' AND key = NEW.key;
  INSERT INTO changes VALUES ('relay', NEW.key, 0, 0);
END;
CREATE TRIGGER relays_changed AFTER UPDATE OF address, bytes ON relays
WHEN (NEW.address <> OLD.address OR NEW.bytes <> OLD.bytes) AND (SELECT NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'relay' AND key = NEW.key;
  INSERT INTO changes VALUES ('relay', NEW.key, 0, 0);
END;
CREATE TRIGGER relays_gone AFTER DELETE ON relays WHEN (SELECT NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'relay' AND key = OLD.key;
  INSERT INTO changes VALUES ('relay', OLD.key, 0, 0);
END;
CREATE TRIGGER label_changed AFTER UPDATE OF label ON owner WHEN NEW.label <> OLD.label AND (SELECT NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'label';
  INSERT INTO changes VALUES ('label', x'00', 0, 0);
END;
CREATE TRIGGER messages_marked AFTER UPDATE OF read, removed ON messages
WHEN (NEW.read IS NOT OLD.read OR NEW.removed IS NOT OLD.removed) AND (SELECT company AND NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'mark' AND key = CAST(NEW.sender || NEW.record_id AS BLOB);
  INSERT INTO changes VALUES ('mark', CAST(NEW.sender || NEW.record_id AS BLOB), 0, 0);
END;
-- What programs write by themselves is not told: receipts, pieces of files, and what is kept for whoever restores the words.
CREATE VIEW sayable AS SELECT n, CAST(record_id AS BLOB) AS key FROM outbox WHERE tag <> 'ack' AND upload IS NULL AND signer IS NULL
  AND NOT (receiver = (SELECT key FROM owner) AND content_type LIKE 'application/vnd.relaymarket.%' AND content_type <> 'application/vnd.relaymarket.file+json');
CREATE TRIGGER outbox_new AFTER INSERT ON outbox WHEN (SELECT company AND NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'sent' AND key = (SELECT key FROM sayable WHERE n = NEW.n);
  INSERT INTO changes SELECT 'sent', key, 0, 0 FROM sayable WHERE n = NEW.n;
END;
CREATE TRIGGER outbox_removed AFTER UPDATE OF removed ON outbox WHEN NEW.removed IS NOT OLD.removed AND (SELECT company AND NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'sent' AND key = (SELECT key FROM sayable WHERE n = NEW.n);
  INSERT INTO changes SELECT 'sent', key, 0, 0 FROM sayable WHERE n = NEW.n;
END;
CREATE TRIGGER copies_new AFTER INSERT ON copies WHEN (SELECT company AND NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'sent' AND key = (SELECT key FROM sayable WHERE n = NEW.n);
  INSERT INTO changes SELECT 'sent', key, 0, 0 FROM sayable WHERE n = NEW.n;
END;
CREATE TRIGGER copies_changed AFTER UPDATE OF state, hash ON copies
WHEN (NEW.state <> OLD.state OR NEW.hash IS NOT OLD.hash) AND (SELECT company AND NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'sent' AND key = (SELECT key FROM sayable WHERE n = NEW.n);
  INSERT INTO changes SELECT 'sent', key, 0, 0 FROM sayable WHERE n = NEW.n;
END;
CREATE TRIGGER receipts_new AFTER INSERT ON receipts WHEN (SELECT company AND NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'sent' AND key IN (SELECT t.key FROM sayable t JOIN attempts a ON a.n = t.n WHERE a.hash = NEW.hash AND a.relay = NEW.relay);
  INSERT INTO changes SELECT DISTINCT 'sent', t.key, 0, 0 FROM sayable t JOIN attempts a ON a.n = t.n WHERE a.hash = NEW.hash AND a.relay = NEW.relay;
END;

-- What is here already, as of before everything else.
INSERT INTO changes SELECT 'friend', key, added, 0 FROM friends;
INSERT INTO changes SELECT 'relay', key, added, 0 FROM relays;
INSERT INTO changes SELECT 'label', x'00', 1, 0 FROM owner WHERE label <> '';
