-- +goose Up

-- What all records of a page have in common, its sender and its bill, is stored once: senders has 32 bytes then, and bills one number. Names
-- and sizes stand in one value, as blocks of the ledger have them: so a page that is on one bill and of one sender goes there
-- within the database. A page of 100 stays in its row without anything being compressed.

-- uvarint is an unsigned varint of Go's package encoding/binary for numbers below 2^28, always of 4 bytes; null for others.
CREATE FUNCTION uvarint(n bigint) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    'SELECT CASE WHEN n >= 0 AND n < 268435456 THEN substr(int8send(((n & 127 | 128) << 24) | ((n >> 7 & 127 | 128) << 16) | ((n >> 14 & 127 | 128) << 8) | (n >> 21 & 127)), 5) END';

ALTER TABLE pages ADD COLUMN names bytea, ADD COLUMN bytes bigint;
UPDATE pages SET
    names = (SELECT coalesce(string_agg(uvarint(octet_length(convert_to(t.id, 'UTF8'))) || convert_to(t.id, 'UTF8') || uvarint(t.size), ''::bytea ORDER BY t.i), ''::bytea)
      FROM unnest(ids, sizes) WITH ORDINALITY AS t (id, size, i)),
    bytes = (SELECT coalesce(sum(t.size), 0) FROM unnest(sizes) AS t (size));
ALTER TABLE pages ALTER names SET NOT NULL, ALTER bytes SET NOT NULL, DROP COLUMN ids, DROP COLUMN sizes;
COMMENT ON COLUMN pages.senders IS '32 bytes a record, or 32 if all are of one sender';
COMMENT ON COLUMN pages.names IS 'of each record the length of its id, the id, and its bytes; numbers are varints';
COMMENT ON COLUMN pages.bytes IS 'of all its records';
COMMENT ON COLUMN pages.bills IS '0: a grant''s; null: all are. One number if all are on one bill';
ALTER TABLE pages ALTER ns SET STORAGE EXTERNAL, ALTER bills SET STORAGE EXTERNAL, ALTER names SET STORAGE EXTERNAL;

-- With these the ledger adds a page up without reading it.
ALTER TABLE ledger_acks ADD COLUMN bill bigint, ADD COLUMN bytes bigint;
COMMENT ON COLUMN ledger_acks.bill IS 'that all records of the page are on, which are of one sender; null: it has to be looked into';

-- No plan depends on what is in these columns, and to count the values of a hundred thousand arrays was a fifth of what Postgres did for a
-- relay that is pulled from.
ALTER TABLE pages ALTER ns SET STATISTICS 0, ALTER senders SET STATISTICS 0, ALTER names SET STATISTICS 0, ALTER bytes SET STATISTICS 0,
    ALTER hashes SET STATISTICS 0, ALTER root SET STATISTICS 0, ALTER bills SET STATISTICS 0, ALTER got SET STATISTICS 0, ALTER got_before SET STATISTICS 0;
ALTER TABLE records ALTER envelope SET STATISTICS 0, ALTER hash SET STATISTICS 0, ALTER request_hash SET STATISTICS 0;
ALTER TABLE ledger_blocks ALTER lines SET STATISTICS 0;

-- +goose Down
-- An older relayd cannot read blocks of pages that were posted as they are: the ledger would be lost to it.
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM ledger_blocks WHERE get_byte(lines, 0) = 9) THEN
        RAISE EXCEPTION 'the ledger has pages that an older relayd cannot read: restore a backup of before the upgrade instead';
    END IF;
END $$;
-- +goose StatementEnd
ALTER TABLE ledger_blocks ALTER lines SET STATISTICS -1;
ALTER TABLE records ALTER envelope SET STATISTICS -1, ALTER hash SET STATISTICS -1, ALTER request_hash SET STATISTICS -1;
ALTER TABLE ledger_acks DROP COLUMN bill, DROP COLUMN bytes;
ALTER TABLE pages ALTER ns SET STATISTICS -1, ALTER senders SET STATISTICS -1,
    ALTER hashes SET STATISTICS -1, ALTER root SET STATISTICS -1, ALTER bills SET STATISTICS -1, ALTER got SET STATISTICS -1, ALTER got_before SET STATISTICS -1;
ALTER TABLE pages ALTER ns SET STORAGE EXTENDED, ALTER bills SET STORAGE EXTENDED;
COMMENT ON COLUMN pages.senders IS NULL;
COMMENT ON COLUMN pages.bills IS NULL;
ALTER TABLE pages ADD COLUMN ids text[], ADD COLUMN sizes integer[];
-- +goose StatementBegin
DO $$
DECLARE
    p record; at integer; part integer; shift integer; number integer; ids text[]; sizes integer[];
BEGIN
    FOR p IN SELECT ctid AS place, * FROM pages LOOP
        at := 0; ids := '{}'; sizes := '{}';
        WHILE at < octet_length(p.names) LOOP
            FOR i IN 1..2 LOOP
                number := 0; shift := 0;
                LOOP
                    part := get_byte(p.names, at); at := at + 1;
                    number := number | ((part & 127) << shift); shift := shift + 7;
                    EXIT WHEN part < 128;
                END LOOP;
                IF i = 1 THEN
                    ids := ids || convert_from(substr(p.names, at + 1, number), 'UTF8'); at := at + number;
                ELSE
                    sizes := sizes || number;
                END IF;
            END LOOP;
        END LOOP;
        UPDATE pages SET ids = do_ids.ids, sizes = do_ids.sizes,
            senders = CASE WHEN octet_length(p.senders) = 32 THEN decode(repeat(encode(p.senders, 'hex'), cardinality(p.ns)), 'hex') ELSE p.senders END,
            bills = CASE WHEN cardinality(p.bills) = 1 THEN array_fill(p.bills[1], ARRAY[cardinality(p.ns)]) ELSE p.bills END
            FROM (SELECT ids, sizes) AS do_ids (ids, sizes) WHERE ctid = p.place;
    END LOOP;
END $$;
-- +goose StatementEnd
ALTER TABLE pages ALTER ids SET NOT NULL, ALTER sizes SET NOT NULL, ALTER ids SET STORAGE EXTERNAL, ALTER sizes SET STORAGE EXTERNAL, DROP COLUMN names, DROP COLUMN bytes;
DROP FUNCTION uvarint(bigint);
