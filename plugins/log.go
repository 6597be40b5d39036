package plugins

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/time/rate"
)

const (
	// A longer line is read to its end, but only this much is looked at, bytes.
	maxLineRead = 64 << 10
	// And this much is logged.
	maxLineLogged = 4 << 10
	// A plugin's lines a second, and at once.
	lineRate, lineBurst = 50, 200
	// Key-value pairs of one structured line.
	maxLineAttrs = 16
)

// pluginLog is where everything that one plugin prints ends: scrubbed, capped,
// and logged with the plugin's name, at Debug or Warn.
type pluginLog struct {
	log   *slog.Logger
	scrub *scrubber

	mu      sync.Mutex // owns what follows
	limiter *rate.Limiter
	dropped int
}

func newPluginLog(log *slog.Logger, scrub *scrubber, name string) *pluginLog {
	return &pluginLog{
		log: log.With("plugin", name), scrub: scrub,
		limiter: rate.NewLimiter(lineRate, lineBurst),
	}
}

// drain logs the lines of r until it ends. It never stops reading earlier, so a
// flooding plugin is not blocked and cannot fill memory.
func (l *pluginLog) drain(r io.Reader, stream string) {
	reader := bufio.NewReaderSize(r, 4096)
	for {
		line, err := readLine(reader)
		if len(line) > 0 {
			l.line(line, stream)
		}
		if err != nil {
			return // the stream is gone; the supervisor tells why
		}
	}
}

// readLine reads to the end of a line and returns its first maxLineRead bytes
// without the newline.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part[:min(len(part), maxLineRead-len(line))]...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(line, "\r\n"), err
		}
	}
}

// line logs one line; hclog's JSON lines keep their level and fields.
func (l *pluginLog) line(line []byte, stream string) {
	if !l.allow() {
		return
	}
	var entry map[string]any
	if bytes.HasPrefix(line, []byte("{")) && json.Unmarshal(line, &entry) == nil && entry["@message"] != nil {
		l.structured(entry, stream)
		return
	}
	text := l.scrub.cleanLine(string(line), maxLineLogged)
	l.log.Log(context.Background(), plainLevel(text), text, "stream", stream)
}

func (l *pluginLog) structured(entry map[string]any, stream string) {
	level := slog.LevelDebug
	if at, _ := entry["@level"].(string); at == "warn" || at == "error" {
		level = slog.LevelWarn
	}
	attrs := []any{"stream", stream}
	for _, key := range slices.Sorted(maps.Keys(entry)) {
		if strings.HasPrefix(key, "@") {
			continue
		}
		if len(attrs) == 2*maxLineAttrs {
			break
		}
		attrs = append(attrs, l.scrub.cleanLine(key, 64), l.scrub.cleanLine(fmt.Sprint(entry[key]), maxLineLogged))
	}
	l.log.Log(context.Background(), level, l.scrub.cleanLine(fmt.Sprint(entry["@message"]), maxLineLogged), attrs...)
}

func plainLevel(text string) slog.Level {
	for _, prefix := range []string{"panic", "fatal error: ", "[ERROR]", "[WARN]"} {
		if strings.HasPrefix(text, prefix) {
			return slog.LevelWarn
		}
	}
	return slog.LevelDebug
}

// allow spends a line of the plugin's budget. The first line after a drought
// says how many were lost.
func (l *pluginLog) allow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.limiter.Allow() {
		l.dropped++
		return false
	}
	if l.dropped > 0 {
		l.log.Warn("the plugin prints too much; lines were dropped", "lines", l.dropped)
		l.dropped = 0
	}
	return true
}

// writer takes the stream of go-plugin or of a plugin's os.Stdout in pieces of
// any size. The caller closes it; then its goroutine ends.
func (l *pluginLog) writer(stream string) io.WriteCloser {
	r, w := io.Pipe()
	go l.drain(r, stream)
	return w
}

// ours logs go-plugin's own lines, all at Debug: what matters of them is in
// errors.
func (l *pluginLog) ours() io.Writer { return hostLines{l} }

type hostLines struct{ l *pluginLog }

func (h hostLines) Write(line []byte) (int, error) {
	h.l.log.Debug(h.l.scrub.cleanLine(strings.TrimSpace(string(line)), maxLineLogged), "stream", "host")
	return len(line), nil
}
