-- +goose Up

-- The acknowledgement that a pull brings along stands in the row of the page which that pull makes: nothing is written to the page
-- it is about, which is acknowledged because the next one is there. One that makes no page is stored at its own page, in
-- got and got_at, as all of them were before this.
ALTER TABLE pages ADD COLUMN got_before bytea;
-- Nearly all pages are written once.
ALTER TABLE pages SET (fillfactor = 80, toast_tuple_target = 8160);
-- A page of 100 stays in its row. Hashes cannot be compressed, and names hardly: trying took a seventh of all that such a page costs.
ALTER TABLE pages ALTER ids SET STORAGE EXTERNAL, ALTER sizes SET STORAGE EXTERNAL, ALTER hashes SET STORAGE EXTERNAL;

-- +goose Down
UPDATE pages p SET got = coalesce(n.got_before, ''), got_at = n.made FROM (
    SELECT reader, page_id, lead(got_before) OVER w AS got_before, lead(made) OVER w AS made FROM pages WHERE turn > 0 WINDOW w AS (PARTITION BY reader ORDER BY turn)) n
    WHERE p.reader = n.reader AND p.page_id = n.page_id AND p.got_at IS NULL AND n.made IS NOT NULL;
ALTER TABLE pages ALTER ids SET STORAGE EXTENDED, ALTER sizes SET STORAGE EXTENDED, ALTER hashes SET STORAGE EXTENDED;
ALTER TABLE pages RESET (fillfactor, toast_tuple_target);
ALTER TABLE pages SET (fillfactor = 40);
ALTER TABLE pages DROP COLUMN got_before;
