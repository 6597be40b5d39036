package dex

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"

	"github.com/warifu/warifu/server/oauth"
)

const (
	// callTimeout is how long somebody who signs in waits for an upstream.
	callTimeout = 8 * time.Second
	// maxConns is how many requests to one host run at once; the others wait for their turn, within their deadline.
	maxConns = 32
	// firstPause is how long nobody asks an upstream that could not be opened; it doubles to lastPause.
	firstPause = time.Second
	lastPause  = time.Minute
	// keptFor is how long what has been opened counts before it is opened again, see [lazy].
	keptFor = time.Hour
)

// lazy is something that is opened when it is first needed. Who needs it while it is being opened waits for that, as
// long as their own context allows; who needs it soon after it could not be opened is told why at once. It is opened
// again every now and then, for which nobody waits: it is as it was until that has worked. The zero value, with open
// set, is ready for use.
type lazy[T any] struct {
	open func(context.Context) (T, error)

	mu      sync.Mutex // owns all below
	value   T
	opened  bool
	err     error // of the last attempt, while it has never been opened
	pause   time.Duration
	again   time.Time     // when the next attempt may begin
	opening chan struct{} // closed when the attempt that runs has ended; nil if none runs
}

func (l *lazy[T]) get(ctx context.Context) (T, error) {
	l.mu.Lock()
	if l.opening == nil && !time.Now().Before(l.again) {
		l.opening = make(chan struct{})
		// Its end is that of open, which callTimeout bounds: it belongs to nobody who waits, so that the first one who
		// goes away does not end it for the others.
		go l.attempt(context.WithoutCancel(ctx))
	}
	opening := l.opening
	if l.opened {
		opening = nil
	}
	l.mu.Unlock()
	if opening != nil {
		select {
		case <-opening:
		case <-ctx.Done():
			var none T
			return none, fmt.Errorf("the upstream has not answered yet: %w", ctx.Err())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.err
}

func (l *lazy[T]) attempt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	value, err := l.open(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.value, l.opened, l.err, l.pause = value, true, nil, 0
		l.again = time.Now().Add(keptFor)
	default:
		if !l.opened {
			l.err = err
		}
		l.pause = min(max(2*l.pause, firstPause), lastPause)
		l.again = time.Now().Add(l.pause)
	}
	close(l.opening)
	l.opening = nil
}

// boundedClient is client with bounds on time, replies and redirects.
func boundedClient(client *http.Client) *http.Client {
	bounded := *client
	bounded.Timeout = callTimeout
	if transport, ok := client.Transport.(*http.Transport); ok {
		transport.MaxConnsPerHost, transport.MaxIdleConnsPerHost = maxConns, 4
		transport.IdleConnTimeout = 30 * time.Second // a connector may have been replaced by another meanwhile
		transport.MaxResponseHeaderBytes = 64 << 10
		transport.ForceAttemptHTTP2 = true
		transport.TLSClientConfig.MinVersion = tls.VersionTLS12
	}
	bounded.Transport = boundedTransport{client.Transport}
	bounded.CheckRedirect = stayWithSecrets
	return &bounded
}

// stayWithSecrets follows redirects, but not to another host with what is secret (a code, a client's secret, a token),
// and not from https to http.
func stayWithSecrets(next *http.Request, via []*http.Request) error {
	first, last := via[0], via[len(via)-1]
	secret := first.Method != http.MethodGet || first.Header.Get("Authorization") != ""
	switch {
	case len(via) >= 5:
		return errors.New("too many redirects")
	case last.URL.Scheme == "https" && next.URL.Scheme != "https":
		return errors.New("redirects to http")
	case secret && (next.URL.Host != first.URL.Host || next.URL.Scheme != first.URL.Scheme):
		return errors.New("redirects to another host")
	}
	return nil
}

// statusError is the status of a reply that should have been another.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("answers with status %d", int(e)) }

// boundedTransport reads replies to the end, within maxAnswer, so that an error in reading is one of the request. A
// document that is not there is an error without its text, which the libraries above would quote.
type boundedTransport struct{ http.RoundTripper }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	usual := resp.StatusCode == http.StatusOK || resp.StatusCode/100 == 3
	if r.Method == http.MethodGet && !usual {
		return nil, statusError(resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxAnswer {
		return nil, errors.New(tooMuch)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// scrubbed is a fault of an upstream, in words that can be logged: errors of libraries quote what upstreams wrote, and
// addresses with what is in them.
func scrubbed(what string, err error) error {
	var request *url.Error
	var issuer *gooidc.IssuerMismatchError
	switch {
	case errors.As(err, &request):
		host := ""
		if u, wrong := url.Parse(request.URL); wrong == nil {
			host = " at " + u.Host
		}
		return fmt.Errorf("%s%s: %w", what, host, request.Err)
	case errors.As(err, &issuer):
		return fmt.Errorf("%s is of the issuer %q, not %q", what, oauth.ShownURI(oauth.Cut(issuer.Discovered, 200)),
			oauth.ShownURI(issuer.Provided))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s cannot be understood", what)
}
