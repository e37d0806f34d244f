package relaybackup

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/localpg"
	"relaymarket/internal/testpg"
	"relaymarket/migrations"
	"relaymarket/protocol"
)

// BenchmarkBackup is a backup and its restore, of 20,000 records of 1.3 kB or as many as RELAYBACKUP_ROWS says:
//
//	RELAYBACKUP_ROWS=1000000 go test ./internal/relaybackup -run '^$' -bench Backup -benchtime 1x
func BenchmarkBackup(b *testing.B) {
	rows := 20_000
	if text := os.Getenv("RELAYBACKUP_ROWS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		rows = n
	}
	url := testpg.New(b)
	relay := fill(b, url, rows)
	for b.Loop() {
		to := filepath.Join(b.TempDir(), "backup")
		began := time.Now()
		d, err := Take(b.Context(), Config{Database: url, Relay: relay, To: to, Clock: time.Now})
		if err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		b.ReportMetric(float64(rows)/took.Seconds(), "rows/s-backup")
		b.ReportMetric(float64(d.Manifest.Dump().Bytes)/float64(d.Manifest.Database.Bytes), "of-database")
		b.ReportMetric(float64(d.Manifest.Dump().Bytes)/float64(rows), "B/row")
		cfg := testpg.Config(b)
		began = time.Now()
		life, err := RestorePrivate(b.Context(), d.Folder, d.Manifest, localpg.Config{Dir: cfg.Dir}, nil, time.Now())
		if err != nil || life.Proof.Records != int64(rows) {
			b.Fatal(life, err)
		}
		b.ReportMetric(float64(rows)/time.Since(began).Seconds(), "rows/s-restore")
		if err := d.Drop(); err != nil {
			b.Fatal(err)
		}
	}
}

// fill writes signed records of 1.3 kB.
func fill(b *testing.B, url string, rows int) protocol.PublicKey {
	b.Helper()
	if err := migrations.Up(b.Context(), url); err != nil {
		b.Fatal(err)
	}
	conn, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	sender, err := protocol.GeneratePrivateKey()
	if err != nil {
		b.Fatal(err)
	}
	key, now, size := sender.Public(), protocol.TimestampOf(time.Now()), int64(0)
	content := make([]byte, 640)
	_, err = conn.CopyFrom(b.Context(), pgx.Identifier{"records"}, []string{"n", "sender", "receiver", "id", "account", "bytes", "timestamp", "expires", "written", "max_pulls", "request_hash", "hash", "envelope"},
		pgx.CopyFromSlice(rows, func(i int) ([]any, error) {
			_, _ = rand.Read(content)
			id := protocol.RecordID(fmt.Sprintf("record-%d", i))
			e, err := protocol.Sign(sender, key, now, &protocol.Write{Relay: key, RecordID: id, Expires: now.Add(time.Hour), MaxPulls: 8, Content: base64.StdEncoding.EncodeToString(content)})
			if err != nil {
				return nil, err
			}
			hash := e.Hash()
			size += e.Size()
			return []any{int64(i + 1), key[:], key[:], string(id), key[:], int32(e.Size()), int64(now), int64(now.Add(time.Hour)), int64(now), int32(8), hash[:], hash[:], e.Bytes()}, nil
		}))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Exec(b.Context(), `INSERT INTO accounts (key, kind, quota_stored, quota_moved, last_day, stored) VALUES ($1, 'grant', 1, 1, '2999-01-01', $2)`, key[:], size); err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Exec(b.Context(), `UPDATE relay_cursor SET n = $1`, rows); err != nil {
		b.Fatal(err)
	}
	return key
}
