package plugintest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/pluginpb"
)

// fault is what a check found wrong with the plugin. Any other error of a check
// is a failure too, of the harness or the machine.
type fault struct{ text string }

func (f fault) Error() string { return f.text }

func faultf(format string, args ...any) error { return fault{fmt.Sprintf(format, args...)} }

// unchecked ends a check that cannot be made, and says why.
type unchecked struct{ why string }

func (u unchecked) Error() string { return u.why }

// needs is the answer of a check that lacks a function of the harness.
func needs(field string) error { return unchecked{"the harness has no " + field} }

// kit is one run of all checks on one plugin.
type kit struct {
	binary  string
	harness Harness
	dir     string // short, for sockets; removed at the end
	dirs    atomic.Int64
	out     *transcript
	key     []byte // of the digests

	kind        plugins.Kind
	description *pluginpb.DescribeResponse
	targetKind  string
}

// begin finds out what the plugin is. The first result is about its start.
func begin(ctx context.Context, binary string, h Harness) (*kit, Result) {
	began := time.Now()
	k := &kit{binary: binary, out: &transcript{mark: "kitmark" + strings.ToLower(rand.Text())}, key: []byte(rand.Text())}
	err := k.prepare(ctx, h)
	r := result(table[0], err, began, k.out)
	if r.Outcome == Failed {
		r.Said = k.out.tail()
	}
	return k, r
}

func (k *kit) prepare(ctx context.Context, h Harness) error {
	path, err := filepath.Abs(k.binary)
	if err != nil {
		return fmt.Errorf("find the plugin: %w", err)
	}
	k.binary = path
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return faultf("there is no such file: %s", path)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return faultf("%s is not an executable file", path)
	}
	if k.dir, err = os.MkdirTemp("", "wk-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if len(k.dir) > 40 { // a socket's path has room for about 100 bytes
		_ = os.Remove(k.dir) // it is empty
		if k.dir, err = os.MkdirTemp("/tmp", "wk-"); err != nil {
			return fmt.Errorf("make a directory: %w", err)
		}
	}
	k.harness = h.withDefaults(k.dir)
	if err := os.MkdirAll(k.harness.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	s, err := k.start(ctx)
	if err != nil {
		return err
	}
	defer s.kill()
	if err := k.identify(ctx, s); err != nil {
		return err
	}
	if err := k.configure(ctx, s, k.harness.Config); err != nil {
		return faultf("it refuses the config that it is given here: %s", k.out.safe(status.Convert(err).Message()))
	}
	return nil
}

// identify tells a hook from a runtime: only one of the two services is there.
func (k *kit) identify(ctx context.Context, s *session) error {
	ctx, cancel := context.WithTimeout(ctx, describeLimit)
	defer cancel()
	described, err := s.runtime.Describe(ctx, &pluginpb.DescribeRequest{})
	k.kind = plugins.RuntimeKind
	if status.Code(err) == codes.Unimplemented {
		described, err = s.hook.Describe(ctx, &pluginpb.DescribeRequest{})
		k.kind = plugins.HookKind
	}
	if err != nil {
		return faultf("Describe, as the first call of all, failed: %s", k.out.safe(err.Error()))
	}
	k.description = described
	k.targetKind = k.harness.Kind
	if kinds := described.GetKinds(); k.targetKind == "" && len(kinds) > 0 {
		k.targetKind = kinds[0]
	}
	if k.targetKind == "" {
		k.targetKind = plugins.TargetWorker
	}
	return nil
}

func (k *kit) end() {
	if k.dir != "" {
		_ = os.RemoveAll(k.dir) // what cannot be removed stays in the directory for temporary files
	}
}

// newDir makes an empty directory of mode 0700 with a short path.
func (k *kit) newDir() (string, error) {
	dir := filepath.Join(k.dir, fmt.Sprint(k.dirs.Add(1)))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a directory: %w", err)
	}
	return dir, nil
}

// start starts a process that is not configured yet.
func (k *kit) start(ctx context.Context, extra ...string) (*session, error) {
	dir, err := k.newDir()
	if err != nil {
		return nil, err
	}
	return startSession(ctx, k.binary, k.harness.Args, dir, k.out, extra...)
}

// configured starts a process and configures it.
func (k *kit) configured(ctx context.Context, extra ...string) (*session, error) {
	s, err := k.start(ctx, extra...)
	if err != nil {
		return nil, err
	}
	if err := k.configure(ctx, s, k.harness.Config); err != nil {
		s.kill()
		return nil, faultf("Configure refuses the harness' config: %s", k.out.safe(err.Error()))
	}
	return s, nil
}

func (k *kit) configure(ctx context.Context, s *session, config []byte) error {
	ctx, cancel := context.WithTimeout(ctx, describeLimit)
	defer cancel()
	var err error
	if k.kind == plugins.HookKind {
		_, err = s.hook.Configure(ctx, &pluginpb.HookConfigureRequest{ConfigJson: config})
	} else {
		_, err = s.runtime.Configure(ctx, &pluginpb.RuntimeConfigureRequest{ConfigJson: config, StateDir: k.harness.StateDir})
	}
	s.note(err)
	return err
}

func (k *kit) checks() []check {
	return slices.DeleteFunc(slices.Clone(table), func(c check) bool {
		return c.name == checkStart || c.kind != "" && c.kind != k.kind
	})
}

// run makes one check, with targets of its own.
func (k *kit) run(ctx context.Context, c check) Result {
	began := time.Now()
	b := &bench{kit: k, slug: slug(c.name), used: map[string]*usage{}}
	err := c.run(ctx, b)
	if cleaning := b.end(context.WithoutCancel(ctx)); cleaning != nil {
		if not := (unchecked{}); errors.As(err, &not) {
			err = nil // worse than not checked
		}
		err = errors.Join(err, cleaning)
	}
	return result(c, err, began, k.out)
}

func result(c check, err error, began time.Time, out *transcript) Result {
	r := Result{Check: c.name, Outcome: Passed, Took: time.Since(began)}
	var not unchecked
	var found fault
	switch {
	case err == nil:
	case errors.As(err, &found) || !errors.As(err, &not):
		r.Outcome, r.Problem, r.Remedy = Failed, out.safe(strings.ReplaceAll(err.Error(), "\n", "; ")), c.remedy
	default:
		r.Outcome, r.Problem = NotChecked, not.why
	}
	return r
}

func (k *kit) lastWords() string { return k.out.tail() }

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

// slug makes a name that every kind of target can have.
func slug(name string) string {
	name = strings.Trim(notSlug.ReplaceAllString(strings.ToLower(name), "-"), "-")
	return strings.Trim(name[:min(len(name), 24)], "-")
}

// note keeps what an error says among the things that are searched.
func (s *session) note(err error) {
	if err != nil {
		s.out.add("an error", []byte(err.Error()+"\n"))
		for _, detail := range status.Convert(err).Details() {
			s.out.add("an error", fmt.Appendf(nil, "%v\n", detail))
		}
	}
}

// healthy asks as the server does after a call that failed.
func (s *session) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, describeLimit)
	defer cancel()
	answer, err := grpc_health_v1.NewHealthClient(s.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "plugin"})
	if err != nil {
		return faultf("grpc.health.v1.Health for the name \"plugin\": %s", s.out.safe(status.Convert(err).Message()))
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return faultf("grpc.health.v1.Health says %s for the name \"plugin\"", answer.GetStatus())
	}
	return nil
}
