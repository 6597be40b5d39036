package runtimecontainers

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// fakeEngine answers the few endpoints of the Docker Engine API 1.41 that the
// runtime uses, and fails the test at any other. It stands for the faults that a
// real engine cannot be made to have; what a real one does is tested with podman.
type fakeEngine struct {
	t      *testing.T
	host   string
	server *httptest.Server

	mu     sync.Mutex // guards the rest
	all    map[string]*container.InspectResponse
	images map[string]string // name to id
	labels map[string]string // of every image
	made   int
	did    []string // "create web-g1", "stop web": the calls that change something
	faults map[string]faultFunc
	health container.HealthStatus // of containers with a health check
}

// faultFunc may answer in the engine's place; it returns false to let the engine
// answer.
type faultFunc func(w http.ResponseWriter, r *http.Request) bool

const fakeImage = "registry.example/app:1"

// goneImage is the id of an image that the engine no longer has.
const goneImage = "sha256:9999"

func newEngine(t *testing.T) *fakeEngine {
	t.Helper()
	e := &fakeEngine{t: t, all: map[string]*container.InspectResponse{},
		images: map[string]string{fakeImage: "sha256:1111"},
		faults: map[string]faultFunc{}, health: container.Starting}
	socket := filepath.Join(t.TempDir(), "e.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	e.host = "unix://" + socket
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request){
		"GET /v1.41/containers/json": e.list, "GET /v1.41/containers/{id}/json": e.inspect,
		"POST /v1.41/containers/create": e.create, "POST /v1.41/containers/{id}/start": e.start,
		"POST /v1.41/containers/{id}/stop": e.stop, "DELETE /v1.41/containers/{id}": e.remove,
		"GET /v1.41/images/{name...}": e.image, "POST /v1.41/networks/{name}/connect": e.connect,
	} {
		op := pattern[strings.LastIndex(pattern, "/")+1:]
		switch {
		case strings.HasPrefix(pattern, "DELETE"):
			op = "remove"
		case strings.HasSuffix(pattern, "containers/json"):
			op = "list"
		case op == "json":
			op = "inspect"
		case op == "{name...}":
			op = "image"
		}
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			e.mu.Lock()
			fault := e.faults[op]
			e.mu.Unlock()
			if fault != nil && fault(w, r) {
				return
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			serve(w, r)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the engine was asked %s %s", r.Method, r.URL.Path)
		refuse(w, http.StatusNotFound, "page not found")
	})
	e.server = httptest.NewUnstartedServer(mux)
	e.server.Listener = listener
	e.server.Start()
	t.Cleanup(e.server.Close)
	return e
}

// on sets a fault; nil takes it away.
func (e *fakeEngine) on(op string, fault faultFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults[op] = fault
}

// failing is a fault that answers with an error.
func failing(status int, message string) faultFunc {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		refuse(w, status, message)
		return true
	}
}

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"message": message})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body) // a caller that has gone away
	}
}

// add puts a container there, as its owner would.
func (e *fakeEngine) add(name string, state container.ContainerState,
	change ...func(*container.InspectResponse)) *container.InspectResponse {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.make(name, &container.Config{Image: fakeImage, Env: []string{"PATH=/bin", "OWN=kept"}, Cmd: []string{"/app"},
		Labels: map[string]string{labelApp: "app", labelContainer: "web"}}, &container.HostConfig{NetworkMode: "bridge"}, nil)
	setState(c, state)
	for _, change := range change {
		change(c)
	}
	return c
}

func (e *fakeEngine) make(name string, config *container.Config, host *container.HostConfig,
	networks *network.NetworkingConfig) *container.InspectResponse {
	e.made++
	c := &container.InspectResponse{ID: fmt.Sprintf("%064d", e.made), Name: "/" + name, Config: config, HostConfig: host,
		Image:           e.images[config.Image],
		NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{}}}
	if c.Image == "" {
		c.Image = config.Image
	}
	if networks != nil {
		maps.Copy(c.NetworkSettings.Networks, networks.EndpointsConfig)
	}
	setState(c, container.StateCreated)
	e.all[c.ID] = c
	return c
}

func setState(c *container.InspectResponse, state container.ContainerState) {
	c.State = &container.State{Status: state, Running: state == container.StateRunning || state == container.StatePaused,
		Paused: state == container.StatePaused, Restarting: state == container.StateRestarting}
}

