//go:build kubernetes

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/kubetest"
)

// road is the way to the cluster: a proxy on loopback that a test can do something on.
type road struct {
	*httptest.Server
	config json.RawMessage

	mu     sync.Mutex // owns what follows
	meddle func(w http.ResponseWriter, r *http.Request, pass func())
}

func (w *world) road(t *testing.T) *road {
	t.Helper()
	to, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(w.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:    &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }} // who asked is gone
	out := &road{}
	out.Server = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		out.mu.Lock()
		meddle := out.meddle
		out.mu.Unlock()
		if meddle == nil {
			proxy.ServeHTTP(rw, r)
			return
		}
		meddle(rw, r, func() { proxy.ServeHTTP(rw, r) })
	}))
	t.Cleanup(out.Close)
	kubeconfig, err := os.ReadFile(w.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, authority := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "ca.crt")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: out.Certificate().Raw})
	text := strings.NewReplacer(w.URL, out.URL, w.CAFile, authority).Replace(string(kubeconfig))
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.WriteFile(authority, certificate,
		0o600)); err != nil {
		t.Fatal(err)
	}
	out.config = json.RawMessage(fmt.Sprintf(`{"kubeconfig": %q}`, file))
	return out
}

func (r *road) when(meddle func(w http.ResponseWriter, r *http.Request, pass func())) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meddle = meddle
}

func changes(r *http.Request) bool { return r.Method != http.MethodGet && !r.URL.Query().Has("dryRun") }

// run makes one call in a process of its own, which is killed at the given change, before it reaches the cluster or
// before the answer does. It reports whether the process got so far.
func (r *road) run(t *testing.T, call oneCall, kill int, before bool) bool {
	t.Helper()
	call.Config = r.config
	input, err := json.Marshal(call)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, asCall)
	cmd.Stdin = bytes.NewReader(input)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	var mu sync.Mutex // owns seen and killed
	seen, killed := 0, false
	r.when(func(w http.ResponseWriter, req *http.Request, pass func()) {
		mu.Lock()
		defer mu.Unlock()
		if changes(req) {
			seen++
		}
		if killed || changes(req) && seen == kill {
			if !killed && !before {
				answer := httptest.NewRecorder()
				r.forward(answer, req)
			}
			killed = true
			_ = cmd.Process.Kill() // it may be gone by now
			panic(http.ErrAbortHandler)
		}
		pass()
	})
	defer r.when(nil)
	err = cmd.Run()
	mu.Lock()
	defer mu.Unlock()
	if !killed && err != nil {
		t.Fatalf("%v: %s", err, &said)
	}
	return killed
}

