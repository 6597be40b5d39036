//go:build faults

package faults

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// weather is what a link does to what it carries.
type weather int

const (
	fair      weather = iota
	deafening         // requests pass, replies are held: what was done is not known
	silent            // nothing passes and nothing ends, as when a cable is pulled
	torn              // connections end, and new ones end at once
)

// link is a TCP proxy in front of one address. What its weather holds back passes when it is fair again, as TCP would
// send it once more.
type link struct {
	listener net.Listener
	to       string
	peers    bool // connections say which member of etcd they come from

	mu    sync.Mutex // guards what follows
	all   weather
	from  map[string]weather // by the member that a connection comes from
	delay time.Duration      // of each direction
	wires map[*wire]bool
	turn  chan struct{} // closed and made anew when the weather changes
}

// wire is one connection through a link.
type wire struct {
	link   *link
	from   string
	ends   [2]net.Conn // who connected, and whom to
	broken chan struct{}
	once   sync.Once
}

// newLink listens until the test ends.
func newLink(t testing.TB, to string, peers bool) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, to: to, peers: peers,
		from: make(map[string]weather), wires: make(map[*wire]bool), turn: make(chan struct{})}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() { l.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		l.set(torn)
		open.Wait()
	})
	return l
}

func (l *link) addr() string { return l.listener.Addr().String() }

// set changes the weather for all.
func (l *link) set(w weather) { l.change(func() { l.all = w }) }

// setFrom changes the weather for what comes from one member.
func (l *link) setFrom(member string, w weather) { l.change(func() { l.from[member] = w }) }

// slow delays each direction.
func (l *link) slow(d time.Duration) { l.change(func() { l.delay = d }) }

func (l *link) change(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
	close(l.turn)
	l.turn = make(chan struct{})
	for w := range l.wires {
		w.snapIfTorn()
	}
}

// weatherOf is the worse of what is set for all and for the member. The caller holds mu.
func (l *link) weatherOf(w *wire) weather { return max(l.all, l.from[w.from]) }

// carry carries one connection until either side ends it or the weather does.
func (l *link) carry(conn net.Conn) {
	w := &wire{link: l, ends: [2]net.Conn{conn, nil}, broken: make(chan struct{})}
	defer w.snap(false)
	l.mu.Lock()
	l.wires[w] = true
	w.snapIfTorn()
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.wires, w)
		l.mu.Unlock()
	}()
	var head []byte
	if l.peers {
		var from string
		head, from = requestHead(conn)
		l.mu.Lock()
		w.from = from
		w.snapIfTorn()
		l.mu.Unlock()
	}
	to, err := net.DialTimeout("tcp", l.to, 5*time.Second)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	var both sync.WaitGroup
	both.Go(func() { w.pump(to, io.MultiReader(bytes.NewReader(head), conn), silent) })
	both.Go(func() { w.pump(conn, to, deafening) })
	both.Go(func() {
		<-w.broken
		_ = to.Close()
	})
	both.Wait()
}

func (w *wire) snapIfTorn() {
	if w.link.weatherOf(w) == torn {
		w.snap(true)
	}
}

// snap ends the connection, by a reset where the weather has torn it.
func (w *wire) snap(reset bool) {
	w.once.Do(func() {
		close(w.broken)
		if tcp, ok := w.ends[0].(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		_ = w.ends[0].Close()
	})
}

// pump carries one direction; the weather holds it from worst on.
func (w *wire) pump(to io.Writer, from io.Reader, worst weather) {
	type piece struct {
		bytes []byte
		due   time.Time
	}
	pieces := make(chan piece, 256)
	go func() { // ends with the connection, which pump closes
		defer close(pieces)
		for {
			buffer := make([]byte, 16<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				w.link.mu.Lock()
				due := time.Now().Add(w.link.delay)
				w.link.mu.Unlock()
				select {
				case pieces <- piece{buffer[:n], due}:
				case <-w.broken:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	defer w.snap(false)
	for p := range pieces {
		if wait := time.Until(p.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-w.broken:
				return
			}
		}
		if !w.passes(worst) {
			return
		}
		if _, err := to.Write(p.bytes); err != nil {
			return
		}
	}
	w.passes(worst) // an end is not seen through silence either
}

// passes waits until the weather lets something through; false: the connection has ended.
func (w *wire) passes(worst weather) bool {
	for {
		w.link.mu.Lock()
		now, turn := w.link.weatherOf(w), w.link.turn
		w.link.mu.Unlock()
		if now < worst {
			return true
		}
		select {
		case <-turn:
		case <-w.broken:
			return false
		}
	}
}

// requestHead reads the head of the first request, and which member of etcd says that it sends it: all connections
// between members are HTTP, and each is used by one member.
func requestHead(conn net.Conn) (head []byte, from string) {
	reader := bufio.NewReader(conn)
	for {
		line, err := reader.ReadBytes('\n')
		head = append(head, line...)
		if name, value, ok := strings.Cut(string(line), ":"); ok && strings.EqualFold(name, "X-Server-From") {
			from = strings.TrimSpace(value)
		}
		if err != nil || len(bytes.TrimSpace(line)) == 0 {
			break
		}
	}
	rest, _ := reader.Peek(reader.Buffered())
	return append(head, rest...), from
}

func TestLink(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = echo.Close() })
	got := make(chan string, 10)
	go func() { // ends with the listener
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					got <- lines.Text()
					_, _ = fmt.Fprintln(conn, lines.Text())
				}
			}()
		}
	}()
	l := newLink(t, echo.Addr().String(), false)
	conn, err := net.Dial("tcp", l.addr())
	if err != nil {
		t.Fatal(err)
	}
	replies := bufio.NewReader(conn)
	say := func(text string) { _, _ = fmt.Fprintln(conn, text) }
	hear := func(want string) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if line, err := replies.ReadString('\n'); err != nil || strings.TrimSpace(line) != want {
			t.Fatalf("%q, %v, want %q", line, err, want)
		}
	}
	hearNothing := func() {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if line, err := replies.ReadString('\n'); err == nil {
			t.Fatalf("heard %q", line)
		}
	}
	say("fair")
	<-got
	hear("fair")
	l.set(deafening)
	say("deaf")
	if line := <-got; line != "deaf" {
		t.Fatal(line)
	}
	hearNothing()
	l.set(fair)
	hear("deaf")
	l.set(silent)
	say("silence")
	hearNothing()
	if len(got) != 0 {
		t.Fatal("a silent link carries requests")
	}
	l.set(fair)
	hear("silence")
	l.slow(100 * time.Millisecond)
	start := time.Now()
	say("slow")
	hear("slow")
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("there and back in %s", took)
	}
	l.set(torn)
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := replies.ReadString('\n'); err == nil || errors.Is(err, io.ErrNoProgress) {
		t.Error("a torn link carries something")
	}
	if again, err := net.Dial("tcp", l.addr()); err == nil {
		_ = again.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := again.Read(make([]byte, 1)); err == nil {
			t.Error("a torn link takes connections")
		}
	}
}