func (e *fakeEngine) list(w http.ResponseWriter, r *http.Request) {
	filters := map[string]map[string]bool{}
	if text := r.URL.Query().Get("filters"); text != "" {
		if err := json.Unmarshal([]byte(text), &filters); err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	out := []container.Summary{}
	for _, c := range e.all {
		if hasLabels(c.Config.Labels, slices.Collect(maps.Keys(filters["label"]))) &&
			(c.State.Running || r.URL.Query().Get("all") == "1") {
			s := container.Summary{ID: c.ID, Names: []string{c.Name}, Labels: c.Config.Labels, State: c.State.Status}
			s.HostConfig.NetworkMode = string(c.HostConfig.NetworkMode)
			out = append(out, s)
		}
	}
	answer(w, http.StatusOK, out)
}

// one finds the container of a request, or says that there is none.
func (e *fakeEngine) one(w http.ResponseWriter, r *http.Request) *container.InspectResponse {
	c := e.all[r.PathValue("id")]
	if c == nil {
		refuse(w, http.StatusNotFound, "No such container: "+r.PathValue("id"))
	}
	return c
}

func (e *fakeEngine) inspect(w http.ResponseWriter, r *http.Request) {
	if c := e.one(w, r); c != nil {
		if c.Config.Healthcheck != nil && c.State.Running {
			c.State.Health = &container.Health{Status: e.health}
		}
		answer(w, http.StatusOK, c)
	}
}

var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

func (e *fakeEngine) create(w http.ResponseWriter, r *http.Request) {
	var req container.CreateRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	name := r.URL.Query().Get("name")
	for _, c := range e.all {
		if c.Name == "/"+name {
			refuse(w, http.StatusConflict, "Conflict. The container name is already in use")
			return
		}
	}
	_, known := e.images[req.Image]
	switch {
	case !known && !slices.Contains(slices.Collect(maps.Values(e.images)), req.Image):
		refuse(w, http.StatusNotFound, "No such image: "+req.Image)
		return
	case !containerName.MatchString(name):
		refuse(w, http.StatusBadRequest, "Invalid container name")
		return
	case req.NetworkingConfig != nil && len(req.NetworkingConfig.EndpointsConfig) > 1:
		refuse(w, http.StatusBadRequest, "Container cannot be connected to network endpoints")
		return
	case req.Hostname != "" && req.HostConfig.NetworkMode.IsContainer():
		refuse(w, http.StatusBadRequest, "conflicting options: hostname and the network mode")
		return
	}
	for label, value := range req.Labels {
		if strings.Contains(value, credentials["OAUTH_CLIENT_SECRET"]) {
			e.t.Errorf("label %s holds a secret", label)
		}
	}
	merged := maps.Clone(e.labels)
	if merged == nil {
		merged = map[string]string{}
	}
	maps.Copy(merged, req.Labels)
	req.Labels = merged
	e.did = append(e.did, "create "+name)
	c := e.make(name, req.Config, req.HostConfig, req.NetworkingConfig)
	answer(w, http.StatusCreated, container.CreateResponse{ID: c.ID})
}

func (e *fakeEngine) start(w http.ResponseWriter, r *http.Request) {
	c := e.one(w, r)
	if c == nil {
		return
	}
	for _, other := range e.all {
		if other.State.Running && other != c && len(c.HostConfig.PortBindings) > 0 &&
			maps.EqualFunc(other.HostConfig.PortBindings, c.HostConfig.PortBindings, slices.Equal) {
			refuse(w, http.StatusInternalServerError, "port is already allocated")
			return
		}
	}
	e.did = append(e.did, "start "+nameOf(c))
	setState(c, container.StateRunning)
	if slices.Contains(c.Config.Env, "BROKEN=yes") {
		setState(c, container.StateExited)
		c.State.ExitCode = 3
	}
	w.WriteHeader(http.StatusNoContent)
}

func (e *fakeEngine) stop(w http.ResponseWriter, r *http.Request) {
	if c := e.one(w, r); c != nil {
		e.did = append(e.did, "stop "+nameOf(c))
		if c.State.Running {
			setState(c, container.StateExited)
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func (e *fakeEngine) remove(w http.ResponseWriter, r *http.Request) {
	if c := e.one(w, r); c != nil {
		e.did = append(e.did, "remove "+nameOf(c))
		if r.URL.Query().Get("v") != "" {
			e.t.Error("volumes were removed with a container")
		}
		delete(e.all, c.ID)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (e *fakeEngine) image(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSuffix(r.PathValue("name"), "/json")
	id := e.images[name]
	if strings.HasPrefix(name, "sha256:") && name != goneImage {
		id = name
	}
	if id != "" {
		answer(w, http.StatusOK, map[string]any{"Id": id, "Config": map[string]any{"Entrypoint": []string{"/entry point"},
			"Labels": e.labels}})
		return
	}
	refuse(w, http.StatusNotFound, "No such image: "+name)
}

func (e *fakeEngine) connect(w http.ResponseWriter, r *http.Request) {
	var req network.ConnectRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if c := e.all[req.Container]; c != nil {
		c.NetworkSettings.Networks[r.PathValue("name")] = req.EndpointConfig
		w.WriteHeader(http.StatusOK)
		return
	}
	refuse(w, http.StatusNotFound, "No such container")
}

// has describes the containers, "web-g1 running", by name.
func (e *fakeEngine) has() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, c := range e.all {
		out = append(out, nameOf(c)+" "+string(c.State.Status))
	}
	slices.Sort(out)
	return out
}

// named gives a container as it is now.
func (e *fakeEngine) named(name string) container.InspectResponse {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.all {
		if nameOf(c) == name {
			return *c
		}
	}
	e.t.Fatalf("there is no container %s", name)
	return container.InspectResponse{}
}

// changed gives the calls that changed something, and forgets them.
func (e *fakeEngine) changed() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	did := e.did
	e.did = nil
	return did
}
