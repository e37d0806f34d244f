// Package migrations is the relay's database schema, as numbered steps that are embedded in the
// program and applied at start. Each step is a transaction of its own; a session lock lets several
// relayd start at once on one database.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"fmt"

	_ "github.com/jackc/pgx/v5/stdlib" // the database/sql driver that goose runs on
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed *.sql
var steps embed.FS

// Up brings the database at url to the newest schema. A database newer than this program is an
// error: an older relayd must not write to a schema it does not know.
func Up(ctx context.Context, url string) error {
	conn, err := sql.Open("pgx", url)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer conn.Close()
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("migration lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, conn, steps,
		goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current > target {
		return fmt.Errorf("the database has schema %d, this relayd knows up to %d: run the newer relayd that last used it", current, target)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	return nil
}

// Newest is the schema that [Up] brings a database to.
func Newest() (int64, error) {
	entries, err := steps.ReadDir(".")
	if err != nil {
		return 0, err
	}
	var newest int64
	for _, entry := range entries {
		number, err := goose.NumericComponent(entry.Name())
		if err != nil {
			return 0, err
		}
		newest = max(newest, number)
	}
	return newest, nil
}
