//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// elsewhere is a host of another site than all else, on this machine.
const elsewhere = "elsewhere.test"

// startBrowser starts the Chromium of the suite, with a profile that is made for it. It reaches nothing but this
// machine, and talks to nobody on its own.
func startBrowser(chromium string) (func(), error) {
	flags := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(chromium), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("host-resolver-rules", "MAP "+elsewhere+" 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, "+
			"EXCLUDE 127.0.0.1"),
		chromedp.Flag("force-color-profile", "srgb"),
		chromedp.Flag("hide-scrollbars", true),
		// A page out of memory is the page as it was left. Without that memory, going back asks the server.
		chromedp.Flag("disable-features", "BackForwardCache"),
	}
	for _, off := range []string{
		"quic", "background-networking", "component-update", "sync", "default-apps", "extensions",
		"breakpad", "dev-shm-usage",
		"domain-reliability",
	} {
		flags = append(flags, chromedp.Flag("disable-"+off, true))
	}
	allocator, end := chromedp.NewExecAllocator(context.Background(), flags...)
	ctx, cancel := chromedp.NewContext(allocator)
	suite.browser = ctx
	stop := func() {
		cancel()
		end()
	}
	version, err := chromedp.Run(ctx, func(ctx context.Context, _ *chromedp.Target) (string, error) {
		v, err := chromedp.CallBrowser(ctx, getVersion, cdp.Empty{})
		return v.UserAgent, err
	})
	if err != nil {
		stop()
		return nil, fmt.Errorf("start Chromium: %w", err)
	}
	suite.agent = version
	return stop, nil
}

// person is somebody with a browser: cookies of their own, and a language.
type person struct {
	ctx    context.Context
	accept string // the browser's languages, best first, as in ja-JP,ja,en
}

// newPerson gives somebody a browser that knows no site yet, and its first tab.
func newPerson(t testing.TB, accept string) (*person, *tab) {
	t.Helper()
	ctx, cancel := chromedp.NewContext(suite.browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	p := &person{ctx: ctx, accept: accept}
	return p, p.open(t, ctx)
}

// another opens one more tab in the same browser.
func (p *person) another(t testing.TB) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(p.ctx)
	t.Cleanup(cancel)
	return p.open(t, ctx)
}

func (p *person) open(t testing.TB, ctx context.Context) *tab {
	t.Helper()
	b := &tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.watch); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	t.Cleanup(b.quiet)
	b.do(func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		if _, err := cdp.Call(ctx, target, log.Enable, cdp.Empty{}); err != nil {
			return chromedp.Void{}, err
		}
		if _, err := cdp.Call(ctx, target, audits.Enable, cdp.Empty{}); err != nil {
			return chromedp.Void{}, err
		}
		_, err := cdp.Call(ctx, target, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{
			UserAgent: suite.agent, AcceptLanguage: p.accept})
		return chromedp.Void{}, err
	})
	return b
}

// tab is a tab of somebody's browser. Its methods end the test when the browser cannot do what they ask.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu         sync.Mutex // guards what follows
	refused    map[string]bool
	complaints []string
}

// watch collects what the browser complains about, as it would in its console. It must not wait for anything.
func (b *tab) watch(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	complain := func(format string, args ...any) { b.complaints = append(b.complaints, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *network.EventResponseReceived:
		if e.Type == network.ResourceTypeDocument && e.Response.Status >= http.StatusBadRequest {
			if b.refused == nil {
				b.refused = make(map[string]bool)
			}
			b.refused[e.Response.URL] = true
		}
	case *log.EventEntryAdded:
		// The console tells of every page with an error status. Those we look at ourselves.
		// Autofocus is for people who have not typed yet: a test can be faster than the first paint, at which it is due.
		expected := e.Entry.Source == log.EntrySourceNetwork && b.refused[e.Entry.URL] ||
			strings.HasPrefix(e.Entry.Text, "Autofocus processing was blocked because a document already has a focused element")
		if !expected && e.Entry.Level != log.EntryLevelVerbose {
			complain("%s %s: %s (%s)", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *audits.EventIssueAdded:
		// That the server was passed through without a question is what single sign-on is; the browser cannot tell it from
		// tracking.
		if e.Issue.Code == audits.InspectorIssueCodeBounceTrackingIssue {
			return
		}
		complain("issue %s: %s", e.Issue.Code, describe(e.Issue))
	case *runtime.EventConsoleAPICalled:
		complain("console.%s", e.Type)
	case *runtime.EventExceptionThrown:
		complain("exception: %s", e.ExceptionDetails.Text)
	}
}

func describe(issue *audits.InspectorIssue) string {
	if csp := issue.Details.ContentSecurityPolicyIssueDetails; csp != nil {
		return fmt.Sprintf("%s blocks %s", csp.ViolatedDirective, csp.BlockedURL)
	}
	if cookie := issue.Details.CookieIssueDetails; cookie != nil && cookie.Cookie != nil {
		return fmt.Sprintf("%s of %s %v %v", cookie.Cookie.Name, cookie.CookieURL, cookie.CookieWarningReasons,
			cookie.CookieExclusionReasons)
	}
	if generic := issue.Details.GenericIssueDetails; generic != nil {
		return string(generic.ErrorType)
	}
	return "see audits.InspectorIssue"
}

// took gives the complaints up to now and forgets them.
func (b *tab) took() []string {
	b.eval("0") // events come in order: those of what happened are here now
	b.mu.Lock()
	defer b.mu.Unlock()
	complaints := b.complaints
	b.complaints = nil
	return complaints
}

// excuse forgets the complaints up to now that have one of the texts in them.
func (b *tab) excuse(texts ...string) {
	for _, complaint := range b.took() {
		if !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(complaint, text) }) {
			b.t.Errorf("the browser complains: %s", complaint)
		}
	}
}

// quiet fails the test when the browser complained.
func (b *tab) quiet() {
	if b.t.Failed() {
		return // what went wrong first is what matters
	}
	for _, complaint := range b.took() {
		b.t.Errorf("the browser complains: %s", complaint)
	}
}

// within is a deadline for what never comes.
func (b *tab) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.ctx, 30*time.Second)
}

