-- +goose Up

-- An inventory of all outboxes asks for it by saying n > 0. Nothing else may have it: a pull has the sender and the
-- place as well, and a plan made on a small table took this index for his, and then walked all that he ever
-- wrote to anybody.
DROP INDEX records_outbox;
CREATE INDEX records_outbox ON records (sender, n) WHERE state = 0 AND n > 0;
-- The same for the sweeper, who alone looks for pages by the time they were made, and says made > 0.
DROP INDEX pages_abandoned;
CREATE INDEX pages_abandoned ON pages (made) WHERE got IS NULL AND made > 0;

-- +goose Down
DROP INDEX pages_abandoned;
CREATE INDEX pages_abandoned ON pages (made) WHERE got IS NULL;
DROP INDEX records_outbox;
CREATE INDEX records_outbox ON records (sender, n) WHERE state = 0;
