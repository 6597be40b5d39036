package runtimeworkers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/warifu/warifu/plugins"
)

// fakeCloudflare answers as the API's published shapes say, and refuses whatever
// they do not allow. It is no mock of ours: the driver reaches it over HTTP.
type fakeCloudflare struct {
	t         *testing.T
	server    *httptest.Server
	tokenFile string

	mu      sync.Mutex // owns what follows
	token   string
	scripts map[string]*fakeScript
	answers []fakeAnswer // given instead, the first first
	calls   []string     // METHOD path
}

type fakeScript struct {
	secrets  map[string]string
	tags     map[string]string // of the deployed version
	versions int               // uploaded
	deployed int
	refuse   string // a 400 for writes, with these words
}

type fakeAnswer struct {
	on         string // METHOD, empty for any
	status     int    // 0: the connection is cut
	code       int
	message    string
	retryAfter string
	after      bool // the request is carried out first
}

const fakeAccount = "023e105f4ecef8ad9ca31a8372d0c353"

func newFakeCloudflare(t *testing.T) *fakeCloudflare {
	t.Helper()
	f := &fakeCloudflare{t: t, token: "token-of-the-account", tokenFile: filepath.Join(t.TempDir(), "token"),
		scripts: map[string]*fakeScript{}}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	f.writeToken(f.token)
	f.deploy("app-web")
	return f
}

func (f *fakeCloudflare) writeToken(token string) {
	f.t.Helper()
	if err := os.WriteFile(f.tokenFile, []byte(token+"\n"), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// deploy uploads and deploys a version, as wrangler deploy does.
func (f *fakeCloudflare) deploy(script string) {
	f.change(script, func(s *fakeScript) { s.versions++; s.deployed = s.versions })
}

func (f *fakeCloudflare) change(script string, how func(*fakeScript)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.scripts[script] == nil {
		f.scripts[script] = &fakeScript{secrets: map[string]string{}}
	}
	how(f.scripts[script])
}

func (f *fakeCloudflare) look(script string) fakeScript {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := *f.scripts[script]
	s.secrets, s.tags = maps.Clone(s.secrets), maps.Clone(s.tags)
	return s
}

func (f *fakeCloudflare) answer(a ...fakeAnswer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers = append(f.answers, a...)
}

// onPatch is answer for writes; what reads before them is answered as ever.
func (f *fakeCloudflare) onPatch(answers ...fakeAnswer) {
	for _, a := range answers {
		a.on = http.MethodPatch
		f.answer(a)
	}
}

// asked gives how many calls of that method there were.
func (f *fakeCloudflare) asked(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(f.calls), func(call string) bool {
		return !strings.HasPrefix(call, method+" ")
	}))
}

func (f *fakeCloudflare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, r.Method+" "+r.URL.Path)
	if len(f.answers) > 0 && (f.answers[0].on == "" || f.answers[0].on == r.Method) {
		a := f.answers[0]
		f.answers = f.answers[1:]
		if a.after {
			f.serve(httptest.NewRecorder(), r)
		}
		if a.status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Retry-After", a.retryAfter)
		refuse(w, a.status, a.code, a.message)
		return
	}
	f.serve(w, r)
}

func (f *fakeCloudflare) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+f.token {
		refuse(w, http.StatusForbidden, 10000, "Authentication error")
		return
	}
	path, ours := strings.CutPrefix(r.URL.Path, "/client/v4/accounts/"+fakeAccount+"/workers/scripts/")
	name, resource, _ := strings.Cut(path, "/")
	script := f.scripts[name]
	switch {
	case !ours || r.URL.RawQuery != "":
		refuse(w, http.StatusNotFound, 7003, "Could not route to "+r.URL.Path)
	case script == nil:
		refuse(w, http.StatusNotFound, 10007, "This Worker does not exist on your account.")
	case r.Method == http.MethodGet && resource == "secrets":
		result := []map[string]string{}
		for name := range script.secrets {
			result = append(result, map[string]string{"name": name, "type": "secret_text"})
		}
		accept(w, result)
	case r.Method == http.MethodGet && resource == "deployments":
		accept(w, map[string]any{"deployments": []any{
			map[string]any{"id": "d-new", "strategy": "percentage", "source": "api", "versions": []any{
				map[string]any{"version_id": fmt.Sprintf("v-%d", script.deployed), "percentage": 100}}},
			map[string]any{"id": "d-old", "strategy": "percentage", "source": "wrangler", "versions": []any{
				map[string]any{"version_id": "v-0", "percentage": 100}}},
		}})
	case r.Method == http.MethodPatch && resource == "secrets-bulk":
		f.patch(w, r, script)
	default:
		refuse(w, http.StatusMethodNotAllowed, 10405, "Method not allowed")
	}
}

