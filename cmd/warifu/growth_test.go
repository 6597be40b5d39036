package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage"
)

// BenchmarkGrowth is what a server costs that has much to keep: a process of its own, on embedded etcd, asked over its
// admin socket. It reports
//
//	start-ms    from the command until the server serves
//	rss-MiB     resident memory then
//	list-ms     all grants, page by page
//	revoke-ms   one grant, by its id
//	apply-ms    another version of one app
//	delete-ms   an app with nine tenths of the grants
//	stall-ms    the longest that another request that writes took meanwhile
//	B/grant     of the database, after compaction
func BenchmarkGrowth(b *testing.B) {
	for _, size := range []struct{ apps, grants int }{
		{10, 1_000}, {10, 10_000}, {10, 100_000}, {100, 1_000}, {2_000, 1_000},
	} {
		b.Run(fmt.Sprintf("%d-apps/%d-grants", size.apps, size.grants), func(b *testing.B) {
			grow(b, size.apps, size.grants)
		})
	}
}

func grow(b *testing.B, apps, grants int) {
	g := &growth{B: b, file: filepath.Join(b.TempDir(), "config.yaml")}
	text := fmt.Sprintf("issuer: https://id.test\nstorage: {config: {dataDir: %q}}\nweb: {http: \"127.0.0.1:0\"}\n",
		filepath.Join(filepath.Dir(g.file), "data"))
	g.must(os.WriteFile(g.file, []byte(text), 0o600))
	cfg, err := config.Read(g.file, nil)
	g.must(err)
	server := g.serve(cfg)
	var clients []string
	for from := 0; from < apps; from += 100 {
		var docs []admin.Document
		for i := from; i < min(from+100, apps); i++ {
			docs = append(docs, g.app(i, 1))
		}
		server.apply(docs...)
	}
	stored, err := fetchAll[admin.App](b.Context(), server.api, "/v1/apps")
	g.must(err)
	for _, a := range stored {
		clients = append(clients, a.ClientID)
		server.delivered(a.Name)
	}
	server.end()
	bytes, spare := g.fill(cfg, clients, grants)

	for version := 2; b.Loop(); version++ {
		server := g.serve(cfg)
		b.ReportMetric(float64(server.started.Microseconds())/1e3, "start-ms")
		b.ReportMetric(server.resident(), "rss-MiB")
		b.ReportMetric(server.took(func() {
			n := 0
			g.must(eachPart(b.Context(), server.api, "/v1/grants", func(part []admin.Grant) error {
				n += len(part)
				return nil
			}))
			if n == 0 {
				b.Fatal("no grants")
			}
		}), "list-ms")
		const revoked = 20
		b.ReportMetric(server.took(func() {
			for _, id := range spare[:revoked] {
				server.revoke(id)
			}
		})/revoked, "revoke-ms")
		spare = spare[revoked:]
		b.ReportMetric(server.took(func() { server.apply(g.app(1, version)) }), "apply-ms")
		stop, stalled := make(chan struct{}), make(chan float64)
		go func() {
			longest := 0.0
			for _, id := range spare {
				select {
				case <-stop:
					stalled <- longest
					return
				default:
					longest = max(longest, server.took(func() { server.revoke(id) }))
				}
			}
			<-stop
			stalled <- longest
		}()
		b.ReportMetric(server.took(func() {
			var out admin.Deleted
			g.must(server.api.do(b.Context(), http.MethodDelete, appPath(stored[0].Name)+"?wait=60", nil, &out))
			if !out.Gone {
				b.Error("the app is not gone")
			}
		}), "delete-ms")
		close(stop)
		b.ReportMetric(<-stalled, "stall-ms")
		b.ReportMetric(bytes, "B/grant")
		server.end()
		b.ReportMetric(0, "ns/op")
	}
}

var silent = slog.New(slog.DiscardHandler)

// growth builds what the servers of a benchmark keep.
type growth struct {
	*testing.B
	file string
}

func (g *growth) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

func (g *growth) app(i, version int) admin.Document {
	return admin.Document{Name: fmt.Sprintf("app-%04d.yml", i), Content: fmt.Sprintf(`apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: app-%04d}
spec:
  version: %d.0.0
  workers: {web: {}}
  oauth:
    clientName: App %[1]d
    redirectUris: ["https://app-%[1]d.example.com/callback"]
    scopes: [openid, profile]
    autoEnv: true
`, i, version)}
}

