package relaydoctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/bytesize"
	"relaymarket/internal/findings"
	"relaymarket/internal/relaybackup"
	"relaymarket/internal/relaycare"
	"relaymarket/protocol"
)

const (
	slowAnswer   = 100 * time.Millisecond
	longOpen     = time.Hour
	oldestXID    = 1_200_000_000 // of two thousand million, where Postgres stops writing
	sweepFine    = 15 * time.Minute
	sweepLate    = time.Hour
	shortFuture  = 2 * 24 * time.Hour
	soonFull     = 14 * 24 * time.Hour
	backupFine   = 7 * 24 * time.Hour
	backupWanted = 26 * time.Hour // with contracts: once a day, and some
	careSince    = 14             // the schema that keeps sizes and backups
)

// database looks at Postgres and at what the relay keeps in it.
func (d *doctor) database(ctx context.Context) findings.List {
	if d.cfg.Database.URL == "" {
		return nil
	}
	conn, err := pgx.Connect(ctx, d.cfg.Database.URL)
	if err != nil {
		return findings.List{fail("database", "it does not answer: "+err.Error(), "see that Postgres runs and that database-url is right")}
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	all := findings.List{d.clock(ctx, conn)}
	schema, f := d.schema(ctx, conn)
	all = append(all, f...)
	if schema == 0 {
		return all
	}
	for _, check := range []func(context.Context, *pgx.Conn) (findings.List, error){d.settings, d.vacuum, d.sweep,
		func(ctx context.Context, conn *pgx.Conn) (findings.List, error) { return d.disk(ctx, conn, schema) },
		func(ctx context.Context, conn *pgx.Conn) (findings.List, error) { return d.backup(ctx, conn, schema) }} {
		found, err := check(ctx, conn)
		if err != nil {
			found = append(found, fail("database", "it does not say what is asked: "+err.Error(), "see its log"))
		}
		all = append(all, found...)
	}
	return all
}

// clock compares with the database's, which may be another machine's.
func (d *doctor) clock(ctx context.Context, conn *pgx.Conn) findings.Finding {
	before := d.cfg.Clock()
	var theirs time.Time
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&theirs); err != nil {
		return fail("clock", "the database does not tell its time: "+err.Error(), "see its log")
	}
	after := d.cfg.Clock()
	return clockOff("clock", "the database", theirs.Sub(before.Add(after.Sub(before)/2)))
}

// clockOff judges how far another clock is ahead of this one.
func clockOff(name, whose string, ahead time.Duration) findings.Finding {
	const do = "have both machines keep time by NTP (systemd-timesyncd, chrony); requests that are more than 300 s off are refused"
	text := fmt.Sprintf("%s says it is %s later than this machine does", whose, span(ahead))
	if ahead < 0 {
		text = fmt.Sprintf("%s says it is %s earlier than this machine does", whose, span(ahead))
	}
	switch off := ahead.Abs(); {
	case off > protocol.FreshnessWindow:
		return fail(name, text, do)
	case off > 10*time.Second:
		return warn(name, text, do)
	}
	return findings.Okf(name, "%s has the same time, to %s", whose, span(ahead))
}

// answers is how far away the database is: the shortest of a few questions. A connection, or one question, may take long on a
// machine that has much to do.
func answers(ctx context.Context, conn *pgx.Conn) (shortest time.Duration, err error) {
	for i := range 5 {
		began := time.Now()
		if err := conn.Ping(ctx); err != nil {
			return 0, err
		}
		if took := time.Since(began); i == 0 || took < shortest {
			shortest = took
		}
		if shortest <= slowAnswer {
			break
		}
	}
	return shortest, nil
}