// run does something in the tab and gives what comes of it.
func run[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	for err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "No node with given id") {
		// The page has made way for the next one meanwhile, where it is found as well.
		value, err = chromedp.Run(ctx, action)
	}
	if err != nil {
		b.lost(err)
	}
	return value
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	run(b, chromedp.Steps(steps...))
}

// lost ends the test, and says where the browser was.
func (b *tab) lost(err error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	at, _ := chromedp.Run(ctx, chromedp.Location()) // the fault is err
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t.Fatalf("%v\nat %s\n%s\n%s", err, at, text, strings.Join(b.complaints, "\n"))
}

// open goes to an address and waits for its page.
func (b *tab) open(address string) *network.Response {
	b.t.Helper()
	return run(b, chromedp.NavigateResponse(address))
}

// press clicks and waits for the page to which that leads.
func (b *tab) press(selector string) *network.Response {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	response, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector)))
	if err != nil {
		b.lost(fmt.Errorf("press %s: %w", selector, err))
	}
	b.passOn()
	return response
}

// passOn waits until the page that brings people back to an app has done so.
func (b *tab) passOn() {
	b.t.Helper()
	b.until(`document.readyState === 'complete' && document.body.hasChildNodes() &&
		document.querySelector('meta[http-equiv="refresh"][content^="0;"]') === null`)
}

// until waits until an expression is true, on whichever page that is.
func (b *tab) until(expression string) {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	for {
		// While one page takes the place of another, the browser may not know which is asked.
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		if err == nil && is {
			return
		}
		if ctx.Err() != nil {
			b.lost(fmt.Errorf("wait for %s: %w", expression, ctx.Err()))
		}
	}
}

// key presses a key and waits for the page to which that leads.
func (b *tab) key(key string) *network.Response {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	response, err := chromedp.RunResponse(ctx, chromedp.KeyEvent(key))
	if err != nil {
		b.lost(fmt.Errorf("press a key: %w", err))
	}
	b.passOn()
	return response
}

// reload loads the page again.
func (b *tab) reload() *network.Response {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	response, err := chromedp.RunResponse(ctx, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, page.Reload, page.ReloadParams{})
		return err
	}))
	if err != nil {
		b.lost(fmt.Errorf("reload: %w", err))
	}
	return response
}

// back presses the browser's back button.
func (b *tab) back() {
	b.t.Helper()
	b.do(chromedp.NavigateBack())
}

// fill types into a field what it shall hold.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.eval(fmt.Sprintf(`document.querySelector(%q).value = ''`, selector))
	b.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

func (b *tab) eval(expression string) {
	b.t.Helper()
	run(b, chromedp.Evaluate[chromedp.Void](expression))
}

// text is what an element says.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return strings.TrimSpace(run(b, chromedp.Text(chromedp.CSS(selector))))
}

// has says whether the page has such an element.
func (b *tab) has(selector string) bool {
	b.t.Helper()
	return run(b, chromedp.Evaluate[bool](fmt.Sprintf(`document.querySelector(%q) !== null`, selector)))
}

func (b *tab) address() string {
	b.t.Helper()
	return run(b, chromedp.Location())
}

// lang is the language of the page.
func (b *tab) lang() string {
	b.t.Helper()
	return run(b, chromedp.Evaluate[string](`document.documentElement.lang`))
}

// getVersion and issues are here so that the rest reads without the protocol's packages.
var (
	getVersion = browser.GetVersion
	issues     = audits.IssueAdded
)

// blockedForm says whether the browser tells of a form that a policy stopped.
func blockedForm(e audits.EventIssueAdded) bool {
	csp := e.Issue.Details.ContentSecurityPolicyIssueDetails
	return csp != nil && csp.ViolatedDirective == "form-action"
}
