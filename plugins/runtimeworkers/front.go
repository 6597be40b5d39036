package runtimeworkers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"syscall"
	"time"
)

const (
	// A request waits this long for a Worker that is being started again.
	requestPatience = 10 * time.Second
	// What a client may still send, and for how long, of a body that nobody wants.
	maxRest, bodyPatience = 256 << 10, 200 * time.Millisecond
	// For a client to send a request's headers, and its next request.
	headerLimit, idleLimit = 30 * time.Second, 2 * time.Minute
)

// front is where a Worker listens. It lives from the Worker's first start to its
// removal, whatever process answers.
//
// It passes on requests, not the socket. A workerd that is told to end closes
// connections that it has accepted but not read from, so with a shared socket a
// few of 10,000 requests get no answer at each change; nor can a socket tell
// which requests are still under way. Here each request is given to one process,
// on a connection of its own, and a process is told to end when it has none left.
type front struct {
	address string // with the port that it got
	server  *http.Server

	mu      sync.Mutex // owns what follows
	current *process   // nil: requests wait
	changed chan struct{}
}

// url is the Worker's address for people.
func (f *front) url() string { return "http://" + f.address }

// listen opens a front. After a restart of the plugin somebody may have the
// address for a moment still, so it tries for a while. kept is the address that a
// Worker with a port of our choice had.
func listen(ctx context.Context, address, kept string, patience time.Duration) (*front, error) {
	first := address
	if address == defaultListen && kept != "" {
		first = kept
	}
	until := time.NewTimer(patience)
	defer until.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		f, err := listenOnce(ctx, first)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return f, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-until.C:
			if first != address { // somebody has taken the port; any other will do
				return listenOnce(ctx, address)
			}
			return nil, err
		}
	}
}

func listenOnce(ctx context.Context, address string) (*front, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", &problem{message: fmt.Sprintf("the Worker cannot listen: %v", err), retryable: true,
			remedy: "free the address, or give the Worker another to listen on in the runtime's config"}, err)
	}
	f := &front{address: l.Addr().String(), changed: make(chan struct{})}
	f.server = &http.Server{Handler: f, ReadHeaderTimeout: headerLimit, IdleTimeout: idleLimit,
		ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = f.server.Serve(l) }() // ends with close
	return f, nil
}

// use gives all requests from now on to p; nil makes them wait.
func (f *front) use(p *process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = p
	close(f.changed)
	f.changed = make(chan struct{})
}

// lost makes requests wait unless somebody has taken p's place already.
func (f *front) lost(p *process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current == p {
		f.current = nil
	}
}

// take gives the process that is to answer a request, and counts the request.
func (f *front) take(ctx context.Context) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	for {
		f.mu.Lock()
		p, changed := f.current, f.changed
		if p != nil {
			p.begin()
		}
		f.mu.Unlock()
		if p != nil {
			return p, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// body is a request's body. Of a Worker that answers without reading all of it
// two things would be left that net/http's server does not stand while it allows
// answers during the upload: a transport that reads on, and a rest that is only
// found when the handler has returned. end sees to both. Close is for attempts,
// and does nothing.
type body struct {
	mu    sync.Mutex // held while somebody reads
	from  io.Reader
	ended bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, io.ErrUnexpectedEOF
	}
	return b.from.Read(p)
}

func (*body) Close() error { return nil }

// end takes the rest, and lets nobody read any more. A client that sends too much
// or too slowly is cut off when it has its answer.
func (b *body) end(client *http.ResponseController) {
	cut := time.AfterFunc(bodyPatience, func() { _ = client.SetReadDeadline(time.Unix(1, 0)) }) // HTTP/1 can
	defer cut.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	_, _ = io.CopyN(io.Discard, b.from, maxRest) // the server finds the connection's fault itself
}

// ServeHTTP passes a request on. When the process turns out to be gone before it
// answered, the next one gets the request, unless that may change something twice
// (RFC 9110 section 9.2.2).
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client := http.NewResponseController(w)
	_ = client.EnableFullDuplex() // HTTP/1 can; a Worker may answer while it reads
	safe := r.ContentLength == 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead ||
		r.Method == http.MethodOptions)
	content := &body{from: r.Body}
	defer content.end(client)
	r.Body = content
	for {
		p, err := f.take(r.Context())
		if err != nil {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "the Worker is not running", http.StatusServiceUnavailable)
			return
		}
		err = pass(p, w, r)
		switch {
		case err == nil:
			return
		case r.Context().Err() == nil && (undelivered(err) || safe && p.gone()):
			safe = false // a request that ends every process gets a second chance only
			f.lost(p)
		default:
			http.Error(w, "the Worker did not answer", http.StatusBadGateway)
			return
		}
	}
}

// undelivered reports that the process was gone before it got the request.
func undelivered(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Op == "dial"
}

// pass gives a request to one process. The error is one before any answer.
func pass(p *process, w http.ResponseWriter, r *http.Request) (err error) {
	defer p.done()
	proxy := httputil.ReverseProxy{
		Transport:     p.transport,
		FlushInterval: -1, // streams stay streams
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler:  func(_ http.ResponseWriter, _ *http.Request, failed error) { err = failed },
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(&url.URL{Scheme: "http", Host: pr.In.Host})
			pr.Out.Host, pr.Out.URL.RawQuery = pr.In.Host, pr.In.URL.RawQuery
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if values, ok := pr.In.Header[name]; ok { // a proxy's before us
					pr.Out.Header[name] = values
				}
			}
		},
	}
	proxy.ServeHTTP(w, r)
	return err
}

// close takes no more connections, lets requests finish for grace, and ends the
// rest.
func (f *front) close(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if f.server.Shutdown(ctx) != nil {
		_ = f.server.Close() // the listener is closed already
	}
}
