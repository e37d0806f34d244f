-- +goose Up

-- What all records of a page have in common, its sender and its bill, is stored once: senders has 32 bytes then, and bills one number. A
-- page of 100 stays in its row so without anything being compressed.
COMMENT ON COLUMN pages.senders IS '32 bytes a record, or 32 if all are of one sender';
COMMENT ON COLUMN pages.bills IS '0: a grant''s; null: all are. One number if all are on one bill';
ALTER TABLE pages ALTER ns SET STORAGE EXTERNAL, ALTER bills SET STORAGE EXTERNAL;
-- No plan depends on what is in these columns, and to count the values of a hundred thousand arrays was a fifth of what Postgres did for a
-- relay that is pulled from.
ALTER TABLE pages ALTER ns SET STATISTICS 0, ALTER senders SET STATISTICS 0, ALTER ids SET STATISTICS 0, ALTER sizes SET STATISTICS 0,
    ALTER hashes SET STATISTICS 0, ALTER root SET STATISTICS 0, ALTER bills SET STATISTICS 0, ALTER got SET STATISTICS 0, ALTER got_before SET STATISTICS 0;
ALTER TABLE records ALTER envelope SET STATISTICS 0, ALTER hash SET STATISTICS 0, ALTER request_hash SET STATISTICS 0;
ALTER TABLE ledger_blocks ALTER lines SET STATISTICS 0;

-- +goose Down
ALTER TABLE ledger_blocks ALTER lines SET STATISTICS -1;
ALTER TABLE records ALTER envelope SET STATISTICS -1, ALTER hash SET STATISTICS -1, ALTER request_hash SET STATISTICS -1;
ALTER TABLE pages ALTER ns SET STATISTICS -1, ALTER senders SET STATISTICS -1, ALTER ids SET STATISTICS -1, ALTER sizes SET STATISTICS -1,
    ALTER hashes SET STATISTICS -1, ALTER root SET STATISTICS -1, ALTER bills SET STATISTICS -1, ALTER got SET STATISTICS -1, ALTER got_before SET STATISTICS -1;
ALTER TABLE pages ALTER ns SET STORAGE EXTENDED, ALTER bills SET STORAGE EXTENDED;
UPDATE pages SET senders = decode(repeat(encode(senders, 'hex'), cardinality(ns)), 'hex') WHERE octet_length(senders) = 32;
UPDATE pages SET bills = array_fill(bills[1], ARRAY[cardinality(ns)]) WHERE cardinality(bills) = 1;
COMMENT ON COLUMN pages.senders IS NULL;
COMMENT ON COLUMN pages.bills IS NULL;
