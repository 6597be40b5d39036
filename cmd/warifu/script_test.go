package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/warifu/warifu/plugins"
)

// The test binary is the program, its built-in plugins, and somebody else's runtime. Where $WARIFU_BINARY says that
// there is the program itself, processes are that, which has no race detector and takes a fifth of the time; what runs
// inside the tests has it.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "plugin" && os.Args[2] == "serve" { // as an instance inside a test runs it
		main()
		return
	}
	commands := map[string]func(){
		"warifu":          main,
		"warifu-runtime":  func() { plugins.ServeRuntime(&holding{}) },
		"warifu-etcd":     serveEtcd,
		"warifu-denial":   func() { plugins.ServeHook(denial{}) },
		"warifu-nonsense": func() { fmt.Println("this is no plugin") },
	}
	if binary := os.Getenv("WARIFU_BINARY"); binary != "" {
		delete(commands, "warifu")
		_ = os.Setenv("PATH", filepath.Dir(binary)+string(filepath.ListSeparator)+os.Getenv("PATH")) // a name that can be set
		ourselves = func() (string, error) { return binary, nil }
	}
	testscript.Main(m, commands)
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			bin, err := exec.LookPath("warifu-runtime")
			if err != nil {
				return err
			}
			program, err := exec.LookPath("warifu")
			if err != nil {
				return err
			}
			example, err := os.ReadFile("testdata/app.yml")
			if err != nil {
				return err
			}
			env.Setenv("BIN", filepath.Dir(bin))
			env.Setenv("WARIFU", program)
			env.Setenv("TERM", "dumb")
			p := &processes{running: make(map[string]*process)}
			env.Values["processes"] = p
			env.Defer(p.killAll)
			// The full example of the manifest, in every script's directory.
			return os.WriteFile(filepath.Join(env.WorkDir, "app.yml"), example, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "start": start, "end": end, "done": done, "says": says, "writes": writes, "freeport": freePort,
			"field": fieldOf, "copysub": copySub, "sha256": sha256Of, "manyapps": manyApps,
			"hinted": hinted,
		},
	})
}

// exits CODE PROGRAM ARG...: the program ends with the code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// hinted VAR: the variable becomes the id of the request that the stderr of the last command says how to explain.
func hinted(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hinted VAR")
	}
	said := ts.ReadFile("stderr")
	found := regexp.MustCompile(`(?m)^warifu explain ([0-9a-f]{16}) says more\.$`).FindStringSubmatch(said)
	if found == nil {
		ts.Fatalf("no hint in: %s", said)
	}
	ts.Setenv(args[0], found[1])
}

// processes are those that a script has started and that run on.
type processes struct {
	mu      sync.Mutex // guards running: a script may be interrupted
	running map[string]*process
}

func (p *processes) killAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.running {
		_ = one.cmd.Process.Kill()
		<-one.ended
	}
}

// process is a server.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once err is there
	err   error
	out   *lines
	said  *lines
}

