-- +goose Up

-- A bill names the pages that are on it instead of saying again what is in their rows, which stay as long as it does. What is not paid for
-- by then is written out before they go.
ALTER TABLE ledger_blocks ADD COLUMN acked bigint;
COMMENT ON COLUMN ledger_blocks.acked IS 'when the first of the pages that it names was acknowledged; null: it names none';
CREATE INDEX ledger_blocks_acked ON ledger_blocks (acked) WHERE acked IS NOT NULL;

-- The sweeper goes from reader to reader, each one's oldest pages first. Pages from before schema 9 have no turn among them: all were acknowledged,
-- and go now, but those that the ledger has yet to read.
DROP INDEX pages_made;
DELETE FROM pages p WHERE turn = 0 AND NOT EXISTS (SELECT FROM ledger_acks a WHERE a.reader = p.reader AND a.page_id = p.page_id);

-- +goose Down
-- An older relayd does not look for what a bill names, and would sweep it.
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM ledger_blocks WHERE acked IS NOT NULL) THEN
        RAISE EXCEPTION 'the ledger has pages that an older relayd cannot read: restore a backup of before the upgrade instead';
    END IF;
END $$;
-- +goose StatementEnd
CREATE INDEX pages_made ON pages (made) WHERE made > 0;
DROP INDEX ledger_blocks_acked;
ALTER TABLE ledger_blocks DROP COLUMN acked;