func (d *doctor) schema(ctx context.Context, conn *pgx.Conn) (int64, findings.List) {
	var number, version int64
	var name string
	var there bool
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::bigint, current_setting('server_version'), to_regclass('goose_db_version') IS NOT NULL`).Scan(&number, &name, &there)
	if err == nil && there {
		err = conn.QueryRow(ctx, `SELECT coalesce(max(version_id) FILTER (WHERE is_applied), 0) FROM goose_db_version`).Scan(&version)
	}
	name, _, _ = strings.Cut(name, " ")
	var took time.Duration
	if err == nil {
		took, err = answers(ctx, conn)
	}
	switch {
	case err != nil:
		return 0, findings.List{fail("database", "it does not say what it is: "+err.Error(), "see that database-url is a relay's database")}
	case number < 150_000:
		return 0, findings.List{fail("database", "it is PostgreSQL "+name, "use PostgreSQL 15 or newer")}
	case version == 0:
		return 0, findings.List{warn("database", "PostgreSQL "+name+" answers, and has no relay's tables yet", "relayd serve makes them; or see that database-url is right")}
	case version > d.cfg.Database.Newest:
		return 0, findings.List{fail("database", fmt.Sprintf("its schema is %d, and this relayd knows up to %d", version, d.cfg.Database.Newest), "run the newer relayd that last used it")}
	case version < d.cfg.Database.Newest:
		return version, findings.List{warn("database", fmt.Sprintf("PostgreSQL %s; its schema is %d, and this relayd's %d", name, version, d.cfg.Database.Newest), "relayd serve of this version brings it up to date; make a backup before")}
	case took > slowAnswer:
		return version, findings.List{warn("database", fmt.Sprintf("PostgreSQL %s takes %s for an answer", name, span(took)), "a database far away makes every write wait: put it into the same network")}
	}
	return version, findings.List{findings.Okf("database", "PostgreSQL %s answers in %s, schema %d", name, span(took), version)}
}

// settings looks at those that a promise of the relay hangs on, and at connections.
func (d *doctor) settings(ctx context.Context, conn *pgx.Conn) (all findings.List, err error) {
	var fsync, pages, vacuum, sums string
	var most, used int64
	err = conn.QueryRow(ctx, `SELECT current_setting('fsync'), current_setting('full_page_writes'), current_setting('autovacuum'), current_setting('data_checksums'),
		current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
		(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'relayd')`).Scan(&fsync, &pages, &vacuum, &sums, &most, &used)
	if err != nil {
		return nil, err
	}
	for _, s := range []struct{ name, value, text string }{
		{"fsync", fsync, "acknowledged messages are lost in a power cut"}, {"full_page_writes", pages, "the database may be unreadable after a power cut"},
		{"autovacuum", vacuum, "what expires never makes room"},
	} {
		if s.value != "on" {
			all = append(all, fail("settings", s.name+" is "+s.value+": "+s.text, "ALTER SYSTEM SET "+s.name+" = on; SELECT pg_reload_conf();"))
		}
	}
	if most-used < d.cfg.Database.Connections {
		all = append(all, warn("settings", fmt.Sprintf("others have %d of %d connections, and the relay may want %d", used, most, d.cfg.Database.Connections), "raise max_connections, or lower database-connections"))
	}
	if len(all) > 0 {
		return all, nil
	}
	text := "fsync, full_page_writes and autovacuum are on"
	if sums != "on" {
		text += "; without data checksums a rotten disk shows late"
	}
	return findings.List{findings.Okf("settings", "%s", text)}, nil
}

// vacuum looks at what keeps rows from being freed.
func (d *doctor) vacuum(ctx context.Context, conn *pgx.Conn) (findings.List, error) {
	var age, open int64
	var pid *int64
	err := conn.QueryRow(ctx, `SELECT (SELECT age(datfrozenxid)::bigint FROM pg_database WHERE datname = current_database()),
		coalesce(extract(epoch FROM clock_timestamp() - min(xact_start))::bigint, 0), (array_agg(pid ORDER BY xact_start))[1]::bigint
		FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'`).Scan(&age, &open, &pid)
	if err != nil {
		return nil, err
	}
	var live, dead int64
	err = conn.QueryRow(ctx, `SELECT coalesce(sum(n_live_tup), 0)::bigint, coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables WHERE relname IN ('records', 'pulls', 'pages')`).Scan(&live, &dead)
	switch opened := time.Duration(open) * time.Second; {
	case err != nil:
		return nil, err
	case age > oldestXID:
		return findings.List{fail("vacuum", fmt.Sprintf("the oldest transaction id is %d million old: at 2,100 Postgres takes no more writes", age/1_000_000), "end what is open for long (below), then: VACUUM (FREEZE)")}, nil
	case opened > longOpen:
		return findings.List{warn("vacuum", fmt.Sprintf("a transaction is open for %s: nothing is freed meanwhile", span(opened)), fmt.Sprintf("see what it is in pg_stat_activity, and if it is nothing: SELECT pg_terminate_backend(%d)", *pid))}, nil
	case dead > 1_000_000 && dead > live/2:
		return findings.List{warn("vacuum", fmt.Sprintf("%d rows are dead and %d alive: vacuum does not keep up", dead, live), "leave the schema's autovacuum settings as they are; VACUUM records, pulls, pages")}, nil
	}
	return findings.List{findings.Okf("vacuum", "%d rows are dead, %d alive", dead, live)}, nil
}

// sweep looks how late the removal of what has expired is. A record's bytes are freed an hour after it expired.
func (d *doctor) sweep(ctx context.Context, conn *pgx.Conn) (findings.List, error) {
	if !d.running {
		return nil, nil // nobody sweeps
	}
	var oldest *int64
	if err := conn.QueryRow(ctx, `SELECT min(expires) FROM records`).Scan(&oldest); err != nil || oldest == nil {
		return nil, err
	}
	late := d.now.Sub(protocol.Timestamp(*oldest).Time()) - time.Hour
	const do = "its log says why; a disk that is full or a database that is slow keeps it from it"
	switch {
	case late > sweepLate:
		return findings.List{fail("sweep", "what has expired is removed "+span(late)+" too late", do)}, nil
	case late > sweepFine:
		return findings.List{warn("sweep", "what has expired is removed "+span(late)+" too late", do)}, nil
	}
	return findings.List{findings.Okf("sweep", "what has expired is removed in time")}, nil
}