// forward asks the cluster in place of a process that will not see the answer.
func (r *road) forward(w http.ResponseWriter, req *http.Request) {
	again := req.Clone(req.Context())
	again.RequestURI = ""
	u, err := url.Parse(r.URL)
	if err != nil {
		panic(err)
	}
	r.when(nil) // for this one, which comes by the same road
	again.URL.Scheme, again.URL.Host = u.Scheme, u.Host
	resp, err := r.Client().Do(again)
	if err != nil {
		panic(err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // to nobody
}

// Whatever change of a push or a removal a process dies at, what it leaves is never said to be ready, and the next call
// of another process puts it right.
func TestKilledAtEachChangeTheNextCallGoesOn(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("before it %t", before), func(t *testing.T) {
			t.Parallel()
			w, at := newWorld(t), target("web")
			road := w.road(t)
			r := w.runtime(t, "")
			var all []kubetest.Workload
			for _, kind := range []string{"Deployment", "StatefulSet"} {
				all = append(all, w.workload(kind, "web", at))
				w.Deploy(t, all[len(all)-1])
			}
			clean := fields(w.Do(t, http.MethodGet, all[0].Path(), nil))
			rollOut := func() {
				for _, of := range all {
					w.RollOut(t, of)
				}
			}
			again := func(p pushed) {
				t.Helper()
				if st, err := r.PushEnv(t.Context(), p.request()); err != nil || st.State == plugins.StateFailed {
					t.Fatalf("%+v %+v %v", st, st.Diagnostic, err)
				}
			}
			generation := int64(0)
			for step := 1; ; step++ { // the first push of a target, each time
				generation++
				first := pushed{App: appName, Target: at, Generation: generation, Fence: 1,
					Env: secretEnv(fmt.Sprint("first", step))}
				if !road.run(t, oneCall{Push: &first}, step, before) {
					if step != 5 { // the Secret made, the Secret filled, two workloads
						t.Errorf("a first push makes %d changes", step-1)
					}
					break
				}
				rollOut()
				if st, err := r.ObserveEnv(t.Context(), appName, at); err != nil || st.State == plugins.StateReady &&
					st.ServingGeneration != generation {
					t.Errorf("killed at change %d: %+v %v", step, st, err)
				}
				again(first)
				rollOut()
				mustObserve(t, r, at, plugins.StateReady)
				if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: appName, Target: at, Generation: generation,
					Fence: 1}); err != nil {
					t.Fatal(err)
				}
			}
			for step := 1; ; step++ {
				generation++
				next := pushed{App: appName, Target: at, Generation: generation, Fence: 1, Env: secretEnv(fmt.Sprint("next", step))}
				if step%2 == 0 {
					next.Env["MORE"] = "more"
				}
				if !road.run(t, oneCall{Push: &next}, step, before) {
					if step != 4 {
						t.Errorf("a push makes %d changes", step-1)
					}
					break
				}
				rollOut()
				st, err := r.ObserveEnv(t.Context(), appName, at)
				if err != nil || st.State == plugins.StateReady && st.ServingGeneration != st.AcceptedGeneration {
					t.Errorf("killed at change %d: %+v %v", step, st, err)
				}
				if step == 3 { // a newer one comes instead
					generation++
					next.Generation, next.Env = generation, secretEnv("newer")
				}
				again(next)
				rollOut()
				mustObserve(t, r, at, plugins.StateReady)
				for _, of := range all {
					if has := w.serving(t, of, "main"); !maps.Equal(has, next.Env) {
						t.Errorf("killed at change %d: %s has %v", step, of.Path(), slices.Sorted(maps.Keys(has)))
					}
				}
			}
			for step := 1; ; step++ {
				generation++
				mustPush(t, r, push(at, generation, secretEnv("again")), plugins.StateRolling)
				remove := plugins.RemoveRequest{App: appName, Target: at, Generation: generation, Fence: 1}
				more := road.run(t, oneCall{Remove: &remove}, step, before)
				if !more && step != 4 { // two workloads, the Secret
					t.Errorf("a removal makes %d changes", step-1)
				}
				if more {
					rollOut()
					if st, err := r.ObserveEnv(t.Context(), appName, at); err != nil || st.State == plugins.StateReady && step > 1 {
						t.Errorf("killed at change %d of a removal: %+v %v", step, st, err)
					}
					if err := r.RemoveEnv(t.Context(), remove); err != nil {
						t.Fatal(err)
					}
				}
				if w.Get(t, w.secretPath(at)) != nil {
					t.Error("the Secret is still there")
				}
				if is := fields(w.Do(t, http.MethodGet, all[0].Path(), nil)); !slices.Equal(is, clean) {
					t.Errorf("it was\n%s\nand is\n%s", strings.Join(clean, "\n"), strings.Join(is, "\n"))
				}
				if !more {
					break
				}
			}
		})
	}
}

// The cluster is away in all the ways in which it can be. None of them is a verdict about what was asked, and when it
// is back the same process goes on.
func TestClusterThatIsAwayIsAFault(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	of := w.workload("Deployment", "web", at)
	w.Deploy(t, of)
	road := w.road(t)
	r := configured(t, road.config)
	says := func(code int, reason string) func(http.ResponseWriter, *http.Request, func()) {
		return func(rw http.ResponseWriter, _ *http.Request, _ func()) {
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(code)
			_, _ = fmt.Fprintf(rw,
				`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"message":"it said so","code":%d}`, reason, code)
		}
	}
	hang := make(chan struct{})
	generation := int64(0)
	for _, c := range []struct {
		what, words string
		meddle      func(http.ResponseWriter, *http.Request, func())
		slow        bool // the client goes on trying, in each call
	}{
		{what: "500", words: "it said so", meddle: says(500, "InternalError")},
		{what: "429", words: "it said so", meddle: says(429, "TooManyRequests")},
		{what: "a token that has run out", words: "does not accept the credentials", meddle: says(401, "Unauthorized")},
		{what: "503 of something on the way", meddle: func(rw http.ResponseWriter, _ *http.Request, _ func()) {
			http.Error(rw, "<html>", http.StatusServiceUnavailable)
		}},
		{what: "a page in place of an answer", meddle: func(rw http.ResponseWriter, _ *http.Request, _ func()) {
			_, _ = io.WriteString(rw, "<html>sign in</html>") // whoever reads it may be gone
		}},
		{slow: true, what: "an outage after the first change", words: "EOF", meddle: outageAfterFirstChange()},
		{slow: true, what: "cut connections", words: "has not answered within 7s", meddle: cut},
		{slow: true, what: "no answer", words: "has not answered within 7s",
			meddle: func(_ http.ResponseWriter, r *http.Request, _ func()) {
				select {
				case <-hang:
				case <-r.Context().Done():
				}
			}},
	} {
		generation++
		req := push(at, generation, secretEnv("valuevalue"))
		road.when(c.meddle)
		began := time.Now()
		_, err := r.PushEnv(t.Context(), req)
		if !errors.Is(err, plugins.ErrUnavailable) || !strings.Contains(err.Error(), c.words) ||
			strings.Contains(err.Error(), "valuevalue") {
			t.Errorf("%s: %v", c.what, err)
		}
		if took := time.Since(began); took > requestLimit+10*time.Second {
			t.Errorf("%s: took %s", c.what, took)
		}
		if !c.slow {
			if _, err := r.ObserveEnv(t.Context(), appName, at); !errors.Is(err, plugins.ErrUnavailable) {
				t.Errorf("%s: observe: %v", c.what, err)
			}
			if _, err := r.ListTargets(t.Context(), ""); !errors.Is(err, plugins.ErrUnavailable) {
				t.Errorf("%s: list: %v", c.what, err)
			}
			if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: appName, Target: at, Generation: generation,
				Fence: 1}); !errors.Is(err, plugins.ErrUnavailable) {
				t.Errorf("%s: remove: %v", c.what, err)
			}
		}
		road.when(nil)
		mustPush(t, r, req, plugins.StateRolling)
		w.RollOut(t, of)
		mustObserve(t, r, at, plugins.StateReady)
	}
	close(hang)
}

