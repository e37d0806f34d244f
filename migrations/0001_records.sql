-- +goose Up

-- The one cursor of all inboxes. Its row is locked last before COPY and COMMIT, so that n is handed
-- out in commit order: whoever sees n committed sees everything below it.
CREATE TABLE relay_cursor (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    text   NOT NULL, -- another life of the database has another epoch
    n        bigint NOT NULL CHECK (n >= 0),
    relay    bytea  CHECK (octet_length(relay) = 32) -- whose database this is, from its first start on
) WITH (fillfactor = 10); -- one hot row: room for its next versions on its own page

INSERT INTO relay_cursor (epoch, n) VALUES (substr(replace(gen_random_uuid()::text, '-', ''), 1, 12), 0);

-- Who is served, and what he has used. Rows are updated once a batch of writes.
CREATE TABLE accounts (
    key          bytea   PRIMARY KEY CHECK (octet_length(key) = 32),
    kind         text    NOT NULL CHECK (kind IN ('grant')),
    quota_stored bigint  NOT NULL CHECK (quota_stored >= 0), -- bytes at once
    quota_moved  bigint  NOT NULL CHECK (quota_moved >= 0),  -- bytes a calendar month, UTC
    last_day     date    NOT NULL,                           -- last day on which writes are taken, UTC
    revoked      boolean NOT NULL DEFAULT false,
    note         text    NOT NULL DEFAULT '',
    stored       bigint  NOT NULL DEFAULT 0 CHECK (stored >= 0),
    moved        bigint  NOT NULL DEFAULT 0 CHECK (moved >= 0), -- in month, reserved pulls included
    month        integer NOT NULL DEFAULT 0                     -- year·100 + month
) WITH (fillfactor = 50);

-- Keys that may leave records for an account's owner on his cost. A key that is no longer admitted
-- stays, with limits of 0, until what it left is gone: admitted again, it starts from its real use.
CREATE TABLE admissions (
    owner        bytea  NOT NULL REFERENCES accounts (key),
    key          bytea  NOT NULL CHECK (octet_length(key) = 32),
    max_bytes    bigint NOT NULL CHECK (max_bytes >= 0),
    max_records  bigint NOT NULL CHECK (max_records >= 0),
    used_bytes   bigint NOT NULL DEFAULT 0 CHECK (used_bytes >= 0),
    used_records bigint NOT NULL DEFAULT 0 CHECK (used_records >= 0),
    PRIMARY KEY (owner, key)
) WITH (fillfactor = 70);

-- Records, and what remains of them until an hour after they expire: a tombstone has no envelope.
CREATE TABLE records (
    n            bigint   PRIMARY KEY, -- cursor: a page names its records by it, and the tail reads on from it
    sender       bytea    NOT NULL CHECK (octet_length(sender) = 32),
    receiver     bytea    NOT NULL CHECK (octet_length(receiver) = 32),
    id           text     COLLATE "C" NOT NULL,
    account      bytea    NOT NULL, -- who pays: the sender, or the receiver who admits him
    bytes        integer  NOT NULL CHECK (bytes > 0), -- length of the envelope
    timestamp    bigint   NOT NULL, -- the envelope's
    expires      bigint   NOT NULL,
    written      bigint   NOT NULL, -- this relay's clock at the write: which month it was counted in
    max_pulls    integer  NOT NULL CHECK (max_pulls > 0),
    tag          text,
    request_hash bytea    NOT NULL, -- tells a repeated write from another one under the same path
    hash         bytea    NOT NULL, -- leaf of page trees
    state        smallint NOT NULL DEFAULT 0, -- 0 live, 1 deleted by the sender, 2 used up and freed
    envelope     bytea,
    CHECK ((state = 0) = (envelope IS NOT NULL))
) WITH (toast_tuple_target = 8160); -- a sealed "hi" stays in the row: no second table to read and write

-- Ciphertext does not compress; trying costs a write more than the rest of it.
ALTER TABLE records ALTER COLUMN envelope SET STORAGE EXTERNAL;

-- A path is written once: this is what makes a write idempotent.
CREATE UNIQUE INDEX records_path ON records (sender, receiver, id);
-- Pulls and listens: the records of each named sender, in cursor order. Without the tombstones, which
-- stay until they expire: a reader for whom thousands were deleted would walk them in every poll.
CREATE INDEX records_inbox ON records (receiver, sender, n) WHERE state = 0;
-- A sender lists all of his outboxes in cursor order.
CREATE INDEX records_outbox ON records (sender, n) WHERE state = 0;
-- The sweeper finds what has ended.
CREATE INDEX records_expires ON records (expires);

-- Pulls left of records that were pulled at least once. Apart from records, so that a pull does not
-- rewrite the envelope; the check is what keeps maxPulls exact.
CREATE TABLE pulls (
    n         bigint  PRIMARY KEY,
    remaining integer NOT NULL CHECK (remaining >= 0),
    last      bigint  NOT NULL -- this relay's clock at the last pull
) WITH (fillfactor = 80);
-- The sweeper finds what is used up.
CREATE INDEX pulls_spent ON pulls (last) WHERE remaining = 0;

-- Pages served, with the evidence that a bill rests on. Names of records are kept here because the
-- records themselves may be gone before the page is acknowledged.
CREATE TABLE pages (
    reader  bytea    NOT NULL CHECK (octet_length(reader) = 32),
    page_id text     COLLATE "C" NOT NULL,
    made    bigint   NOT NULL,
    ns      bigint[] NOT NULL,
    senders bytea    NOT NULL, -- 32 bytes a record
    ids     text[]   NOT NULL,
    sizes   integer[] NOT NULL,
    hashes  bytea    NOT NULL, -- 32 bytes a record, the leaves of root
    root    bytea    NOT NULL,
    after_n bigint   NOT NULL, -- the cursor the page's header gives
    more    boolean  NOT NULL,
    served  smallint NOT NULL CHECK (served BETWEEN 1 AND 3),
    got     bytea,             -- the reader's signed acknowledgement, as it came
    got_at  bigint,
    PRIMARY KEY (reader, page_id)
);
-- One page may be open for each reader: the next waits for its acknowledgement.
CREATE UNIQUE INDEX pages_open ON pages (reader) WHERE got IS NULL;
-- The sweeper finds pages acknowledged long ago, and those that never were.
CREATE INDEX pages_got ON pages (got_at) WHERE got IS NOT NULL;
CREATE INDEX pages_abandoned ON pages (made) WHERE got IS NULL;

-- Identity cards of account holders, newest only.
CREATE TABLE cards (
    owner    bytea PRIMARY KEY REFERENCES accounts (key),
    envelope bytea NOT NULL
);

-- +goose Down
DROP TABLE cards, pages, pulls, records, admissions, accounts, relay_cursor;
