package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage/storagetest"
)

// BenchmarkOfBare compares endpoints with bare net/http handlers that do the same unavoidable work: the transaction,
// the signature, the bytes. Both are called over real sockets, on connections that stay open, by a client that costs
// little. They take turns in short slices, so that whatever else the machine does meets both alike. What counts is
// of-bare, the median of the ratios of their throughput in neighbouring slices, beside the goal. cpu-of-bare is the
// same of requests per second of the processor, of the whole process; it is steadier where the machine has other work.
//
// A CPU profile of it has the labels side=ours, side=bare and side=client; what has none is etcd's and the runtime's.
func BenchmarkOfBare(b *testing.B) {
	for _, etcd := range []struct {
		name string
		open func(testing.TB) *storagetest.Etcd
		goal map[int]float64
	}{
		{"refresh", storagetest.Alone, map[int]float64{1: 0.9, callersOfBare: 0.85}},
		{"refresh-remote", storagetest.Remote, map[int]float64{1: 0.75, callersOfBare: 0.75}},
	} {
		b.Run(etcd.name, func(b *testing.B) {
			p := newQuietIDP(b, etcd.open(b))
			bare := &bareHandlers{etcd: p.etcd, signer: bareSigner(b), issuer: p.issuer, client: p.client.ID}
			form := "client_id=" + p.client.ID + "&client_secret=" + url.QueryEscape(p.secret) +
				"&grant_type=refresh_token&refresh_token="
			compare(b, etcd.goal, p.handler, http.HandlerFunc(bare.refresh), func() call {
				token := p.grantTokens(b)["refresh_token"].(string)
				return call{http.MethodPost, "/oauth/token", form, token}
			})
		})
	}
	p := newQuietIDP(b, storagetest.Alone(b))
	bare := &bareHandlers{etcd: p.etcd, signer: bareSigner(b), issuer: p.issuer, client: p.client.ID}
	b.Run("client-credentials", func(b *testing.B) {
		s := p.at(b).service("batch")
		form := "client_id=" + s.client.ID + "&client_secret=" + url.QueryEscape(s.secret) +
			"&grant_type=client_credentials&scope=threads%3Aread"
		compare(b, map[int]float64{1: 0.85, callersOfBare: 0.85}, p.handler, http.HandlerFunc(bare.own), func() call {
			return call{http.MethodPost, "/oauth/token", form, ""}
		})
	})
	for name, path := range map[string]string{"jwks": "/oauth/jwks", "discovery": "/.well-known/openid-configuration"} {
		b.Run(name, func(b *testing.B) {
			body := []byte(p.document(p.issuer + path).raw)
			constant := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				_, _ = w.Write(body)
			})
			compare(b, map[int]float64{1: 0.9, callersOfBare: 0.9}, p.handler, constant, func() call {
				return call{http.MethodGet, path, "", ""}
			})
		})
	}
}

const (
	// callersOfBare is how many call at once where many do.
	callersOfBare = 32
	// slice is how long a side has its turn.
	slice = 100 * time.Millisecond
)

// compare runs ours and bare with one caller and with many. prepare gives each caller of each side what to call.
func compare(b *testing.B, goals map[int]float64, ours, bare http.Handler, prepare func() call) {
	for _, n := range []int{1, callersOfBare} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			sides := [2]*side{newSide(b, "ours", ours, n, prepare), newSide(b, "bare", bare, n, prepare)}
			for _, s := range sides {
				s.turn(b)
			}
			b.ResetTimer()
			var pairs, cpuPairs []float64
			for i := 0; b.Loop(); i++ {
				var rate, cpu [2]float64
				for j := range sides {
					which := (i + j) % 2 // takes turns in being first, too
					rate[which], cpu[which] = sides[which].turn(b)
				}
				pairs, cpuPairs = append(pairs, rate[0]/rate[1]), append(cpuPairs, cpu[1]/cpu[0])
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(pairs), "of-bare")
			b.ReportMetric(goals[n], "goal")
			b.ReportMetric(median(cpuPairs), "cpu-of-bare")
			for _, s := range sides {
				b.ReportMetric(median(s.rates), s.name+"/s")
				b.ReportMetric(median(s.cpus)/1000, s.name+"-cpu-µs")
			}
		})
	}
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// side is a server and those who call it.
type side struct {
	name    string
	callers []*rawCaller

	rates []float64 // requests per second
	cpus  []float64 // nanoseconds of the processor per request
}

func newSide(b *testing.B, name string, h http.Handler, callers int, prepare func() call) *side {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go pprof.Do(context.Background(), pprof.Labels("side", name), func(context.Context) { _ = srv.Serve(listener) })
	s := &side{name: name}
	for range callers {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		s.callers = append(s.callers, &rawCaller{call: prepare(), conn: conn, in: bufio.NewReaderSize(conn, 16<<10)})
	}
	b.Cleanup(func() {
		for _, c := range s.callers {
			_ = c.conn.Close()
		}
		_ = srv.Close()
	})
	return s
}

