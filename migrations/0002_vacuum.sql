-- +goose Up

-- Rows come and go at the rate of writes. Vacuum has to come often enough that what is dead stays a
-- twentieth of the table, and to get through it before as much has died again: Postgres' own defaults let a fifth
-- die, and then clean up more slowly than a busy relay expires. The limit lets it dirty 50,000 pages
-- a second, which is more than 30,000 records a second that expire all over the table.
ALTER TABLE records SET (
    autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 2, autovacuum_vacuum_cost_limit = 2000,
    autovacuum_analyze_scale_factor = 0.2, -- plans do not depend on it
    toast.autovacuum_vacuum_scale_factor = 0.05,
    toast.autovacuum_vacuum_cost_delay = 2, toast.autovacuum_vacuum_cost_limit = 2000
);
ALTER TABLE pulls SET (
    autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 2, autovacuum_vacuum_cost_limit = 2000,
    autovacuum_analyze_scale_factor = 0.2
);
ALTER TABLE pages SET (
    autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 2, autovacuum_vacuum_cost_limit = 2000,
    autovacuum_analyze_scale_factor = 0.2,
    toast.autovacuum_vacuum_scale_factor = 0.05,
    toast.autovacuum_vacuum_cost_delay = 2, toast.autovacuum_vacuum_cost_limit = 2000
);

-- +goose Down
ALTER TABLE records RESET (
    autovacuum_vacuum_threshold, autovacuum_vacuum_scale_factor,
    autovacuum_vacuum_insert_threshold, autovacuum_vacuum_insert_scale_factor,
    autovacuum_vacuum_cost_delay, autovacuum_vacuum_cost_limit, autovacuum_analyze_scale_factor,
    toast.autovacuum_vacuum_scale_factor, toast.autovacuum_vacuum_cost_delay, toast.autovacuum_vacuum_cost_limit
);
ALTER TABLE pulls RESET (
    autovacuum_vacuum_threshold, autovacuum_vacuum_scale_factor,
    autovacuum_vacuum_insert_threshold, autovacuum_vacuum_insert_scale_factor,
    autovacuum_vacuum_cost_delay, autovacuum_vacuum_cost_limit, autovacuum_analyze_scale_factor
);
ALTER TABLE pages RESET (
    autovacuum_vacuum_threshold, autovacuum_vacuum_scale_factor,
    autovacuum_vacuum_insert_threshold, autovacuum_vacuum_insert_scale_factor,
    autovacuum_vacuum_cost_delay, autovacuum_vacuum_cost_limit, autovacuum_analyze_scale_factor,
    toast.autovacuum_vacuum_scale_factor, toast.autovacuum_vacuum_cost_delay, toast.autovacuum_vacuum_cost_limit
);