// fill stores grants as code exchanges do, nine tenths of them of the first client. It returns the bytes of the
// database that each takes, and ids of grants of the other clients.
func (g *growth) fill(cfg *config.Settings, clients []string, grants int) (bytes float64, spare []string) {
	ctx := context.Background()
	etcd, err := storage.OpenEmbedded(ctx, cfg.Dir, silent)
	g.must(err)
	defer etcd.Close()
	kek, err := storage.ReadKEK(cfg.KEKFile)
	g.must(err)
	s, err := storage.New(ctx, etcd.Client, storage.Options{KEK: kek, OneMember: true, Logger: silent})
	g.must(err)
	defer s.Close()
	before := used(g, etcd.Client)
	var group errgroup.Group
	group.SetLimit(128)
	now, sid := time.Now(), ""
	for i := range grants {
		client, err := s.Client(ctx, clients[0])
		if i%10 == 9 {
			client, err = s.Client(ctx, clients[1+i/10%(len(clients)-1)])
		}
		g.must(err)
		if i%10 == 0 {
			id, err := s.CreateSession(ctx, storage.Session{UserID: "u", ExpiresAt: now.Add(12 * time.Hour)}, "")
			g.must(err)
			sid = storage.SID(id)
		}
		grant := storage.Grant{
			ID: storage.NewGrantID(), ClientID: client.ID, UserID: fmt.Sprintf("0b1c2d3e-4f50-6172-8394-%012d", i),
			Scopes: []string{"openid", "profile"}, AuthTime: now, CreatedAt: now, ExpiresAt: now.Add(30 * 24 * time.Hour),
			Session: sid, SessionEnds: now.Add(12 * time.Hour),
		}
		if client.ID != clients[0] {
			spare = append(spare, grant.ID)
		}
		group.Go(func() error {
			_, err := s.CreateGrant(ctx, grant, now.Add(14*24*time.Hour), storage.Revisions{Client: client.Revision})
			return err
		})
	}
	g.must(group.Wait())
	return float64(used(g, etcd.Client)-before) / float64(grants), spare
}

// used are the bytes of the database that are in use, without what has been.
func used(g *growth, etcd *clientv3.Client) int64 {
	g.Helper()
	ctx := context.Background()
	at, err := etcd.Get(ctx, "x", clientv3.WithCountOnly())
	g.must(err)
	_, err = etcd.Compact(ctx, at.Header.Revision, clientv3.WithCompactPhysical())
	g.must(err)
	status, err := etcd.Status(ctx, strings.Join(etcd.Endpoints(), "")) // none of an embedded one
	g.must(err)
	return status.DbSizeInUse
}

// grown is a server in a process of its own.
type grown struct {
	g       *growth
	cmd     *exec.Cmd
	api     *client
	started time.Duration
	words   *bytes.Buffer
}

func (g *growth) serve(cfg *config.Settings) *grown {
	g.Helper()
	s := &grown{g: g, cmd: exec.Command("warifu", "serve", g.file), words: &bytes.Buffer{}}
	stderr, err := s.cmd.StderrPipe()
	g.must(err)
	begun := time.Now()
	g.must(s.cmd.Start())
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadString('\n')
		s.words.WriteString(line)
		if err != nil {
			g.Fatalf("it does not start: %v\n%s", err, s.words)
		}
		if strings.Contains(line, "warifu serves") {
			break
		}
	}
	s.started = time.Since(begun)
	go func() { _, _ = io.Copy(io.Discard, lines) }() // ends with the process
	s.api, err = (&cli{admin: cfg.Socket, environ: os.Environ()}).client()
	g.must(err)
	return s
}

func (s *grown) end() {
	s.g.Helper()
	s.g.must(s.cmd.Process.Signal(os.Interrupt))
	s.g.must(s.cmd.Wait())
}

func (s *grown) took(do func()) (ms float64) {
	begun := time.Now()
	do()
	return float64(time.Since(begun).Microseconds()) / 1e3
}

// resident is VmRSS in MiB (proc_pid_status(5)).
func (s *grown) resident() float64 {
	s.g.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	s.g.must(err)
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			s.g.must(err)
			return float64(kib) / 1024
		}
	}
	s.g.Fatal("no VmRSS")
	return 0
}

func (s *grown) apply(docs ...admin.Document) {
	s.g.Helper()
	var out admin.Planned
	s.g.must(s.api.do(s.g.Context(), http.MethodPost, "/v1/apply", applyRequest{Documents: docs}, &out))
}

// delivered waits until an app has its env.
func (s *grown) delivered(app string) {
	s.g.Helper()
	s.g.must((&cli{admin: s.api.where, environ: os.Environ(), stderr: io.Discard, stdout: io.Discard}).delivered(
		s.g.Context(), waiting{wait: true, timeout: time.Minute}, "applied", app))
}

func (s *grown) revoke(id string) {
	var out admin.Revoked
	if err := s.api.do(context.Background(), http.MethodDelete, "/v1/grants/"+id, nil, &out); err != nil {
		s.g.Error(err)
	}
}
