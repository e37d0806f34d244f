-- +goose Up

-- Who follows the chain and settles. One of the processes on this database does, as long as it renews its lease; each of
-- its transactions locks this row and looks whether the lease is still its own, so one that was away too long undoes nothing.
CREATE TABLE contract_work (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder       bytea,                     -- drawn by a process when it starts
    until        bigint NOT NULL DEFAULT 0  -- ms; anybody may take it afterwards
) WITH (fillfactor = 10); -- one hot row
INSERT INTO contract_work DEFAULT VALUES;

-- The script of the wallet that the next contract pays the relay to: the same for all who ask, until one has signed. Apart from the
-- lease, which is locked before contracts, and this after them.
CREATE TABLE contract_payout (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    script   bytea   NOT NULL,
    used     boolean NOT NULL -- time for another
);

-- The newest blocks of the chain that contracts were brought up to, without gaps. A reorganization is followed back
-- as far as they go.
CREATE TABLE contract_blocks (
    height integer PRIMARY KEY CHECK (height >= 0),
    hash   bytea   NOT NULL CHECK (octet_length(hash) = 32) -- internal byte order
);

-- Announcements of this relay that are still valid: a contract may be opened on any of them.
CREATE TABLE contract_announcements (
    hash        bytea  PRIMARY KEY CHECK (octet_length(hash) = 32), -- of the envelope
    offer       json   NOT NULL, -- protocol.ContractOffer: what it said of contracts
    valid_until bigint NOT NULL
);
-- The sweeper finds what is over.
CREATE INDEX contract_announcements_valid ON contract_announcements (valid_until);

-- Contracts that were asked for and not signed by the user. They hold nothing: a coin may be offered to many of them, and is the
-- first's who signs. How many there are is bounded, by payer, by coin and in all.
CREATE TABLE contract_openings (
    id             bytea  PRIMARY KEY CHECK (octet_length(id) = 32),
    payer          bytea  NOT NULL CHECK (octet_length(payer) = 32),
    input          bytea  NOT NULL CHECK (octet_length(input) = 36), -- the first coin offered: txid, index (big-endian)
    request_hash   bytea  NOT NULL, -- tells a repeated request from another one under the same id
    request        bytea  NOT NULL, -- the envelope, with the consent of the writers
    terms          json   NOT NULL, -- escrow.Contract
    psbt           text   NOT NULL, -- the whole unsigned funding
    renews_amount  bigint,          -- A that the funding takes from the contract it renews
    relay_coin     bytea,           -- offered for the bond; null: no bond
    made           bigint NOT NULL,
    reserved_until bigint NOT NULL
);
-- The bounds by payer and by coin are counted with these.
CREATE INDEX contract_openings_payer ON contract_openings (payer);
CREATE INDEX contract_openings_input ON contract_openings (input);
-- How often a coin of the relay is offered.
CREATE INDEX contract_openings_coin ON contract_openings (relay_coin) WHERE relay_coin IS NOT NULL;
-- The sweeper finds what is over.
CREATE INDEX contract_openings_until ON contract_openings (reserved_until);

