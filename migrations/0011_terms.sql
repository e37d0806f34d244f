-- +goose Up

-- Accounts that a volunteer gave to who asked, beside those that the operator granted by hand. What they are bound to is
-- checked with each write, by the statement that judges; the usual one passes over accounts that are bound to anything.
ALTER TABLE accounts
    ADD COLUMN volunteer text    NOT NULL DEFAULT '' CHECK (volunteer IN ('', 'key', 'topic')), -- for whom it was given
    ADD COLUMN topic     text    CHECK (topic <> ''),        -- the one tag of its records; null: any
    ADD COLUMN plaintext boolean NOT NULL DEFAULT false,     -- its records are not sealed
    ADD COLUMN ads       boolean NOT NULL DEFAULT false;     -- its owner said that he is shown the notice

-- Those for topics are counted, because strangers have them.
CREATE INDEX accounts_volunteer_topic ON accounts (key) WHERE volunteer = 'topic';

-- Whom the operator serves, and whom not.
CREATE TABLE willing (
    kind         text    NOT NULL CHECK (kind IN ('key', 'topic')),
    name         text    COLLATE "C" NOT NULL, -- 64 hex digits; a tag, or * for any
    allowed      boolean NOT NULL,             -- false: denied, whatever else allows it
    quota_stored bigint  CHECK (quota_stored >= 0), -- of an allowed key; null: the usual
    quota_moved  bigint  CHECK (quota_moved >= 0),
    note         text    NOT NULL DEFAULT '',
    PRIMARY KEY (kind, name)
);

-- Rises with each change of the lists, so that every relayd on this database sees it soon; whoever opens an account for a
-- topic locks it, so that their number is exact.
CREATE TABLE willing_version (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL
);
INSERT INTO willing_version (version) VALUES (1);

-- +goose Down
DROP TABLE willing_version, willing;
DROP INDEX accounts_volunteer_topic;
ALTER TABLE accounts DROP COLUMN volunteer, DROP COLUMN topic, DROP COLUMN plaintext, DROP COLUMN ads;
