-- A friend's newer card alone is no news in a hurry, and he must not keep other changes from being told: it waits for a day (due 1, until the
-- transaction gives it its time) from the first one on, and takes no other change's place.
DROP TRIGGER friends_changed;
CREATE TRIGGER friends_renamed AFTER UPDATE OF name ON friends
WHEN NEW.name <> OLD.name AND (SELECT NOT applying FROM sharing) BEGIN
  DELETE FROM changes WHERE kind = 'friend' AND key = NEW.key;
  INSERT INTO changes VALUES ('friend', NEW.key, 0, 0);
END;
CREATE TRIGGER friends_card AFTER UPDATE OF card ON friends
WHEN NEW.card <> OLD.card AND (SELECT NOT applying FROM sharing) BEGIN
  INSERT INTO changes SELECT 'friend', NEW.key, 0, 1 WHERE NOT EXISTS (SELECT 1 FROM changes WHERE kind = 'friend' AND key = NEW.key);
END;
