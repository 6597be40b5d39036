package manifests

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// pruning is a rig whose deployers end what has been gone for an hour, by a clock that the test turns.
type pruning struct {
	*rig
	skew atomic.Int64
	d    *Deployer
	dir  string
}

func newPruning(t *testing.T, names ...string) *pruning {
	t.Helper()
	p := &pruning{rig: newRig(t)}
	now := func() time.Time { return time.Now().Add(time.Duration(p.skew.Load())) }
	p.store = p.etcd.Store(func(o *storage.Options) { o.Now = now })
	p.opts.Store, p.opts.Now, p.opts.PruneAfter = p.store, now, time.Hour
	p.d = p.deployer()
	p.dir = p.directory(p.d, names...)
	return p
}

func (p *pruning) file(name string) string { return filepath.Join(p.dir, name+".yml") }

// later turns the clock, and looks.
func (p *pruning) later(by time.Duration) {
	p.t.Helper()
	p.skew.Add(int64(by))
	p.d.ApplyPaths(p.t.Context(), []string{p.dir})
}

func (p *pruning) lives(rule, app string) {
	p.t.Helper()
	if view := p.view(app); view.App == nil || view.App.Deleting || !view.Client.Active() {
		p.t.Errorf("%s: %s has ended", rule, app)
	}
}

func (p *pruning) ended(rule, app string) {
	p.t.Helper()
	if view := p.view(app); view.App != nil && !view.App.Deleting || view.Client.Active() {
		p.t.Errorf("%s: %s has not ended: %+v", rule, app, view.App)
	}
}

func TestAppWhoseManifestIsGoneEndsAfterTheDelay(t *testing.T) {
	p := newPruning(t, "one", "two")
	client := p.view("one").Client.ID
	g := p.grant(client, "threads:read")
	remove(t, p.file("one"))
	p.later(0)
	p.wantsGone("at once", "one", true)
	if !strings.Contains(p.log.String(), "the manifest of an app is gone; the app ends in 1h0m0s unless it comes back") {
		t.Error("nothing says that it will end")
	}
	p.later(59 * time.Minute)
	p.lives("before the delay is over", "one")
	p.later(2 * time.Minute)
	p.ended("after it", "one")
	p.lives("its manifest is there", "two")
	if _, err := p.store.Grant(t.Context(), client, g.ID, g.UserID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("its grant: %v", err)
	}
	entries := p.audited("one", "delete|done|its manifest "+p.file("one")+" has been gone since ", "client "+client+
		": 1 grant ends; ")
	if len(entries) != 1 || entries[0].Actor != storage.ActorServer {
		t.Errorf("audit log: %+v", entries)
	}
	// It ends as an operator's delete does: the loop takes its env away, and it is forgotten but for its id.
	p.run(p.d)
	p.awaitGone("one")
	write(t, p.file("one"), appYML("one"))
	p.later(0)
	if view := p.view("one"); view.Client == nil || view.Client.ID != client {
		t.Error("it did not come back as it was")
	}
}

// The delay is counted from what is stored, so a restart does not begin it anew, and does not end it either.
func TestDelayOfAGoneManifestSurvivesARestart(t *testing.T) {
	p := newPruning(t, "one", "two")
	remove(t, p.file("one"))
	p.later(0)
	p.d = p.deployer()
	p.later(30 * time.Minute)
	p.lives("after half of the delay and a restart", "one")
	p.d = p.deployer()
	p.later(31 * time.Minute)
	p.ended("after the delay and two restarts", "one")
}

func TestManifestThatComesBackInTimeEndsNothing(t *testing.T) {
	p := newPruning(t, "one", "two")
	client := p.view("one").Client.ID
	g := p.grant(client, "threads:read")
	remove(t, p.file("one"))
	p.later(0)
	write(t, p.file("one"), appYML("one"))
	p.later(59 * time.Minute)
	p.wantsGone("it is back", "one", false)
	p.later(24 * time.Hour)
	p.lives("it came back in time", "one")
	if _, err := p.store.Grant(t.Context(), client, g.ID, g.UserID); err != nil {
		t.Errorf("its grant: %v", err)
	}
	remove(t, p.file("one"))
	p.later(0)
	p.later(59 * time.Minute)
	p.lives("it is gone a second time", "one")
}

// It came back between the look before and the one that would end the app.
func TestManifestThatIsBackWhenTheDelayIsOverEndsNothing(t *testing.T) {
	p := newPruning(t, "one", "two")
	remove(t, p.file("one"))
	p.later(0)
	write(t, p.file("one"), appYML("one"))
	p.later(2 * time.Hour)
	p.wantsGone("it is back", "one", false)
}

