package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// A view that goes on is drawn on the other screen of a terminal, as pagers do, so that a line that was wrapped or a
// window of another size leave nothing behind; what was last seen stays on the first one. Where there is no terminal,
// each change is a block of lines.

// Control sequences of terminals (ECMA-48, and xterm's private modes).
const (
	otherScreen = "\x1b[?1049h\x1b[?25l" // and no cursor
	firstScreen = "\x1b[?25h\x1b[?1049l"
	homeward    = "\x1b[H"
	eraseLine   = "\x1b[K"
	eraseBelow  = "\x1b[J"
)

// watchStatus shows a view until ctx ends, which is how it ends.
func (c *cli) watchStatus(ctx context.Context, v *view) error {
	ctx, stop := context.WithCancel(ctx)
	following := make(chan struct{})
	go func() { // ends with ctx
		defer close(following)
		v.follow(ctx)
	}()
	defer func() {
		stop()
		<-following
	}()
	if c.drawable() {
		return c.drawStatus(ctx, v)
	}
	return c.printStatus(ctx, v)
}

// drawable reports whether stdout is a terminal that can be drawn on.
func (c *cli) drawable() bool { return isTerminal(c.stdout) && c.env("TERM") != "dumb" }

// drawStatus draws the view each second, and at once when something has changed or the terminal has another size.
func (c *cli) drawStatus(ctx context.Context, v *view) (err error) {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	if _, err := io.WriteString(c.stdout, otherScreen); err != nil {
		return err
	}
	defer func() { // also when the program panics
		var last strings.Builder
		last.WriteString(firstScreen)
		for _, l := range v.lines(time.Now(), 0) {
			last.WriteString(c.line(l, c.width()) + "\n")
		}
		_, wrote := io.WriteString(c.stdout, last.String())
		if err == nil {
			err = wrote
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if _, err := io.WriteString(c.stdout, c.frame(v)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-resized:
		case <-v.changed:
		}
	}
}

// frame is a whole screen, with as much of the view as fits.
func (c *cli) frame(v *view) string {
	columns, rows := c.size()
	const fewest, others = 3, 12 // lines of what there may be any number of, and of the rest
	lines := v.lines(time.Now(), max(fewest, (rows-others)/2))
	var b strings.Builder
	b.WriteString(homeward)
	left := 0
	if len(lines) > rows {
		left = len(lines) - rows + 1
		lines = lines[:max(rows-1, 0)]
	}
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(c.line(l, columns) + eraseLine)
	}
	if left > 0 {
		more := []fact{passing("%d more lines: the window is too small for them", left)}
		b.WriteString("\r\n" + c.line(more, columns) + eraseLine)
	}
	return b.String() + eraseBelow
}

// size is that of the terminal, in columns and rows.
func (c *cli) size() (columns, rows int) {
	if f, is := c.stdout.(*os.File); is {
		if columns, rows, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 && rows > 0 {
			return columns, rows
		}
	}
	return 80, 24
}

// printStatus writes the view, and again whenever something of it has changed.
func (c *cli) printStatus(ctx context.Context, v *view) error {
	for said := ""; ; {
		lines := v.lines(time.Now(), 0)
		if now := lasting(lines); now != said {
			block := ""
			if said != "" {
				block = "\n"
			}
			said = now
			for _, l := range lines {
				block += c.line(l, 0) + "\n"
			}
			if _, err := io.WriteString(c.stdout, block); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-v.changed:
		}
	}
}

// lasting is what a view says but for what passes on its own.
func lasting(lines [][]fact) string {
	var b strings.Builder
	for _, l := range lines {
		for _, f := range l {
			if !f.passing {
				b.WriteString(f.text)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// line is a line of a view, in so many columns; 0: it may have any number.
func (c *cli) line(facts []fact, columns int) string {
	var b strings.Builder
	at := 0
	for i, f := range facts {
		text := harmless(f.text)
		if i == len(facts)-1 {
			text = strings.TrimRight(text, " ")
		}
		whole := true
		if columns > 0 {
			text, whole = cut(text, columns-at)
		}
		at += columnsOf(text)
		if f.ink != "" && text != "" {
			text = c.paint(c.stdout, f.ink, text)
		}
		b.WriteString(text)
		if !whole {
			break
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// cut is as much of a text as fits into so many columns, and whether that is all of it.
func cut(text string, columns int) (string, bool) {
	if columnsOf(text) <= columns {
		return text, true
	}
	at := 0
	for i, r := range text {
		if w := columnsOfRune(r); at+w > columns-1 {
			return text[:i] + map[bool]string{true: "…", false: ""}[columns > 0], false
		} else {
			at += w
		}
	}
	return text, true
}

func columnsOf(text string) (n int) {
	for _, r := range text {
		n += columnsOfRune(r)
	}
	return n
}

// columnsOfRune is 2 for what East Asian scripts write twice as wide.
func columnsOfRune(r rune) int {
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}
