-- +goose Up

-- Msat of this contract's own bill that the contract in force carries since it took the account over. As records of this one
-- end with less used than they had reserved, its bill falls below that, and the difference is taken off what is carried. Null: none of
-- it is carried, or what carried it is final.
ALTER TABLE contracts ADD COLUMN counted bigint;
-- What a payer's contract in force carries.
CREATE INDEX contracts_counted ON contracts (payer) WHERE counted IS NOT NULL;

-- +goose Down
ALTER TABLE contracts DROP COLUMN counted;