// turn lets all callers call for a slice of time.
func (s *side) turn(b *testing.B) (rate, cpu float64) {
	var over atomic.Bool
	var all sync.WaitGroup
	var calls atomic.Int64
	spent, start := processorTime(b), time.Now()
	end := time.AfterFunc(slice, func() { over.Store(true) })
	defer end.Stop()
	for _, c := range s.callers {
		all.Go(func() {
			pprof.Do(context.Background(), pprof.Labels("side", "client"), func(context.Context) {
				n := int64(0)
				for ; !over.Load(); n++ {
					if err := c.do(); err != nil {
						b.Errorf("%s: %v", s.name, err)
						return
					}
				}
				calls.Add(n)
			})
		})
	}
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
	n := float64(calls.Load())
	rate, cpu = n/time.Since(start).Seconds(), float64(processorTime(b)-spent)/n
	s.rates, s.cpus = append(s.rates, rate), append(s.cpus, cpu)
	return rate, cpu
}

// call is a request that is made again and again: with a refresh token at its end, if it has one, which is the one that
// the answer before has brought.
type call struct{ method, path, form, token string }

// rawCaller speaks just enough HTTP/1.1 for that, on one connection.
type rawCaller struct {
	call
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
}

func (c *rawCaller) do() error {
	out := append(c.out[:0], c.method+" "+c.path+" HTTP/1.1\r\nHost: localhost\r\n"...)
	if c.method == http.MethodPost {
		out = append(out, "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: "...)
		out = strconv.AppendInt(out, int64(len(c.form)+len(c.token)), 10)
		out = append(out, "\r\n"...)
	}
	out = append(out, "\r\n"...)
	out = append(append(out, c.form...), c.token...)
	c.out = out
	if _, err := c.conn.Write(out); err != nil {
		return err
	}
	if err := c.read(); err != nil {
		return err
	}
	if c.token == "" {
		return nil
	}
	_, rest, _ := bytes.Cut(c.body, []byte(`"refresh_token":"`))
	token, _, found := bytes.Cut(rest, []byte(`"`))
	if !found {
		return fmt.Errorf("no refresh token in %s", c.body)
	}
	c.token = string(token)
	return nil
}

// read reads a response into body. It must be a 200.
func (c *rawCaller) read() error {
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("%s", status)
	}
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
		if value, is := bytes.CutPrefix(line, []byte("Content-Length: ")); is {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("a response without a length")
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	_, err = io.ReadFull(c.in, c.body)
	return err
}

// newQuietIDP logs nothing and has the clock of the machine, as in production.
func newQuietIDP(b *testing.B, etcd *storagetest.Etcd) *benchIDP {
	b.Helper()
	p := newIDPOn(b, etcd)
	p.cfg.Logger, p.cfg.Now = slog.New(server.LogHandler(slog.DiscardHandler)), nil
	p.serve(etcd.Store())
	return &benchIDP{p, p.handler}
}

// bareHandlers do what cannot be left out.
type bareHandlers struct {
	etcd           *storagetest.Etcd
	signer         jose.Signer
	issuer, client string
}

func bareSigner(b *testing.B) jose.Signer {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: "ES256-1"}},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		b.Fatal(err)
	}
	return signer
}

// refresh reads a form, moves a key that the caller names one version on, signs a token, and answers with it and the
// next refresh token, which here is the same.
func (h *bareHandlers) refresh(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	token := r.PostForm.Get("refresh_token")
	key := h.etcd.Prefix + "bare/" + h.client + "/" + token[len(token)-26:]
	resp, err := h.etcd.Client.Txn(r.Context()).
		If(clientv3.Compare(clientv3.Version(key), ">", -1)).
		Then(clientv3.OpPut(key, fmt.Sprintf(`{"at":%d}`, time.Now().UnixMilli()))).Commit()
	if err != nil || !resp.Succeeded {
		http.Error(w, "storage does not answer", http.StatusServiceUnavailable)
		return
	}
	h.answer(w, token)
}

// own reads a form, signs a token and answers with it.
func (h *bareHandlers) own(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.PostForm.Get("client_secret") == "" {
		http.Error(w, "no secret", http.StatusBadRequest)
		return
	}
	h.answer(w, "")
}

type bareClaims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Expires  int64  `json:"exp"`
	IssuedAt int64  `json:"iat"`
	ID       string `json:"jti"`
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
	AuthTime int64  `json:"auth_time"`
}

type bareReply struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope"`
}

func (h *bareHandlers) answer(w http.ResponseWriter, refresh string) {
	now := time.Now()
	payload, err := json.Marshal(bareClaims{
		Issuer: h.issuer, Subject: "user-ann", Audience: h.issuer, Expires: now.Add(time.Hour).Unix(), IssuedAt: now.Unix(),
		ID:       "0123456789abcdef0123456789abcdef.0123456789abcdef",
		ClientID: h.client, Scope: "threads:read", AuthTime: now.Unix()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	signed, err := h.signer.Sign(payload)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	access, err := signed.CompactSerialize()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(bareReply{
		AccessToken: access, TokenType: "Bearer", ExpiresIn: 3600, RefreshToken: refresh, Scope: "threads:read"})
}
