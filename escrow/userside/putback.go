package userside

import (
	"context"
	"fmt"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// Version is how many schema steps this program knows: a file of a higher one is from a newer program.
func Version() int {
	entries, err := migrations.ReadDir("migrations")
	if err != nil {
		panic(err) // they are part of the program
	}
	return len(entries)
}

// PutBack makes a file of contracts that came out of a backup fit to be used. Since the backup was made more may have been signed: so each
// contract that may hold money is from now on one that was restored, as from its document, with what was signed before the backup beside
// it. Nothing is signed before its relay has said which state it has, and nothing below that ([Manager.Pay]); and an exchange that was being
// made is not taken for one that came to nothing: its escrow, if there is one, is refunded at T. One without a document is forgotten: had it
// gone on, its document would be elsewhere, and would not be taken in beside it.
func (s *Store) PutBack(ctx context.Context) error {
	return s.do(ctx, func(u *unit) error {
		if err := u.exec(ctx, `DELETE FROM contracts WHERE document IS NULL AND step <> ?`, StepOver); err != nil {
			return err
		}
		records, err := load(ctx, u, `WHERE state <> ? AND step <> ?`, protocol.StateArchived, StepOver)
		if err != nil {
			return err
		}
		for i := range records {
			r := &records[i]
			if r.Step == StepAnswered || r.Step == StepKept {
				r.State = escrow.FundingSent
			}
			r.Step, r.Told, r.Fault = StepRestored, nil, ""
			if err := u.save(ctx, r); err != nil {
				return err
			}
			if err := u.note(ctx, r, "Restored from a backup of the whole folder. What was paid since is asked of the relay before anything is signed."); err != nil {
				return fmt.Errorf("contract %s: %w", r.ID.Short(), err)
			}
		}
		return nil
	})
}
