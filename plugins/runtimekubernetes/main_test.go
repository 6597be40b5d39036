package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/kubetest"
)

// How the test binary is run, beside as itself.
const (
	asPlugin  = "serve"   // the plugin
	asCall    = "call"    // a process that makes one call and ends; see [oneCall]
	asHarness = "harness" // what warifu plugin verify is given as its harness: it asks the test, at the URL that follows
)

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == asPlugin:
		main()
	case len(os.Args) > 1 && os.Args[1] == asCall:
		orExit(call(context.Background()))
	case len(os.Args) > 2 && os.Args[1] == asHarness:
		orExit(ask(os.Args[2], os.Args[3:]))
	default:
		os.Exit(kubetest.Main(m))
	}
}

func orExit(err error) {
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ask(address string, args []string) error {
	resp, err := http.PostForm(address, url.Values{"arg": args})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	if resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	_, copied := io.Copy(os.Stdout, resp.Body)
	return errors.Join(err, copied)
}

// oneCall is what a process with the argument asCall reads from stdin: a push or a removal.
type oneCall struct {
	Config json.RawMessage
	Push   *pushed
	Remove *plugins.RemoveRequest
}

// pushed is a PushRequest, which by itself never shows its values.
type pushed struct {
	App               string
	Target            plugins.Target
	Generation, Fence int64
	Env               map[string]string
}

func (p pushed) request() plugins.PushRequest {
	return plugins.PushRequest{App: p.App, Target: p.Target, Generation: p.Generation, Fence: p.Fence, Env: p.Env,
		Digest: plugins.Digest([]byte("key"), p.Env)}
}

func call(ctx context.Context) error {
	var c oneCall
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		return err
	}
	r := &runtime{}
	if err := r.Configure(ctx, c.Config, ""); err != nil {
		return err
	}
	if c.Remove != nil {
		return r.RemoveEnv(ctx, *c.Remove)
	}
	st, err := r.PushEnv(ctx, c.Push.request())
	if err == nil && st.State == plugins.StateFailed {
		err = errors.New(st.Diagnostic.Message)
	}
	return err
}
