package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// etcdLog is a logger for etcd, or for its client: warnings and worse go to log, in measure.
func etcdLog(log *slog.Logger, opts ...zap.Option) *zap.Logger {
	return zap.New(&slogCore{log: log, level: zap.WarnLevel, seen: &seen{last: make(map[string]*repeated), now: time.Now}},
		opts...)
}

// slogCore hands etcd's log lines at or above level to slog: each message at most once per [quiet], with how often it
// came in the meantime.
type slogCore struct {
	log   *slog.Logger
	level zapcore.Level
	with  []zapcore.Field
	seen  *seen
}

// quiet is how long a message of etcd is not repeated.
const quiet = time.Minute

// seen are the messages of etcd that have been logged lately. There are as many as etcd's source has.
type seen struct {
	mu   sync.Mutex // guards last
	last map[string]*repeated
	now  func() time.Time
}

type repeated struct {
	at     time.Time
	unsaid int
}

// again notes a message. It reports how often it has come without being logged, and whether it should be now.
func (s *seen) again(message string) (unsaid int, say bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	r := s.last[message]
	if r == nil {
		r = &repeated{}
		s.last[message] = r
	} else if now.Sub(r.at) < quiet {
		r.unsaid++
		return 0, false
	}
	unsaid, r.at, r.unsaid = r.unsaid, now, 0
	return unsaid, true
}

func (c *slogCore) Enabled(level zapcore.Level) bool { return level >= c.level }

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	with := append(c.with[:len(c.with):len(c.with)], fields...)
	return &slogCore{log: c.log, level: c.level, with: with, seen: c.seen}
}

func (c *slogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *slogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	switch {
	case harmless[entry.Message] || strings.Contains(entry.Message, tooEarly):
		level = slog.LevelDebug
	case entry.Level > zapcore.ErrorLevel:
		level = slog.LevelDebug // etcd gives up: failure says so, in one line
	case entry.Level == zapcore.ErrorLevel:
		level = slog.LevelError
	}
	if !c.log.Enabled(context.Background(), level) {
		return nil
	}
	message := "etcd: " + entry.Message
	if late[entry.Message] {
		message = "storage is slow: the disk, the network or the processor of etcd is busy"
	}
	var unsaid int
	if level > slog.LevelDebug {
		var say bool
		if unsaid, say = c.seen.again(message); !say {
			return nil
		}
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.with[:len(c.with):len(c.with)], fields...) {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields)+2)
	for k, v := range enc.Fields {
		if k == "request" || k == "response" {
			continue // keys of records
		}
		attrs = append(attrs, slog.Any(k, v))
	}
	if late[entry.Message] {
		attrs = append(attrs, slog.String("etcd", entry.Message))
	}
	if unsaid > 0 {
		attrs = append(attrs, slog.Int("repeated", unsaid))
	}
	c.log.LogAttrs(context.Background(), level, message, attrs...)
	return nil
}

// harmless are lines that are written as a warning or an error and mean nothing here.
var harmless = map[string]bool{
	// At every start of an embedded etcd: it has neither a listener nor users, and a new database has no version yet.
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
	"Failed to detect schema version":                                                      true,
	"failed to update storage version":                                                     true,
	// For every request that fails: whoever made it says so, with more.
	"retrying of unary invoker failed": true,
	"failed to apply request":          true,
	// The keeper says it.
	"message exceeded backend quota; raising alarm": true,
	"alarm raised":                    true,
	"quota exceeds the maximum value": true, // of what etcd suggests
	// For every watch that ends with its client, and every snapshot that has been read.
	"failed to receive from snapshot stream; closing": true,
}

// late are the lines about something that took longer than etcd likes: after much writing there are hundreds.
var late = map[string]bool{
	"apply request took too long": true,
	"slow fdatasync":              true,
	"request stats":               true,
	"waiting for ReadIndex response took too long, retrying":                                                 true,
	"leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk": true,
}

// tooEarly is in the line that raft writes, with its own id before, when it is to elect itself a moment before it has
// applied what it knows of its members; campaign asks again.
const tooEarly = "cannot campaign at term"

func (c *slogCore) Sync() error { return nil }

// failure is the end of an etcd that gives up by itself (in zap's words: Fatal, which would end the process on the
// spot, or Panic). The goroutine that gave up stops for ever, and whoever owns the etcd is told.
type failure struct {
	dir    string
	once   sync.Once
	failed chan struct{} // closed once err is there
	err    error
}

func newFailure(dir string) *failure { return &failure{dir: dir, failed: make(chan struct{})} }

func (f *failure) came() bool {
	select {
	case <-f.failed:
		return true
	default:
		return false
	}
}

// OnWrite is for zap.
func (f *failure) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	var why error
	for _, field := range fields {
		if err, is := field.Interface.(error); is && field.Type == zapcore.ErrorType {
			why = err
		}
	}
	f.once.Do(func() {
		f.err = f.words(entry.Message, why)
		close(f.failed)
	})
	select {}
}

// damaged is in errors of etcd, and of its database, that say that a file holds what it must not. A path or the name of
// a package is not among them: they are in errors about healthy files as well.
var damaged = regexp.MustCompile(
	`(?i)crc mismatch|checksum|corrupt|cannot be repaired|unmarshal|unexpected EOF|proto:|` +
		`invalid (database|freelist|page)|version mismatch|file size too small|bad wal name|wal: (conflicting|file not found|snapshot|slice bounds)|` +
		`snap: (snapshot file doesn't exist|no available|empty)|snapshot is missing|failed to recover v3 backend`)

// is says whether an error is one of the system's. etcd does not wrap all that it passes on.
func is(err error, errno syscall.Errno) bool {
	return errors.Is(err, errno) || strings.Contains(err.Error(), errno.Error())
}

// words say what has happened and how to go on.
func (f *failure) words(what string, why error) error {
	if why == nil {
		why = errors.New("it does not say why")
	}
	dir := etcdDir(f.dir)
	switch {
	case is(why, syscall.ENOSPC), is(why, syscall.EDQUOT):
		return fmt.Errorf("the disk that holds %s is full (%s: %w): make room on it and start again; nothing that was "+
			"confirmed is lost",
			f.dir, what, why)
	case is(why, syscall.EACCES), is(why, syscall.EPERM):
		return fmt.Errorf("this user may not use the database in %s (%s: %w): give the directory and all that is in it to "+
			"the user that runs "+
			"this program (chown -R), or start it as their owner; nothing is wrong with the database", dir, what, why)
	case is(why, syscall.EROFS):
		return fmt.Errorf("the database in %s is on a disk that is mounted read-only (%s: %w): mount it for "+
			"writing and start again",
			dir, what, why)
	case is(why, syscall.ENOMEM):
		return fmt.Errorf("there is not enough memory or address space for the database in %s (%s: %w): raise the limit "+
			"of this process "+
			"(ulimit -v), or lower storage.config.quota, up to which the database is mapped; nothing is wrong with the database",
			dir, what, why)
	case is(why, syscall.EMFILE), is(why, syscall.ENFILE):
		return fmt.Errorf("there are too many open files for the database in %s (%s: %w): raise the limit (ulimit "+
			"-n) and start again",
			dir, what, why)
	case damaged.MatchString(what), damaged.MatchString(why.Error()):
		return fmt.Errorf("the database in %s is damaged (%s: %w): put that directory aside, and run warifu restore with "+
			"your last backup",
			dir, what, why)
	}
	return fmt.Errorf("the database in %s cannot go on (%s: %w): check its disk and start again; nothing that was "+
		"confirmed is lost",
		dir, what, why)
}