func cut(http.ResponseWriter, *http.Request, func()) { panic(http.ErrAbortHandler) }

func outageAfterFirstChange() func(http.ResponseWriter, *http.Request, func()) {
	changed := false // requests of a push come one after the other
	return func(w http.ResponseWriter, r *http.Request, pass func()) {
		if changed {
			cut(w, r, pass)
		}
		changed = changes(r)
		pass()
	}
}

// A workload that goes in the middle of a push is not made anew, and its end is not taken for a lack of rights.
func TestWorkloadThatGoesIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	for _, dry := range []bool{true, false} {
		w, at := newWorld(t), target("web")
		of := w.workload("Deployment", "web", at)
		w.Deploy(t, of)
		road := w.road(t)
		r := configured(t, road.config)
		road.when(func(_ http.ResponseWriter, req *http.Request, pass func()) {
			if req.Method == http.MethodPatch && strings.Contains(req.URL.Path, "/deployments/") &&
				req.URL.Query().Has("dryRun") == dry {
				w.Do(t, http.MethodDelete, of.Path(), nil)
				road.when(nil)
			}
			pass()
		})
		st := mustPush(t, r, push(at, 1, secretEnv("one")), plugins.StateFailed)
		if !st.Diagnostic.Retryable || !strings.Contains(st.Diagnostic.Message, "has no Deployment") {
			t.Errorf("dry run %t: %+v", dry, st.Diagnostic)
		}
		if w.Get(t, of.Path()) != nil {
			t.Errorf("dry run %t: the workload is back", dry)
		}
	}
}

// What a policy of the cluster says no to is a failure of the push, in its words but without a value.
func TestRefusalOfTheClusterIsSaid(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	of := w.workload("Deployment", "web", at)
	w.Deploy(t, of)
	r := w.runtime(t, "")
	mustPush(t, r, push(at, 1, secretEnv("before")), plugins.StateRolling)
	w.RollOut(t, of)
	policies := "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
	w.Do(t, http.MethodPost, policies+"ies", map[string]any{"metadata": map[string]any{"name": w.namespace},
		"spec": map[string]any{
			"matchConstraints": map[string]any{
				"namespaceSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": w.namespace}},
				"resourceRules": []any{map[string]any{"apiGroups": []string{""}, "apiVersions": []string{"v1"},
					"operations": []string{"CREATE", "UPDATE"},
					"resources":  []string{"secrets"}}}},
			"validations": []any{map[string]any{"expression": "false", "reason": "Forbidden",
				"messageExpression": "'not here: ' + string(object.data.OAUTH_CLIENT_SECRET)"}}}})
	w.Do(t, http.MethodPost, policies+"ybindings", map[string]any{"metadata": map[string]any{"name": w.namespace},
		"spec": map[string]any{"policyName": w.namespace, "validationActions": []string{"Deny"}}})
	generation := int64(1)
	var st plugins.Status
	w.until(t, "the policy counts", func() bool {
		generation++
		var err error
		if st, err = r.PushEnv(t.Context(), push(at, generation, secretEnv("valuevalue"))); err != nil {
			t.Fatal(err)
		}
		w.RollOut(t, of)
		return st.State == plugins.StateFailed
	})
	if !st.Diagnostic.Retryable || !strings.Contains(st.Diagnostic.Message, "not here: [hidden]") ||
		strings.Contains(st.Diagnostic.Message, "value") {
		t.Errorf("%+v", st.Diagnostic)
	}
	if st.AcceptedGeneration != generation-1 || st.ServingGeneration != generation-1 {
		t.Errorf("%+v", st) // what was there serves
	}
}