-- Contracts from the user's signature on.
CREATE TABLE contracts (
    id           bytea   PRIMARY KEY CHECK (octet_length(id) = 32),
    payer        bytea   NOT NULL CHECK (octet_length(payer) = 32),
    state        text    NOT NULL,
    terms        json    NOT NULL, -- escrow.Contract, which never changes
    expiry       integer NOT NULL CHECK (expiry > 0),
    opened       bigint  NOT NULL,
    request_hash bytea   NOT NULL, -- of contractOpen: the same again has the same answer
    request      bytea   NOT NULL, -- its envelope, with the consent of the writers
    offer        json    NOT NULL, -- the answer to it
    signed_hash  bytea   NOT NULL, -- of contractClientSigned
    psbt         text    NOT NULL, -- the funding with the user's witnesses
    funding      bytea   NOT NULL CHECK (octet_length(funding) = 32), -- txid, internal byte order

    -- The highest state, the user's signature of it: durable before credit is given on it.
    seq       bigint NOT NULL CHECK (seq >= 0),
    amount    bigint NOT NULL CHECK (amount >= 0),
    signature bytea  NOT NULL,

    -- The closing signature that the relay released, if it did; from then on there is no credit.
    closing_amount bigint,
    closing_fee    bigint,
    closing_sig    bytea,
    closing_since  integer, -- height

    renews        bytea,
    renewed_by    bytea,
    renews_amount bigint, -- A that the funding takes from the contract it renews
    carried       bigint NOT NULL DEFAULT 0, -- msat that were owed under the contracts before this
    final_owed    bigint, -- msat of usage when it stopped; null: the account tells
    settle        boolean NOT NULL DEFAULT false, -- a settlement is wanted, whatever the height
    look_at       integer -- height at which there is something to do next; null: never again
);
-- One payer has one contract that takes usage; a renewal is beside it until it takes over.
CREATE INDEX contracts_payer ON contracts (payer, opened);
-- What is due at a height.
CREATE INDEX contracts_look_at ON contracts (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX contracts_renews ON contracts (renews) WHERE renews IS NOT NULL;

-- The latest payments of each contract: a repeated one has the same answer.
CREATE TABLE contract_payments (
    contract     bytea  NOT NULL REFERENCES contracts (id),
    seq          bigint NOT NULL CHECK (seq > 0),
    amount       bigint NOT NULL,
    request_hash bytea  NOT NULL,
    usage        bigint, -- msat that the user says it pays for
    received     bigint NOT NULL,
    PRIMARY KEY (contract, seq)
);

-- The relay's coins, as its wallet tells them. With a contract, the coin is in its funding and nobody else's.
CREATE TABLE contract_coins (
    outpoint bytea  PRIMARY KEY CHECK (octet_length(outpoint) = 36),
    value    bigint NOT NULL CHECK (value > 0),
    script   bytea  NOT NULL,
    contract bytea  REFERENCES contracts (id)
);
CREATE INDEX contract_coins_contract ON contract_coins (contract) WHERE contract IS NOT NULL;

-- Outpoints whose spending matters: of each contract its escrow and the inputs of its funding.
CREATE TABLE contract_watches (
    outpoint bytea   NOT NULL CHECK (octet_length(outpoint) = 36),
    contract bytea   NOT NULL REFERENCES contracts (id),
    escrow   boolean NOT NULL,
    PRIMARY KEY (outpoint, contract)
);
CREATE INDEX contract_watches_contract ON contract_watches (contract);

-- What spent them, in blocks of the best chain.
CREATE TABLE contract_spends (
    outpoint bytea   NOT NULL,
    contract bytea   NOT NULL REFERENCES contracts (id),
    txid     bytea   NOT NULL,
    tx       bytea   NOT NULL,
    height   integer NOT NULL,
    PRIMARY KEY (outpoint, contract)
);
CREATE INDEX contract_spends_contract ON contract_spends (contract);
-- A block that is no longer on the best chain takes its spends with it.
CREATE INDEX contract_spends_height ON contract_spends (height);

-- Transactions of the relay's making, each stored before it is sent, and sent again until one of them is in a block.
CREATE TABLE contract_transactions (
    txid     bytea   PRIMARY KEY CHECK (octet_length(txid) = 32),
    contract bytea   NOT NULL REFERENCES contracts (id),
    kind     text    NOT NULL,
    tx       bytea   NOT NULL,
    fee      bigint  NOT NULL, -- sat
    feerate  bigint  NOT NULL, -- sat per 1000 vB
    made     bigint  NOT NULL,
    bid_at   integer NOT NULL, -- height
    wanted   boolean NOT NULL, -- to be sent until it is in a block
    sent     bigint  NOT NULL DEFAULT 0, -- ms of the last attempt
    told     text    NOT NULL DEFAULT '', -- why the node did not take it
    height   integer -- in this block of the best chain
);
CREATE INDEX contract_transactions_contract ON contract_transactions (contract);
CREATE INDEX contract_transactions_wanted ON contract_transactions (sent) WHERE wanted AND height IS NULL;
CREATE INDEX contract_transactions_height ON contract_transactions (height) WHERE height IS NOT NULL;

-- +goose Down
DROP TABLE contract_transactions, contract_spends, contract_watches, contract_coins, contract_payments, contracts,
    contract_openings, contract_announcements, contract_blocks, contract_payout, contract_work;
