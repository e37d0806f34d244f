-- +goose Up

-- What this relay announces in the market, signed and proved. All relayd on one database announce the same, one of them
-- does the work, and a restart with the same settings does none.
CREATE TABLE market_announcement (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq      bigint  NOT NULL CHECK (seq >= 0), -- only ever rises: hubs drop what is lower
    envelope bytea   NOT NULL CHECK (octet_length(envelope) <= 4096)
);