// lines keeps what a process writes and lets others wait for it.
type lines struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced at every write
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until the text matches, and fails when it never will.
func (l *lines) await(ctx context.Context, ended <-chan struct{}, want *regexp.Regexp) (string, error) {
	for {
		l.mu.Lock()
		text, changed := l.text.String(), l.changed
		l.mu.Unlock()
		if found := want.FindString(text); found != "" {
			return found, nil
		}
		select {
		case <-changed:
		case <-ended:
			if found := want.FindString(l.String()); found != "" {
				return found, nil
			}
			return "", errors.New("the process has ended")
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// patience bounds every wait of a script; nothing that works comes near it.
const patience = time.Minute

// start NAME OUT|ERR REGEXP PROGRAM ARG...: the program runs on, once its stdout or stderr matches. A line of JSON that
// `dev` prints becomes variables: $ISSUER, $ADMIN, $EMAIL, $PASSWORD, $CLIENT and $ENVFILE.
func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: start NAME OUT|ERR REGEXP PROGRAM ARG...")
	}
	cmd := exec.Command(args[3], args[4:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	if slices.Contains(args, "serve") {
		cmd.Env = append(cmd.Env, "WARIFU_WEB_DRAIN_DELAY=0s")
	}
	for _, name := range []string{"WARIFU_LOGGER_LEVEL", "HOLD"} {
		if value := ts.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	p := &process{cmd: cmd, ended: make(chan struct{}), out: newLines(), said: newLines()}
	cmd.Stdout, cmd.Stderr = p.out, p.said
	ts.Check(cmd.Start())
	go func() { // ends with the process
		p.err = cmd.Wait()
		close(p.ended)
	}()
	all := ts.Value("processes").(*processes)
	all.mu.Lock()
	all.running[args[0]] = p
	all.mu.Unlock()
	stream := p.out
	if args[1] == "ERR" {
		stream = p.said
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	line, err := stream.await(ctx, p.ended, regexp.MustCompile(args[2]))
	if err != nil {
		ts.Fatalf("%s: %v\nstdout: %s\nstderr: %s", args[0], err, p.out, p.said)
	}
	var ready readyLine
	if json.Unmarshal([]byte(line), &ready) != nil {
		return
	}
	ts.Setenv("ISSUER", ready.Issuer)
	ts.Setenv("ADMIN", ready.Admin)
	ts.Setenv("WARIFU_ADMIN", ready.Admin)
	ts.Setenv("EMAIL", ready.User.Email)
	ts.Setenv("PASSWORD", ready.User.Password)
	if len(ready.Apps) > 0 {
		ts.Setenv("CLIENT", ready.Apps[0].ClientID)
		if len(ready.Apps[0].Targets) > 0 {
			ts.Setenv("ENVFILE", ready.Apps[0].Targets[0].Env)
		}
	}
}

func processNamed(ts *testscript.TestScript, name string) *process {
	all := ts.Value("processes").(*processes)
	all.mu.Lock()
	defer all.mu.Unlock()
	p := all.running[name]
	if p == nil {
		ts.Fatalf("no process %s was started", name)
	}
	return p
}

// end NAME INT|TERM|KILL: the process ends by the signal; with INT and TERM its exit code must be 0.
func end(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: end NAME INT|TERM|KILL")
	}
	p := processNamed(ts, args[0])
	signal := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}[args[1]]
	ts.Check(p.cmd.Process.Signal(signal))
	select {
	case <-p.ended:
	case <-time.After(patience):
		ts.Fatalf("%s does not end\nstderr: %s", args[0], p.said)
	}
	if p.err != nil && signal != syscall.SIGKILL {
		ts.Fatalf("%s ended with %v\nstderr: %s", args[0], p.err, p.said)
	}
}

// done NAME: the process ends by itself, with the exit code 0.
func done(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: done NAME")
	}
	p := processNamed(ts, args[0])
	select {
	case <-p.ended:
	case <-time.After(patience):
		ts.Fatalf("%s does not end\nstderr: %s", args[0], p.said)
	}
	if p.err != nil {
		ts.Fatalf("%s ended with %v\nstderr: %s", args[0], p.err, p.said)
	}
}

// says NAME REGEXP: what the process has written on stderr matches, now or soon. With !, nothing that was written so
// far does.
func says(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] says NAME REGEXP")
	}
	p, want := processNamed(ts, args[0]), regexp.MustCompile(args[1])
	if neg {
		if found := want.FindString(p.said.String() + p.out.String()); found != "" {
			ts.Fatalf("%s says %q", args[0], found)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := p.said.await(ctx, p.ended, want); err != nil {
		ts.Fatalf("%s does not say %q: %v\nstderr: %s", args[0], args[1], err, p.said)
	}
}

// writes NAME REGEXP: what the process has written on stdout matches, now or soon. With !, nothing that was written so
// far does.
func writes(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] writes NAME REGEXP")
	}
	p := processNamed(ts, args[0])
	if neg {
		if found := regexp.MustCompile(args[1]).FindString(p.out.String()); found != "" {
			ts.Fatalf("%s writes %q", args[0], found)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := p.out.await(ctx, p.ended, regexp.MustCompile(args[1])); err != nil {
		ts.Fatalf("%s does not write %q: %v\nstdout: %s\nstderr: %s", args[0], args[1], err, p.out, p.said)
	}
}

// freeport VARIABLE: a port that nobody uses now.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	ts.Check(listener.Close())
}

// field VARIABLE PATH: the value at the path of the JSON that was printed last; a number in the path is an index.
func fieldOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: field VARIABLE PATH")
	}
	var value any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &value))
	for step := range strings.SplitSeq(args[1], ".") {
		switch in := value.(type) {
		case map[string]any:
			value = in[step]
		case []any:
			n, err := strconv.Atoi(step)
			if err != nil || n >= len(in) {
				ts.Fatalf("no %s in a list of %d", step, len(in))
			}
			value = in[n]
		}
	}
	if value == nil {
		ts.Fatalf("there is no %s", args[1])
	}
	ts.Setenv(args[0], fmt.Sprint(value))
}