func (f *fakeCloudflare) patch(w http.ResponseWriter, r *http.Request, script *fakeScript) {
	var raw bytes.Buffer
	_, _ = raw.ReadFrom(r.Body)
	var body struct {
		Secrets     map[string]*json.RawMessage `json:"secrets"`
		VersionTags map[string]string           `json:"version_tags"`
	}
	decoder := json.NewDecoder(&raw)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&body)
	next := maps.Clone(script.secrets)
	switch {
	case r.Header.Get("Content-Type") != "application/merge-patch+json":
		refuse(w, http.StatusUnsupportedMediaType, 10001, "Content-Type must be application/merge-patch+json")
		return
	case err != nil || len(body.Secrets) == 0 || len(body.Secrets) > 100:
		refuse(w, http.StatusBadRequest, 10021, fmt.Sprintf("between 1 and 100 secrets: %v", err))
		return
	case script.versions != script.deployed:
		refuse(w, http.StatusBadRequest, 10215, "Secret edit failed. You attempted to modify a secret, but the latest "+
			"version of your Worker isn't currently deployed.")
		return
	case script.refuse != "":
		refuse(w, http.StatusBadRequest, 10021, script.refuse)
		return
	}
	for name, value := range body.Secrets {
		if value == nil {
			if _, there := next[name]; !there {
				refuse(w, http.StatusNotFound, 10056, "Binding name '"+name+"' not found.")
				return
			}
			delete(next, name)
			continue
		}
		var s struct {
			Name *string `json:"name"`
			Text *string `json:"text"`
			Type *string `json:"type"`
		}
		strict := json.NewDecoder(bytes.NewReader(*value))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&s); err != nil || s.Name == nil || *s.Name != name || s.Text == nil || s.Type == nil ||
			*s.Type != "secret_text" {
			refuse(w, http.StatusBadRequest, 10021, "secret "+name+" is not a secret")
			return
		}
		if len(*s.Text) > 5<<10 {
			refuse(w, http.StatusBadRequest, 10054, "Text binding '"+name+"' is larger than 5 kB")
			return
		}
		next[name] = *s.Text
	}
	script.secrets, script.tags = next, body.VersionTags
	script.versions++
	script.deployed = script.versions
	accept(w, map[string]any{})
}

func accept(w http.ResponseWriter, result any) {
	respond(w, http.StatusOK, map[string]any{"success": true, "errors": []any{}, "messages": []any{}, "result": result})
}

func refuse(w http.ResponseWriter, status, code int, message string) {
	respond(w, status, map[string]any{"success": false, "messages": []any{}, "result": nil,
		"errors": []any{map[string]any{"code": code, "message": message}}})
}

func respond(w http.ResponseWriter, status int, envelope map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(envelope) // the client is gone
}

// config is the driver's, for this fake.
func (f *fakeCloudflare) config() json.RawMessage {
	f.t.Helper()
	raw, err := json.Marshal(map[string]any{"driver": "cloudflare", "accountId": fakeAccount, "tokenFile": f.tokenFile,
		"api": f.server.URL + "/client/v4"})
	if err != nil {
		f.t.Fatal(err)
	}
	return raw
}

// driver makes a driver in this process that does not wait long for pending
// versions.
func (f *fakeCloudflare) driver(stateDir string) *cloudflare {
	f.t.Helper()
	r := &workersRuntime{}
	if err := r.Configure(f.t.Context(), f.config(), stateDir); err != nil {
		f.t.Fatal(err)
	}
	d := r.driver.(*cloudflare)
	f.t.Cleanup(d.close)
	d.pause = 1
	return d
}

var _ plugins.EnvRuntime = (*workersRuntime)(nil)
