package wallet

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/btcsuite/btclog"
	btcchain "github.com/btcsuite/btcwallet/chain"
	"github.com/btcsuite/btcwallet/waddrmgr"
	btcwallet "github.com/btcsuite/btcwallet/wallet"
	"github.com/btcsuite/btcwallet/wtxmgr"
)

// useLogger runs once a process: btcwallet keeps its loggers in package variables and reads them unlocked.
var useLogger sync.Once

func logTo(log *slog.Logger) {
	useLogger.Do(func() {
		for part, use := range map[string]func(btclog.Logger){
			"wallet": btcwallet.UseLogger, "addresses": waddrmgr.UseLogger,
			"transactions": wtxmgr.UseLogger, "chain": btcchain.UseLogger,
		} {
			use(quietLog{log.With("btcwallet", part)})
		}
	})
}

// quietLog takes all that btcwallet says down to debug: what an operator has to know is an error of a call, or logged by
// this package.
type quietLog struct{ log *slog.Logger }

var _ btclog.Logger = quietLog{}

func (l quietLog) printf(format string, values []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, values...))
	}
}

func (l quietLog) print(values []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprint(values...))
	}
}

// Traces dump whole transactions and are dropped.
func (l quietLog) Tracef(string, ...any) {}
func (l quietLog) Trace(...any)          {}

func (l quietLog) Debugf(format string, v ...any)    { l.printf(format, v) }
func (l quietLog) Infof(format string, v ...any)     { l.printf(format, v) }
func (l quietLog) Warnf(format string, v ...any)     { l.printf(format, v) }
func (l quietLog) Errorf(format string, v ...any)    { l.printf(format, v) }
func (l quietLog) Criticalf(format string, v ...any) { l.printf(format, v) }
func (l quietLog) Debug(v ...any)                    { l.print(v) }
func (l quietLog) Info(v ...any)                     { l.print(v) }
func (l quietLog) Warn(v ...any)                     { l.print(v) }
func (l quietLog) Error(v ...any)                    { l.print(v) }
func (l quietLog) Critical(v ...any)                 { l.print(v) }
func (l quietLog) SetLevel(btclog.Level)             {}

func (l quietLog) Level() btclog.Level {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		return btclog.LevelDebug
	}
	return btclog.LevelOff
}
