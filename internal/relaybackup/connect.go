package relaybackup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"relaymarket/internal/localpg"
)

// connectPatience bounds how long a database may take to answer.
const connectPatience = 15 * time.Second

// connect opens a connection that may stay in a transaction for as long as it takes.
func connect(ctx context.Context, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(withoutPool(database))
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	cfg.ConnectTimeout = connectPatience
	cfg.RuntimeParams["application_name"] = "relayd backup"
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	cfg.RuntimeParams["statement_timeout"] = "0"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("the database does not answer; see that Postgres runs and that database-url is right: %w", err)
	}
	return conn, nil
}

// serverVersion is what a server says of itself.
func serverVersion(ctx context.Context, conn *pgx.Conn) (major int, version string, err error) {
	var number int
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::integer, current_setting('server_version')`).Scan(&number, &version)
	version, _, _ = strings.Cut(version, " ")
	return number / 10_000, version, err
}

// keyValue finds one setting in libpq's other form of a URL, host=… port=…
var keyValue = regexp.MustCompile(`(?:^|\s)(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S*)`)

// poolOnly tells whether a parameter means something to pgx and nothing to libpq.
func poolOnly(name string) bool {
	return strings.HasPrefix(name, "pool_") || slices.Contains([]string{"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity", "min_protocol_version", "max_protocol_version"}, name)
}

// strip takes parameters out of a database URL.
func strip(database string, drop func(name string) bool) string {
	u, err := url.Parse(database)
	if err != nil || u.Scheme == "" {
		return strings.TrimSpace(keyValue.ReplaceAllStringFunc(database, func(pair string) string {
			if drop(keyValue.FindStringSubmatch(pair)[1]) {
				return ""
			}
			return pair
		}))
	}
	query := u.Query()
	for name := range query {
		if drop(name) {
			query.Del(name)
		}
	}
	// libpq takes a plus sign for what it is, not for a space.
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	if u.User != nil && drop("password") {
		u.User = url.User(u.User.Username())
	}
	return u.String()
}

// withoutPool is a URL for one connection.
func withoutPool(database string) string {
	return strip(database, func(name string) bool { return strings.HasPrefix(name, "pool_") })
}

// forTools is a URL that Postgres' own programs take, as an argument, with its secrets apart.
func forTools(database string) (argument string, env []string, err error) {
	cfg, err := pgconn.ParseConfig(withoutPool(database))
	if err != nil {
		return "", nil, fmt.Errorf("database URL: %w", err)
	}
	if cfg.Password != "" {
		env = append(env, "PGPASSWORD="+cfg.Password)
	}
	env = append(env, "PGAPPNAME=relayd backup", "PGCONNECT_TIMEOUT=15")
	return "--dbname=" + strip(database, func(name string) bool { return poolOnly(name) || name == "password" || name == "sslpassword" }), env, nil
}

// run runs one of Postgres' programs; what it complains of is the error.
func run(ctx context.Context, tools localpg.Tools, program, database string, args []string) error {
	argument, env, err := forTools(database)
	if err != nil {
		return err
	}
	cmd := tools.Command(ctx, program, append([]string{argument, "--no-password"}, args...), env)
	said := &tail{}
	cmd.Stderr = said
	err = cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.As(err, &exit) || err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, tools.Version, err, said)
	}
	return nil
}

// tail keeps the first of what a program says on standard error, and no more than is read.
type tail struct{ text bytes.Buffer }

const maxSaid = 2 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	if room := maxSaid - t.text.Len(); room > 0 {
		t.text.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// String is what was said, on one line.
func (t *tail) String() string { return strings.Join(strings.Fields(t.text.String()), " ") }
