package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Result of a module; see the package comment.
type Result string

// Results, from the best to the worst.
const (
	Passed  Result = "PASSED"
	Review  Result = "REVIEW"
	Warning Result = "WARNING"
	Skipped Result = "SKIPPED"
	Failed  Result = "FAILED"
)

var severity = []Result{Passed, Review, Warning, Skipped, Failed}

// trial is one run of a module: its findings, and the browser and relying party that it uses.
type trial struct {
	ctx     context.Context
	suite   *Suite
	cfg     *Config
	plan    Plan
	browser *browser
	id      string // of this run, in addresses at the relying party

	cleanups []func()

	mu    sync.Mutex // guards what follows: the provider calls the relying party at any time
	log   []Entry
	worst Result
}

// ended is thrown where a module cannot or need not go on.
type ended struct{}

func newTrial(ctx context.Context, s *Suite, plan Plan) *trial {
	t := &trial{ctx: ctx, suite: s, cfg: &s.cfg, plan: plan, worst: Passed, id: strings.ToLower(rand.Text()[:10])}
	t.browser = t.newBrowser()
	return t
}

func (t *trial) newBrowser() *browser {
	jar, _ := cookiejar.New(nil) // it has no error to give
	return &browser{t: t, jar: jar}
}

// run runs a module to its end.
func (t *trial) run(module func(*trial)) {
	defer func() {
		for _, f := range slices.Backward(t.cleanups) {
			t.guarded(f)
		}
	}()
	t.guarded(func() { module(t) })
}

func (t *trial) guarded(f func()) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(ended); !ok {
				panic(r)
			}
		}
	}()
	f()
}

func (t *trial) cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func (t *trial) note(result Result, ref, format string, args []any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Index(severity, result) > slices.Index(severity, t.worst) {
		t.worst = result
	}
	t.log = append(t.log, Entry{At: time.Now().UTC(), Kind: "check", Result: result, Ref: ref,
		Text: fmt.Sprintf(format, args...)})
}

// okf says that something is as it must be; ref is the section that says so.
func (t *trial) okf(ref, format string, args ...any) { t.note(Passed, ref, format, args) }

// failf says that something is not as it must be. The module goes on.
func (t *trial) failf(ref, format string, args ...any) { t.note(Failed, ref, format, args) }

// warnf says that something is not as it should be.
func (t *trial) warnf(ref, format string, args ...any) { t.note(Warning, ref, format, args) }

// stopf is failf where the module cannot go on.
func (t *trial) stopf(ref, format string, args ...any) {
	t.note(Failed, ref, format, args)
	panic(ended{})
}

// skipf ends a module that tests what the provider does not offer.
func (t *trial) skipf(format string, args ...any) {
	t.note(Skipped, "", format, args)
	panic(ended{})
}

// check is okf or failf.
func (t *trial) check(ok bool, ref, format string, args ...any) bool {
	if ok {
		t.okf(ref, format, args...)
	} else {
		t.failf(ref, "not so: "+format, args...)
	}
	return ok
}

// should is okf or warnf.
func (t *trial) should(ok bool, ref, format string, args ...any) {
	if ok {
		t.okf(ref, format, args...)
	} else {
		t.warnf(ref, "not so: "+format, args...)
	}
}

// must is okf or stopf.
func (t *trial) must(ok bool, ref, format string, args ...any) {
	if !t.check(ok, ref, format, args...) {
		panic(ended{})
	}
}

// review asks a person to look at a page.
func (t *trial) review(p *page, ref, format string, args ...any) {
	t.note(Review, ref, format, args)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = append(t.log, Entry{At: time.Now().UTC(), Kind: "page", Text: p.text(), URL: redactURL(p.address),
		Status: p.status})
}

// wait lets time pass, without keeping others from working.
func (t *trial) wait(d time.Duration, why string) {
	t.note(Passed, "", "waiting %s, %s", []any{d, why})
	<-t.suite.slots
	defer func() { t.suite.slots <- struct{}{} }()
	select {
	case <-time.After(d):
	case <-t.ctx.Done():
	}
}

func (t *trial) result() Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.worst
}

func (t *trial) entries() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.log)
}

// reply is an answer of the provider, read to its end.
type reply struct {
	status  int
	header  http.Header
	body    []byte
	address *url.URL
}

// maxBody is in bytes; no answer of a provider is that long.
const maxBody = 1 << 20

// send sends a request and keeps both it and the answer in the log. Redirects are not followed.
func (t *trial) send(req *http.Request, body string) *reply {
	entry := requestEntry(req, body)
	resp, err := t.suite.transport.RoundTrip(req.WithContext(t.ctx))
	if err != nil {
		entry.Text = "no answer: " + err.Error()
		t.append(entry)
		t.stopf("", "%s %s got no answer: %v", req.Method, redactURL(req.URL), err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	got := &reply{status: resp.StatusCode, header: resp.Header, body: text, address: req.URL}
	answerEntry(&entry, got)
	t.append(entry)
	if err != nil {
		t.stopf("", "the answer to %s %s broke off: %v", req.Method, redactURL(req.URL), err)
	}
	return got
}

func (t *trial) append(e Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = append(t.log, e)
}

// get fetches for the relying party, with a bearer token if there is one.
func (t *trial) get(address, bearer string) *reply {
	return t.call(http.MethodGet, address, "", "", bearer)
}

// call sends what a machine sends.
func (t *trial) call(method, address, contentType, body, bearer string) *reply {
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		t.stopf("", "the provider names the address %q: %v", address, err)
	}
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	return t.send(req, body)
}
