package manifests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/hookoauth"
	"github.com/warifu/warifu/plugins/runtimefile"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// The test binary is every plugin of these tests, as the warifu binary is the built-in ones.
const asPlugin = "plugin-under-test"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == asPlugin {
		switch os.Args[2] {
		case "oauth":
			hookoauth.Serve()
		case "file":
			runtimefile.Serve()
		case "amending":
			plugins.ServeHook(&amending{})
		case "remote":
			plugins.ServeRuntime(&remoteControlled{})
		}
		// Its work is done. An orderly exit would take a second under the race detector, which waits for stragglers.
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			_ = self.Kill()
		}
		return
	}
	code := storagetest.Main(m)
	if shared.host != nil {
		_ = shared.host.Close()
	}
	os.Exit(code)
}

// shared is the host of the deploy hook, which has no state and so serves all tests.
var shared struct {
	once sync.Once
	host *plugins.Host
	hook *plugins.Hook
	err  error
}

func oauthHook(t testing.TB) *plugins.Hook {
	t.Helper()
	shared.once.Do(func() {
		shared.host, shared.err = plugins.NewHost(plugins.HostOptions{Logger: slog.New(slog.DiscardHandler)})
		if shared.err == nil {
			shared.hook, shared.err = shared.host.Hook(spec("oauth", nil))
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.hook
}

func spec(role string, config any) plugins.Spec {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	if config == nil {
		raw = nil
	}
	return plugins.Spec{Name: role, Path: self, Args: []string{asPlugin, role}, Config: raw}
}

// rig is a store with what a Deployer needs around it.
type rig struct {
	t     testing.TB
	etcd  *storagetest.Etcd
	store *storage.Store
	host  *plugins.Host
	log   *logBuffer
	opts  DeployerOptions
	dir   string // of the runtime file
}

// newRig has the hook oauth and no runtime; quick waits, but a reconciliation that no test reaches unless it asks for
// it.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, etcd: storagetest.New(t), log: &logBuffer{}, dir: t.TempDir()}
	r.store = r.etcd.Store()
	logger := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	host, err := plugins.NewHost(plugins.HostOptions{Logger: logger,
		Backoff: plugins.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	r.host = host
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
		for _, secret := range r.secretsSeen() {
			if strings.Contains(r.log.String(), secret) {
				t.Error("the log holds a client secret")
			}
		}
	})
	r.opts = DeployerOptions{
		Store: r.store, Hooks: []Hook{oauthHook(t)}, Issuer: "https://issuer.example.com",
		Parsing: Options{Scopes: catalogue}, Logger: logger,
		Pace: Pace{
			RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond,
			RollMin: time.Millisecond, RollMax: 10 * time.Millisecond, Reconcile: time.Hour,
		},
	}
	return r
}

// withFiles adds the runtime file.
func (r *rig) withFiles() *rig {
	r.t.Helper()
	s := spec("file", map[string]string{"dir": r.dir})
	s.StateDir = r.t.TempDir()
	rt, err := r.host.Runtime(s)
	if err != nil {
		r.t.Fatal(err)
	}
	r.opts.Runtimes = append(r.opts.Runtimes, rt)
	return r
}

func (r *rig) deployer(change ...func(*DeployerOptions)) *Deployer {
	opts := r.opts
	for _, c := range change {
		c(&opts)
	}
	return New(opts)
}

// run runs a deployer until the test ends, or stop is called.
func (r *rig) run(d *Deployer) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("run: %v", err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) view(app string) storage.AppView {
	r.t.Helper()
	view, err := r.store.App(context.Background(), app)
	if err != nil {
		r.t.Fatal(err)
	}
	return view
}

func (r *rig) secret(app string) string {
	r.t.Helper()
	value, err := r.store.ClientSecretValue(r.view(app).Client)
	if err != nil {
		r.t.Fatal(err)
	}
	return value
}

func (r *rig) secretsSeen() []string {
	clients, err := r.store.Clients(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	var secrets []string
	for _, c := range clients {
		if values, err := r.store.SecretValues(c); err == nil {
			secrets = append(secrets, values...)
		}
	}
	return secrets
}

// await waits until the deliveries of an app are as wanted. It looks whenever one of them changes.
func (r *rig) await(app, what string, wanted func([]*storage.Delivery) bool) []*storage.Delivery {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	changed := r.store.WatchDeliveries(ctx)
	for {
		select {
		case <-ctx.Done():
			for _, x := range r.view(app).Deliveries {
				r.t.Logf("%s: %s, generation %d, error %q", x.Target, x.State, x.Generation, x.Error)
			}
			r.t.Fatalf("waited in vain until %s\n%s", what, r.log)
		case <-changed:
		}
		if list := r.view(app).Deliveries; wanted(list) {
			return list
		}
	}
}

// awaitGone waits until an app is not in the store any more.
func (r *rig) awaitGone(app string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for range r.etcd.Client.Watch(ctx, r.etcd.Prefix+"apps/", clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
		if view, err := r.store.App(ctx, app); err == nil && view.App == nil {
			return
		}
	}
	r.t.Fatalf("waited in vain for the end of %s\n%s", app, r.log)
}

func all(state string) func([]*storage.Delivery) bool {
	return func(list []*storage.Delivery) bool {
		return len(list) > 0 && !slices.ContainsFunc(list, func(x *storage.Delivery) bool { return x.State != state })
	}
}

func none(list []*storage.Delivery) bool { return len(list) == 0 }

func (r *rig) awaitReady(app string) []*storage.Delivery {
	r.t.Helper()
	return r.await(app, "everything is ready", all(storage.DeliveryReady))
}

// plan plans one manifest.
func (r *rig) plan(d *Deployer, manifest string) *Plan {
	r.t.Helper()
	plans, err := d.Plan(context.Background(), documents(r.t, manifest))
	if err != nil {
		r.t.Fatal(err)
	}
	return plans[0]
}

func (r *rig) apply(d *Deployer, manifest string) *Plan {
	r.t.Helper()
	p := r.plan(d, manifest)
	if err := d.Apply(context.Background(), p); err != nil {
		r.t.Fatal(err)
	}
	return p
}

func documents(t testing.TB, manifest string) []*Document {
	t.Helper()
	docs, faults := Parse("app.yml", []byte(manifest), Options{Scopes: catalogue})
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	return docs
}

// appYML is a manifest with one worker and one container; change replaces parts of it.
func appYML(app string, change ...string) string {
	text := fmt.Sprintf(`apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: %s}
spec:
  version: 1.0.0
  oauth:
    clientName: My App
    redirectUris: [https://app.example.com/callback]
    scopes: [threads:read, runs:write]
    autoEnv: true
  workers: {web: {}}
  containers: {api: {}}
`, app)
	return strings.NewReplacer(change...).Replace(text)
}

func (r *rig) envFile(app, kind, name string) string {
	return filepath.Join(r.dir, app, kind+"-"+name+".env")
}

// env reads an env file of the runtime file.
func (r *rig) env(app, kind, name string) map[string]string {
	r.t.Helper()
	data, err := os.ReadFile(r.envFile(app, kind, name))
	if err != nil {
		r.t.Fatal(err)
	}
	env := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^([A-Z_]+)=["']?([^"'\n]*)["']?$`).FindAllStringSubmatch(string(data), -1) {
		env[m[1]] = m[2]
	}
	return env
}

// grant gives a client's grant to a user.
func (r *rig) grant(clientID string, scopes ...string) storage.Grant {
	r.t.Helper()
	ctx := context.Background()
	user, err := r.store.PutUser(ctx, storage.User{ID: "user-" + storage.NewGrantID()[:6], Connector: "local"})
	if err != nil {
		r.t.Fatal(err)
	}
	client, err := r.store.Client(ctx, clientID)
	if err != nil {
		r.t.Fatal(err)
	}
	g := storage.Grant{ID: storage.NewGrantID(), ClientID: clientID, UserID: user.ID, Scopes: scopes,
		CreatedAt: time.Now(), ExpiresAt: time.Now().Add(1000 * time.Hour)}
	if _, err := r.store.CreateGrant(ctx, g, g.ExpiresAt, storage.Revisions{Client: client.Revision,
		User: user.Revision}); err != nil {
		r.t.Fatal(err)
	}
	return g
}

// logBuffer is a log that goroutines may share.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// amending is a deploy hook that changes the answer of the one before as its config says.
type amending struct {
	Client map[string]any      `json:"client"` // fields to set in the registration
	Env    []plugins.TargetEnv `json:"env"`    // targets to add
	Deny   *plugins.Notice     `json:"deny"`
	Drop   bool                `json:"drop"` // want no client
}

func (*amending) Describe() plugins.Description {
	return plugins.Description{Name: "amending", Version: "1"}
}

func (a *amending) Configure(_ context.Context, config json.RawMessage) error {
	return json.Unmarshal(config, a)
}

func (a *amending) Evaluate(_ context.Context, req plugins.EvaluateRequest) (plugins.Answer, error) {
	answer := *req.Previous
	answer.Warnings, answer.Denials = []plugins.Notice{{Code: "amended", Message: "amended"}}, nil
	change, err := json.Marshal(a.Client)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(change, answer.Client); err != nil {
		return answer, err
	}
	answer.Targets = append(answer.Targets, a.Env...)
	if a.Deny != nil {
		answer.Denials = []plugins.Notice{*a.Deny}
	}
	if a.Drop {
		answer.Client, answer.Targets = nil, nil
	}
	return answer, nil
}

// withAmending adds a second hook to the chain.
func (r *rig) withAmending(config amending) *rig {
	r.t.Helper()
	hook, err := r.host.Hook(spec("amending", config))
	if err != nil {
		r.t.Fatal(err)
	}
	r.opts.Hooks = append(slices.Clone(r.opts.Hooks), hook)
	return r
}