// disk foretells when there is no room any more.
func (d *doctor) disk(ctx context.Context, conn *pgx.Conn, schema int64) (findings.List, error) {
	now := relaycare.Size{At: d.now}
	if err := conn.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&now.Bytes); err != nil {
		return nil, err
	}
	var sizes []relaycare.Size
	if schema >= careSince {
		var err error
		if sizes, err = relaycare.Sizes(ctx, conn, d.now.Add(-25*time.Hour)); err != nil {
			return nil, err
		}
	}
	if !d.cfg.Database.Private {
		text := fmt.Sprintf("the database has %s", bytesize.Text(now.Bytes))
		if r, ok := relaycare.RateOver(sizes, 24*time.Hour, now); ok && r.PerDay > 0 {
			text += fmt.Sprintf(" and grows by %s a day", bytesize.Text(r.PerDay))
		}
		return findings.List{findings.Okf("disk", "%s; what is free on its disk is not seen from here", text)}, nil
	}
	free, err := relaybackup.Free(d.cfg.Database.Folder)
	if err != nil {
		return nil, err
	}
	now.Free = &free
	return findings.List{d.forecast(now, sizes)}, nil
}

func (d *doctor) forecast(now relaycare.Size, sizes []relaycare.Size) findings.Finding {
	room := *now.Free - d.cfg.Database.Keep
	text := fmt.Sprintf("%s are free where the database of %s is", bytesize.Text(*now.Free), bytesize.Text(now.Bytes))
	const do = "make room, enlarge the disk, or shorten grants and lifetime; records that expire make room for new ones"
	if room <= 0 {
		return fail("disk", text+": new records are refused, because disk-free is "+bytesize.Text(d.cfg.Database.Keep), do)
	}
	soonest := time.Duration(0)
	known := false
	for _, over := range []time.Duration{24 * time.Hour, time.Hour} {
		r, ok := relaycare.RateOver(sizes, over, now)
		if !ok {
			continue
		}
		if !known {
			known = true
			text += fmt.Sprintf("; %s a day go", bytesize.Text(max(r.PerDay, 0)))
		}
		if left, ends := r.Until(room); ends && (soonest == 0 || left < soonest) {
			soonest = max(left, time.Second)
			if over == time.Hour {
				text += fmt.Sprintf(", %s a day at the rate of the last hour", bytesize.Text(r.PerDay))
			}
		}
	}
	switch {
	case soonest > 0 && soonest < shortFuture:
		return fail("disk", text+": full in "+span(soonest), do)
	case soonest > 0 && soonest < soonFull:
		return warn("disk", text+": full in "+span(soonest), do)
	case soonest > 0:
		return findings.Okf("disk", "%s: full in %s", text, span(soonest))
	case !known:
		return findings.Okf("disk", "%s; how fast they go is known when the relay has run for half an hour", text)
	}
	return findings.Okf("disk", "%s: that lasts", text)
}

// backup looks how old the last one is.
func (d *doctor) backup(ctx context.Context, conn *pgx.Conn, schema int64) (findings.List, error) {
	if schema < careSince {
		return nil, nil
	}
	var contracts int64
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM contracts WHERE look_at IS NOT NULL`).Scan(&contracts); err != nil {
		return nil, err
	}
	last, err := relaybackup.LastNoted(ctx, conn)
	if err != nil {
		return nil, err
	}
	return findings.List{d.judgeBackup(last, contracts)}, nil
}

func (d *doctor) judgeBackup(last *relaybackup.Noted, contracts int64) findings.Finding {
	const do = "relayd backup /another/disk, every day by a timer; keep some of them on another machine"
	if last == nil {
		if contracts > 0 {
			return fail("backup", fmt.Sprintf("there is none by relayd backup, and %d contracts are open: with the disk their money would be lost", contracts), do)
		}
		return warn("backup", "there is none by relayd backup", do)
	}
	age := d.now.Sub(last.Taken.Time())
	text := fmt.Sprintf("the last one is %s old, %s", span(age), bytesize.Text(last.Bytes))
	switch {
	case contracts > 0 && age > backupWanted:
		return warn("backup", fmt.Sprintf("%s, and %d contracts are open: what their users paid since is in the database alone", text, contracts), do)
	case age > backupFine:
		return warn("backup", text, do)
	case !last.Rehearsed:
		return warn("backup", text+", and nobody tried whether it can be restored", "leave --no-rehearsal out")
	}
	return findings.Okf("backup", "%s, and was restored to see that it can be", text)
}