// copysub FROM TO [OLD NEW]...: copies a file with texts replaced; it comes to TO in one step, as editors do it.
func copySub(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args)%2 != 0 {
		ts.Fatalf("usage: copysub FROM TO [OLD NEW]...")
	}
	text := ts.ReadFile(args[0])
	for i := 2; i < len(args); i += 2 {
		if !strings.Contains(text, args[i]) {
			ts.Fatalf("%s does not hold %q", args[0], args[i])
		}
		text = strings.ReplaceAll(text, args[i], args[i+1])
	}
	to := ts.MkAbs(args[1])
	ts.Check(os.WriteFile(to+".new", []byte(text), 0o600))
	ts.Check(os.Rename(to+".new", to))
}

// sha256 VARIABLE FILE: the checksum of a file.
func sha256Of(ts *testscript.TestScript, neg bool, args []string) {
	out, err := exec.Command("sha256sum", ts.MkAbs(args[1])).Output()
	ts.Check(err)
	sum, _, _ := bufio.NewReader(bytes.NewReader(out)).ReadLine()
	ts.Setenv(args[0], strings.Fields(string(sum))[0])
}

// holding is a runtime that does not answer a push while a file is there, and otherwise keeps env in a file.
type holding struct {
	Hold, Dir string
}

func (h *holding) Describe() plugins.Description {
	return plugins.Description{Name: "holding", Version: "1.0.0"}
}

func (h *holding) Configure(_ context.Context, config json.RawMessage, _ string) error {
	return json.Unmarshal(config, h)
}

func (h *holding) file(app string, t plugins.Target) string {
	return filepath.Join(h.Dir, app+"-"+t.Kind+"-"+t.Name+".json")
}

func (h *holding) PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error) {
	if exists(h.Hold) {
		fmt.Fprintln(os.Stderr, "the push is held")
		<-ctx.Done()
		return plugins.Status{}, ctx.Err()
	}
	status := plugins.Status{
		State: plugins.StateReady, AcceptedGeneration: req.Generation, ServingGeneration: req.Generation,
		Digest: req.Digest, Present: true, Location: h.file(req.App, req.Target),
	}
	text, err := json.Marshal(map[string]any{"status": status, "env": req.Env})
	if err != nil {
		return plugins.Status{}, err
	}
	return status, os.WriteFile(status.Location, text, 0o600)
}

func (h *holding) ObserveEnv(_ context.Context, app string, t plugins.Target) (plugins.Status, error) {
	text, err := os.ReadFile(h.file(app, t))
	if errors.Is(err, os.ErrNotExist) {
		return plugins.Status{State: plugins.StateReady}, nil
	}
	var held struct{ Status plugins.Status }
	return held.Status, errors.Join(err, json.Unmarshal(text, &held))
}

func (h *holding) RemoveEnv(_ context.Context, req plugins.RemoveRequest) error {
	if err := os.Remove(h.file(req.App, req.Target)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (h *holding) ListTargets(context.Context, string) ([]plugins.AppTarget, error) { return nil, nil }

// denial is a deploy hook that refuses everything.
type denial struct{}

func (denial) Describe() plugins.Description {
	return plugins.Description{Name: "denial", Version: "1.0.0"}
}

func (denial) Configure(context.Context, json.RawMessage) error { return nil }

func (denial) Evaluate(_ context.Context, req plugins.EvaluateRequest) (plugins.Answer, error) {
	return plugins.Answer{Denials: []plugins.Notice{{
		Code: "closed", Path: "spec.version", Message: "there are no deployments on Fridays", Remedy: "come back on Monday",
	}}}, nil
}

// serveEtcd is the program warifu-etcd PORT: an etcd on the directory ./etcd that speaks TLS with ./cert.pem and
// ./key.pem.
func serveEtcd() {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	client, err := url.Parse("https://127.0.0.1:" + os.Args[1])
	if err != nil {
		fail(err)
	}
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = "etcd", "error"
	cfg.ListenPeerUrls = nil
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = "cert.pem", "key.pem"
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		fail(err)
	}
	<-etcd.Server.ReadyNotify()
	fmt.Println("etcd is ready")
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	<-ended
	etcd.Close()
}

// manyapps DIR N: a directory of N manifests, app-0001.yml and so on.
func manyApps(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	for i := range n {
		name := fmt.Sprintf("app-%04d", i+1)
		ts.Check(os.WriteFile(filepath.Join(dir, name+".yml"), []byte(`apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: `+name+`}
spec:
  version: 1.0.0
  oauth: {clientName: Many, redirectUris: [https://app.example.com/cb], scopes: [threads:read]}
`), 0o600))
	}
}