// Whatever keeps a look from reading everything ends nothing, and the delay begins anew when all can be read again:
// what comes back in part has not been missed for long.
func TestMisfortunesOfDirectoriesEndNothing(t *testing.T) {
	aside := func(p *pruning) (back func()) {
		if err := os.Rename(p.dir, p.dir+".away"); err != nil {
			p.t.Fatal(err)
		}
		return func() {
			remove(p.t, p.dir)
			if err := os.Rename(p.dir+".away", p.dir); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	for rule, strike := range map[string]func(p *pruning) (heal func()){
		"the directory is not there": aside,
		"the directory is empty, as a volume that is not mounted": func(p *pruning) func() {
			back := aside(p)
			if err := os.Mkdir(p.dir, 0o700); err != nil {
				p.t.Fatal(err)
			}
			return back
		},
		"something else is in place of the directory": func(p *pruning) func() {
			back := aside(p)
			write(p.t, p.dir, "faulty: [")
			return back
		},
		"another manifest is faulty": func(p *pruning) func() {
			write(p.t, p.file("two"), "faulty: [")
			return func() { write(p.t, p.file("two"), appYML("two")) }
		},
		"another manifest cannot be read": func(p *pruning) func() {
			if err := os.Symlink(p.file("nowhere"), p.file("three")); err != nil {
				p.t.Fatal(err)
			}
			return func() { remove(p.t, p.file("three")) }
		},
		"an app is in two files": func(p *pruning) func() {
			write(p.t, p.file("three"), appYML("two"))
			return func() { remove(p.t, p.file("three")) }
		},
	} {
		t.Run(rule, func(t *testing.T) {
			p := newPruning(t, "one", "two")
			heal := strike(p)
			p.later(0)
			for range 5 {
				p.later(time.Hour)
			}
			p.lives(rule, "one")
			p.lives(rule, "two")
			heal()
			remove(t, p.file("one"))
			p.later(time.Hour)
			p.wantsGone("when it is over", "one", true)
			p.later(59 * time.Minute)
			p.lives("the delay counts from when it is over", "one")
			p.later(2 * time.Minute)
			p.ended("a whole delay after it was over", "one")
			p.lives("its manifest is there", "two")
		})
	}
}

// It strikes while the delay is running.
func TestMisfortuneInTheDelayBeginsItAnew(t *testing.T) {
	p := newPruning(t, "one", "two")
	remove(t, p.file("one"))
	p.later(0)
	write(t, p.file("two"), "faulty: [")
	p.later(59 * time.Minute)
	p.later(59 * time.Minute)
	p.lives("while another manifest is faulty", "one")
	write(t, p.file("two"), appYML("two"))
	p.later(0)
	p.lives("when it no longer is", "one")
	p.later(61 * time.Minute)
	p.ended("after a whole delay", "one")
}

func TestFaultOfStorageInsteadOfAnEnd(t *testing.T) {
	p := newPruning(t, "one", "two")
	remove(t, p.file("one"))
	p.later(0)
	p.etcd.Inject(func(write, sent bool) error {
		if write {
			return errors.New("etcdserver: no leader")
		}
		return nil
	})
	p.later(2 * time.Hour)
	p.etcd.Inject(nil)
	p.lives("nothing could be written", "one")
	p.later(0)
	p.ended("it could", "one")
}

func TestNothingElseIsEverPruned(t *testing.T) {
	p := newPruning(t, "one", "two")
	p.apply(p.d, appYML("by-hand"))
	other := p.directory(p.d, "elsewhere", "left")
	remove(t, filepath.Join(other, "elsewhere.yml"))
	write(t, p.file("two"), withoutClient("two"))
	for range 3 {
		p.later(2 * time.Hour)
	}
	p.lives("applied by hand", "by-hand")
	p.lives("of a directory that this server does not follow", "elsewhere")
	p.lives("its manifest says something else, which was refused", "two")
	q := newPruning(t, "one", "two")
	q.opts.PruneAfter = 0
	q.d = q.deployer()
	remove(t, q.file("one"))
	for range 3 {
		q.later(1000 * time.Hour)
	}
	q.lives("by default", "one")
}

// The app as it was ends, and only then does the one under the new name begin.
func TestRenamedAppEndsAfterTheDelay(t *testing.T) {
	p := newPruning(t, "one", "two")
	client := p.view("one").Client.ID
	p.grant(client, "threads:read")
	write(t, p.file("one"), appYML("uno"))
	p.later(0)
	p.later(59 * time.Minute)
	p.lives("before the delay is over", "one")
	if p.view("uno").App != nil {
		t.Fatal("the new name was applied")
	}
	p.later(2 * time.Minute)
	p.ended("after it", "one")
	p.lives("under its new name", "uno")
	if len(p.audited("one", "delete|done|its manifest "+p.file("one"), "client "+client+": 1 grant ends")) != 1 {
		t.Error("the audit log does not tell what has ended")
	}
}

func TestOneReplicaEndsAnApp(t *testing.T) {
	p := newPruning(t, "one", "two", "three")
	remove(t, p.file("one"))
	remove(t, p.file("two"))
	p.later(0)
	p.skew.Store(int64(2 * time.Hour))
	var racers sync.WaitGroup
	for range 8 {
		d := p.deployer()
		racers.Go(func() { d.ApplyPaths(context.Background(), []string{p.dir}) })
	}
	racers.Wait()
	for _, app := range []string{"one", "two"} {
		p.ended("eight replicas looked", app)
		if n := len(p.audited(app, "delete|done")); n != 1 {
			t.Errorf("%s was ended %d times", app, n)
		}
	}
	p.lives("its manifest is there", "three")
	if strings.Contains(p.log.String(), "cannot tell which manifests are gone") {
		t.Error("the slower ones call it a fault")
	}
}

// A replica that still has the manifest says so in time, because every one looks several times in the delay.
func TestReplicaThatHasTheManifestSpeaksUp(t *testing.T) {
	p := newPruning(t, "one", "two")
	remove(t, p.file("one"))
	p.later(0)
	_, due, err := (&follower{d: p.d, paths: []string{p.dir}}).missing(t.Context())
	if err != nil || due <= 0 || due > 15*time.Minute {
		t.Fatalf("the next look is in %s, %v", due, err)
	}
	content, err := os.ReadFile(p.file("two"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.file("one"), strings.ReplaceAll(string(content), "two", "one")) // as that replica sees it
	p.skew.Add(int64(59 * time.Minute))
	if _, _, err := (&follower{d: p.d, paths: []string{p.dir}}).missing(t.Context()); err != nil {
		t.Fatal(err)
	}
	remove(t, p.file("one"))
	p.later(2 * time.Minute)
	p.lives("another replica has seen its manifest meanwhile", "one")
}

// Without any change of a file the app ends when its time has come.
func TestFollowingEndsWhatIsGone(t *testing.T) {
	r := newRig(t)
	d := r.deployer(func(o *DeployerOptions) { o.PruneAfter = 50 * time.Millisecond })
	dir := r.directory(d, "one", "two")
	remove(t, filepath.Join(dir, "one.yml"))
	r.run(d)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Follow(ctx, []string{dir}, true) }()
	r.await("one", "its env is taken away", none)
	cancel()
	if err := receive(t, ended, "the end of following"); err != nil {
		t.Error(err)
	}
	if r.view("two").App == nil {
		t.Error("the other has ended as well")
	}
}

// What a fault has stopped is applied when it is over, though no file changes.
func TestFollowingAppliesWhatAFaultHasStopped(t *testing.T) {
	for rule, watch := range map[string]bool{"watching": true, "at the start alone": false} {
		t.Run(rule, func(t *testing.T) {
			r := newRig(t)
			dir := t.TempDir()
			write(t, filepath.Join(dir, "one.yml"), appYML("one"))
			write(t, filepath.Join(dir, "two.yml"), appYML("two"))
			var failures atomic.Int64
			failed := make(chan struct{}, 1)
			r.etcd.Inject(func(write, sent bool) error {
				if failures.Add(1) == 5 {
					failed <- struct{}{}
				}
				return errors.New("etcdserver: no leader")
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			d := r.deployer()
			go func() { ended <- d.Follow(ctx, []string{dir}, watch) }()
			receive(t, failed, "attempts that fail")
			r.etcd.Inject(nil)
			for _, app := range []string{"one", "two"} {
				r.await(app, "it is applied", func(list []*storage.Delivery) bool { return len(list) == 2 })
			}
			if watch {
				cancel()
			}
			if err := receive(t, ended, "the end of following"); err != nil {
				t.Error(err)
			}
			cancel()
		})
	}
}

// A plugin or an etcd that does not answer keeps a manifest from being applied for a while, and not the watch for ever.
func TestHangingApplyDoesNotBlockTheWatch(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "one.yml"), appYML("one"))
	hook := &hangingHook{Hook: r.opts.Hooks[0], app: "one", free: make(chan struct{})}
	d := r.deployer(func(o *DeployerOptions) { o.Hooks, o.Pace.Look = []Hook{hook}, time.Second })
	hanging, stop := context.WithCancel(t.Context())
	applied := make(chan error, 1)
	go func() { // an operator's apply, which hangs as well
		_, _, err := d.ApplyFiles(hanging, filesNamed(appYML("one")), ApplyOptions{})
		applied <- err
	}()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Follow(ctx, []string{dir}, true) }()
	write(t, filepath.Join(dir, "two.yml"), appYML("two"))
	r.await("two", "it is applied", func(list []*storage.Delivery) bool { return len(list) == 2 })
	close(hook.free)
	r.await("one", "it is applied", func(list []*storage.Delivery) bool { return len(list) == 2 })
	cancel()
	stop()
	if err := receive(t, ended, "the end of following"); err != nil {
		t.Error(err)
	}
	// The watch applies it at the same moment, and may be the first.
	if err := receive(t, applied, "the operator's apply"); err != nil && !errors.Is(err, storage.ErrConflict) {
		t.Error(err)
	}
}

// hangingHook does not answer about one app until it is freed.
type hangingHook struct {
	Hook
	app  string
	free chan struct{}
}

func (h *hangingHook) Evaluate(ctx context.Context, req plugins.EvaluateRequest) (plugins.Answer, error) {
	if strings.Contains(string(req.Manifest), `"name":"`+h.app+`"`) {
		select {
		case <-h.free:
		case <-ctx.Done():
			return plugins.Answer{}, ctx.Err()
		}
	}
	return h.Hook.Evaluate(ctx, req)
}
