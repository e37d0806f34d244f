-- +goose Up

-- The last backup that was made of this database and got its name, for doctor and metrics. It stands here and not in a folder, because all relayd on
-- the database ask.
CREATE TABLE relay_backup (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    taken     bigint  NOT NULL, -- of its snapshot
    bytes     bigint  NOT NULL CHECK (bytes >= 0),
    rehearsed boolean NOT NULL  -- it was restored to see whether that works
);

-- How large the database and how full its disk were, every ten minutes of the last eight days: how fast they fill is a difference. Of several relayd on
-- the database each writes the row of a time, and the first has it.
CREATE TABLE relay_sizes (
    at    bigint PRIMARY KEY, -- ms, a whole number of ten minutes
    bytes bigint NOT NULL,    -- of the database
    free  bigint              -- on its disk; null: of a database elsewhere nobody knows
);

-- +goose Down
DROP TABLE relay_sizes, relay_backup;
