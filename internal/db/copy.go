package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// maxJoined is the most data that is sent in one write with its statement. More is not copied again.
const maxJoined = 256 << 10

// CopySQL is a COPY of rows in binary format into these columns.
func CopySQL(table string, columns ...string) string {
	var b bytes.Buffer
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c)
	}
	return fmt.Sprintf("COPY %s (%s) FROM STDIN (FORMAT binary)", table, b.String())
}

// Copy runs a COPY with its data (see [Encoder]) in a transaction and returns how many rows it took.
func Copy(ctx context.Context, tx pgx.Tx, sql string, data []byte) (rows int64, err error) {
	tags, err := CopyIn(ctx, tx.Conn().PgConn(), sql, data)
	if err != nil {
		return 0, err
	}
	return tags[0].RowsAffected(), nil
}

// CopyIn sends a COPY, with other statements after it if need be, and its data, without waiting to be
// asked for them: the server ignores data of a COPY that failed (PostgreSQL documentation, Frontend/Backend
// Protocol, "COPY Operations"). So it is one round trip, and takes none of the goroutines of
// [pgconn.PgConn.CopyFrom]. Of ctx only the deadline counts; when it passes the connection is closed.
func CopyIn(ctx context.Context, conn *pgconn.PgConn, sql string, data []byte) (tags []pgconn.CommandTag, err error) {
	deadline, _ := ctx.Deadline()
	if err := conn.Conn().SetDeadline(deadline); err != nil {
		return nil, err
	}
	if err := sendCopy(conn.Frontend(), sql, data); err != nil {
		return nil, abandon(conn, err)
	}
	for {
		message, receiveErr := conn.ReceiveMessage(context.Background())
		if receiveErr != nil {
			return nil, abandon(conn, receiveErr)
		}
		switch m := message.(type) {
		case *pgproto3.CommandComplete:
			tags = append(tags, pgconn.NewCommandTag(string(m.CommandTag)))
		case *pgproto3.ErrorResponse:
			err = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			if err == nil && len(tags) == 0 {
				err = errors.New("COPY was not answered")
			}
			return tags, errors.Join(err, conn.Conn().SetDeadline(time.Time{}))
		}
	}
}

func sendCopy(f *pgproto3.Frontend, sql string, data []byte) error {
	f.SendQuery(&pgproto3.Query{String: sql})
	if len(data) <= maxJoined {
		f.Send(&pgproto3.CopyData{Data: data})
	} else {
		head := [5]byte{'d'}
		putUint32(head[1:], len(data)+4)
		if err := f.SendUnbufferedEncodedCopyData(head[:]); err != nil {
			return err
		}
		if err := f.SendUnbufferedEncodedCopyData(data); err != nil {
			return err
		}
	}
	f.Send(&pgproto3.CopyDone{})
	return f.Flush()
}

// abandon closes a connection on which it is unknown what comes next.
func abandon(conn *pgconn.PgConn, err error) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // there is nobody to say goodbye to
	_ = conn.Close(ctx)
	return err
}
