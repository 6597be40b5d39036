package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/storage"
)

// BenchmarkPeople is what a server costs that has many people: managed accounts with a password, half of them, and
// users of a connector, who have signed in before. It is a process of its own, and people sign in over HTTP. With
// embedded etcd, what etcd takes for its index of all keys is in it; with an etcd in another process, the rest is seen.
// It reports
//
//	start-ms     from the command until the server serves
//	rss-MiB      resident memory when people have signed in
//	p50-ms       of a sign-in by password, from the form to the code, most of which is the hashing
//	p99-ms
//	find-ms      a user by e-mail address
//	sessions-ms  the sessions of a user
//	B/user       of the database
func BenchmarkPeople(b *testing.B) {
	for _, where := range []string{"embedded", "remote"} {
		for _, people := range []int{100, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d-users", where, people), func(b *testing.B) { crowd(b, where == "remote", people) })
		}
	}
}

const crowdPassword = "slow boats carry nine lamps"

func crowdEmail(i int) string { return fmt.Sprintf("person-%06d@example.com", i) }

func crowd(b *testing.B, remote bool, people int) {
	g := &growth{B: b, file: filepath.Join(b.TempDir(), "config.yaml")}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	g.must(err)
	address := free.Addr().String()
	g.must(free.Close())
	where := fmt.Sprintf("storage: {config: {dataDir: %q}}", filepath.Join(filepath.Dir(g.file), "data"))
	if remote {
		_, etcd, dir := etcdProcess(b)
		where = fmt.Sprintf("storage: {type: etcd, config: {dataDir: %q, endpoints: [%q], ssl: {caFile: %q}}}\n"+
			"encryptionKeyFiles: [%q]",
			filepath.Join(dir, "data"), etcd, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "encryption.key"))
	}
	g.must(os.WriteFile(g.file, fmt.Appendf(nil, "issuer: http://%[1]s\n%[2]s\nweb: {http: %[1]q}\n"+
		"enablePasswordDB: true\nconnectors: [{type: github, id: github, name: GitHub, config: {clientID: a, "+
		"clientSecret: b}}]\n",
		address, where), 0o600))
	cfg, err := config.Read(g.file, nil)
	g.must(err)
	server := g.serve(cfg)
	server.apply(admin.Document{Name: "board.yml", Content: `apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: board}
spec:
  version: 1.0.0
  oauth: {clientName: Board, redirectUris: ["http://127.0.0.1:9/cb"], scopes: [openid]}
`})
	var app admin.App
	g.must(server.api.do(b.Context(), http.MethodGet, appPath("board"), nil, &app))
	server.end()
	bytes := g.gather(cfg, people)

	for b.Loop() {
		server := g.serve(cfg)
		b.ReportMetric(float64(server.started.Microseconds())/1e3, "start-ms")
		const signIns = 200
		var took []float64
		for n := range signIns {
			i := n * (people / 2) / signIns * 2 // a managed one
			a := &authorization{http: &http.Client{Timeout: time.Minute}, issuer: cfg.Issuer,
				redirectURI: "http://127.0.0.1:9/cb"}
			ask := cfg.Issuer + "/oauth/authorize?" + url.Values{"client_id": {app.ClientID}, "redirect_uri": {a.redirectURI},
				"response_type": {"code"}, "scope": {"openid"}, "state": {"x"}, "code_challenge_method": {"S256"},
				"code_challenge": {strings.Repeat("a", 43)}}.Encode()
			took = append(took, server.took(func() {
				if _, err := a.walk(b.Context(), ask, crowdEmail(i), crowdPassword); err != nil {
					b.Fatal(err)
				}
			}))
		}
		slices.Sort(took)
		b.ReportMetric(took[signIns/2], "p50-ms")
		b.ReportMetric(took[signIns*99/100], "p99-ms")
		b.ReportMetric(server.resident(), "rss-MiB")
		b.ReportMetric(server.took(func() {
			var u admin.UserDetail
			g.must(server.api.do(b.Context(), http.MethodGet, "/v1/users/"+url.PathEscape(crowdEmail(people-1)), nil, &u))
		}), "find-ms")
		b.ReportMetric(server.took(func() {
			var list []admin.Session
			g.must(server.api.do(b.Context(), http.MethodGet, "/v1/sessions?user="+crowdEmail(0), nil, &list))
			if len(list) == 0 {
				b.Error("no session")
			}
		}), "sessions-ms")
		b.ReportMetric(bytes, "B/user")
		server.end()
		b.ReportMetric(0, "ns/op")
	}
}

// gather stores people. It returns the bytes of the database that each takes.
func (g *growth) gather(cfg *config.Settings, people int) (bytes float64) {
	ctx := context.Background()
	var etcd *clientv3.Client
	kek, err := cfg.KEK, error(nil)
	if cfg.Storage.Type == config.StorageEtcd {
		etcd, err = storage.Dial(ctx, cfg.Etcd, silent)
		g.must(err)
		defer func() { g.must(etcd.Close()) }()
	} else {
		embedded, err := storage.OpenEmbedded(ctx, cfg.Dir, silent)
		g.must(err)
		defer embedded.Close()
		etcd = embedded.Client
		kek, err = storage.ReadKEK(cfg.KEKFile)
		g.must(err)
	}
	s, err := storage.New(ctx, etcd, storage.Options{KEK: kek, Prefix: cfg.Storage.Config.Namespace, Logger: silent})
	g.must(err)
	defer s.Close()
	before := used(g, etcd)
	hash := factor.HashPassword(crowdPassword)
	var group errgroup.Group
	group.SetLimit(128)
	for i := range people {
		u := storage.User{ID: fmt.Sprintf("0b1c2d3e-4f50-6172-8394-%012d", i), Email: crowdEmail(i), EmailVerified: true,
			Username: fmt.Sprintf("person-%06d", i), Name: fmt.Sprint("Person ", i)}
		group.Go(func() error {
			if i%2 == 0 {
				_, err := s.PutAccount(ctx, u, nil,
					&storage.FactorChange{Next: storage.Factors{Password: storage.Password{Hash: hash,
						At: time.Now().UTC()}}}, storage.AuditEntry{Action: storage.AuditUserApplied})
				return err
			}
			u.Connector, u.UpstreamID = "github", fmt.Sprint(i)
			_, err := s.ArriveUser(ctx, storage.Arrival{User: u})
			return err
		})
	}
	g.must(group.Wait())
	return float64(used(g, etcd)-before) / float64(people)
}
