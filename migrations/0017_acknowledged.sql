-- +goose Up

-- The acknowledgement that a pull brings along stands in the row of the page which that pull makes: nothing is written to the page
-- it is about, which is acknowledged because the next one is there. One that makes no page is stored at its own page, in
-- got and got_at, as all of them were before this.
ALTER TABLE pages ADD COLUMN got_before bytea;
-- Nearly all pages are written once.
ALTER TABLE pages SET (fillfactor = 80, toast_tuple_target = 8160);
-- A page of 100 stays in its row. Hashes cannot be compressed, and names hardly: trying took a seventh of all that such a page costs.
ALTER TABLE pages ALTER ids SET STORAGE EXTERNAL, ALTER sizes SET STORAGE EXTERNAL, ALTER hashes SET STORAGE EXTERNAL;

-- To a relayd of before this, a page that is acknowledged by the next one is open: were its acknowledgement repeated there, it would be billed
-- again. None should run on this database any more; one that does is refused. This relayd updates got for acknowledgements that make no
-- page, which are few, and of a reader's last page only.
-- +goose StatementBegin
CREATE FUNCTION refuse_second_got() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pages WHERE reader = NEW.reader AND turn > 0 AND turn > NEW.turn) THEN
        RAISE EXCEPTION 'page % is acknowledged by the next one', NEW.page_id
            USING ERRCODE = 'integrity_constraint_violation', HINT = 'A relayd older than this database runs on it: stop it.';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER pages_second_got BEFORE UPDATE OF got ON pages FOR EACH ROW
    WHEN (OLD.got IS NULL AND NEW.got IS NOT NULL) EXECUTE FUNCTION refuse_second_got();

-- +goose Down
DROP TRIGGER pages_second_got ON pages;
DROP FUNCTION refuse_second_got();
UPDATE pages p SET got = coalesce(n.got_before, ''), got_at = n.made FROM (
    SELECT reader, page_id, lead(got_before) OVER w AS got_before, lead(made) OVER w AS made FROM pages WHERE turn > 0 WINDOW w AS (PARTITION BY reader ORDER BY turn)) n
    WHERE p.reader = n.reader AND p.page_id = n.page_id AND p.got_at IS NULL AND n.made IS NOT NULL;
ALTER TABLE pages ALTER ids SET STORAGE EXTENDED, ALTER sizes SET STORAGE EXTENDED, ALTER hashes SET STORAGE EXTENDED;
ALTER TABLE pages RESET (fillfactor, toast_tuple_target);
ALTER TABLE pages SET (fillfactor = 40);
ALTER TABLE pages DROP COLUMN got_before;
