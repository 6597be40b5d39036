package dex

import (
	"context"
	"log/slog"
)

// quiet logs what Dex's code logs without its attributes, which name people and their entries, and quote upstreams. Its
// warnings are about the configuration; its errors are also returned, and are logged where they end.
type quiet struct{ slog.Handler }

func quietLogger(log *slog.Logger, connectorID string) *slog.Logger {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return slog.New(quiet{log.With("connector", connectorID).Handler()})
}

func levelOf(level slog.Level) slog.Level {
	if level == slog.LevelWarn {
		return level
	}
	return slog.LevelDebug
}

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, levelOf(level))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	bare := slog.NewRecord(r.Time, levelOf(r.Level), r.Message, r.PC)
	return q.Handler.Handle(ctx, bare)
}

func (q quiet) WithAttrs([]slog.Attr) slog.Handler { return q }

func (q quiet) WithGroup(string) slog.Handler { return q }
