package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/metrics"
)

// writeCertificate puts a new self-signed pair with the serial number into dir.
func writeCertificate(t *testing.T, dir string, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der},
		key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Unix(serial, 0)); err != nil { // each version has its own time
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestRenewedCertificateNeedsNoRestart(t *testing.T) {
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir, 1)
	c, err := loadCertificate(cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		c.looked = time.Time{} // as if ten seconds had passed
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Error("serial", got)
	}
	writeCertificate(t, dir, 2)
	if got := serial(); got != 2 {
		t.Error("after the renewal: serial", got)
	}
	c.looked = time.Time{}
	writeCertificate(t, dir, 3) // nobody connects, and metrics tell of the new one all the same
	ends := make(map[string]float64)
	c.toldOf("web.https")(func(name string, value float64, labels ...string) { ends[name+" "+labels[0]] = value })
	if got := serial(); got != 3 || ends[metrics.CertificateEnd+" web.https"] != float64(c.loaded.Leaf.NotAfter.Unix()) {
		t.Errorf("serial %d, told: %v", got, ends)
	}
	if err := os.WriteFile(key, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 3 {
		t.Error("while it is being written: serial", got)
	}
	if _, err := loadCertificate(cert, key, nil); err == nil {
		t.Error("a start with a broken key succeeds")
	}
}

func TestNamesDoNotMoveTheCursor(t *testing.T) {
	for in, want := range map[string]string{
		"plain 日本語": "plain 日本語", "a\x1b[2Jb": "a\uFFFD[2Jb", "a\nb\tc": "a\uFFFDb\uFFFDc", "a\u202eb": "a\uFFFDb",
		"a\u009bb": "a\uFFFDb",
	} {
		if got := harmless(in); got != want {
			t.Errorf("%q becomes %q", in, got)
		}
	}
}

// served is an endpoint that answers 200 to everything, on loopback.
func served(t *testing.T, secure bool) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	e := endpoint{name: "test", listener: listener, patience: time.Minute, slowest: 20 * time.Millisecond,
		handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	if secure {
		cert, key := writeCertificate(t, t.TempDir(), 1)
		c, err := loadCertificate(cert, key, log)
		if err != nil {
			t.Fatal(err)
		}
		e.tls = c.config()
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.serve(ctx, log) }() // ends with stop
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// cutOff sends the start of something and waits for the server to hang up.
func cutOff(t *testing.T, address, start string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, start); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var slow net.Error
	if _, err := io.ReadAll(conn); errors.As(err, &slow) && slow.Timeout() {
		t.Error("the server still waits")
	}
}

func TestSlowLorisIsCutOff(t *testing.T) {
	cutOff(t, served(t, false), "GET / HTTP/1.1\r\nHost: x\r\nX-Slow:")
}

func TestSilentTLSHandshakeIsCutOff(t *testing.T) {
	cutOff(t, served(t, true), "")
}

func TestHugeHeadersAreRefused(t *testing.T) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+served(t, false), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Huge", strings.Repeat("x", 64<<10))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(resp.Status)
	}
}
