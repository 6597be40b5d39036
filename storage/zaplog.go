package storage

import (
	"context"
	"log/slog"
	"strings"

	"go.uber.org/zap/zapcore"
)

// slogCore hands etcd's log lines at or above level to slog.
type slogCore struct {
	log   *slog.Logger
	level zapcore.Level
	with  []zapcore.Field
}

func (c *slogCore) Enabled(level zapcore.Level) bool { return level >= c.level }

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log, level: c.level, with: append(c.with[:len(c.with):len(c.with)], fields...)}
}

func (c *slogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *slogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.with[:len(c.with):len(c.with)], fields...) {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	level := slog.LevelWarn
	if harmless[entry.Message] || strings.Contains(entry.Message, tooEarly) {
		level = slog.LevelDebug
	} else if entry.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	c.log.LogAttrs(context.Background(), level, "etcd: "+entry.Message, attrs...)
	return nil
}

// harmless are lines that every start of an embedded etcd writes as a warning or an error and that mean nothing there:
// it has neither a listener nor users, and a new database has no version yet.
var harmless = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
	"Failed to detect schema version":                                                      true,
	"failed to update storage version":                                                     true,
}

// tooEarly is in the line that raft writes, with its own id before, when it is to elect itself a moment before it has
// applied what it knows of its members; campaign asks again.
const tooEarly = "cannot campaign at term"

func (c *slogCore) Sync() error { return nil }
