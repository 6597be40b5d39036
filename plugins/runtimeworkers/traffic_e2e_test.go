//go:build e2e

package runtimeworkers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ask wants a whole answer with a generation in it. What a POST gets no answer to
// is not sent again by the client.
func ask(client *http.Client, url string, post bool) error {
	method, body := http.MethodGet, io.Reader(nil)
	if post {
		method, body = http.MethodPost, strings.NewReader("some text")
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("status %d: %s", resp.StatusCode, said)
	}
	var env map[string]string
	if err := json.NewDecoder(resp.Body).Decode(&env); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || env["GENERATION"] == "" {
		return fmt.Errorf("status %d without variables: %w", resp.StatusCode, err)
	}
	return nil
}

func TestNoRequestIsLostInAHundredChanges(t *testing.T) {
	const changes, clients = 100, 4
	s := newSite(t)
	st := ready(t, s.rt, want(1, map[string]string{"GENERATION": "1"}))
	var asked, lost atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for i := range clients {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
		load.Go(func() {
			for ctx.Err() == nil {
				asked.Add(1)
				if err := ask(client, st.Location, i < clients/2); err != nil {
					lost.Add(1)
					t.Log(err)
				}
			}
		})
	}
	began := time.Now()
	for generation := int64(2); generation <= changes+1; generation++ {
		ready(t, s.rt, want(generation, map[string]string{"GENERATION": strconv.FormatInt(generation, 10)}))
		if got := envAt(t, st.Location)["GENERATION"]; got != strconv.FormatInt(generation, 10) {
			t.Fatalf("READY with generation %d, but generation %s answers", generation, got)
		}
	}
	took := time.Since(began)
	cancel()
	load.Wait()
	t.Logf("%d changes in %s, %d requests, %d lost", changes, took.Round(time.Millisecond), asked.Load(), lost.Load())
	if lost.Load() != 0 || asked.Load() < changes {
		t.Errorf("%d of %d requests were lost", lost.Load(), asked.Load())
	}
}

func TestRequestInFlightFinishesOnTheOldWorker(t *testing.T) {
	s := newSite(t)
	st := ready(t, s.rt, want(1, credentials))
	resp, err := http.Get(st.Location + "/hold?ms=2500")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	begun := make([]byte, len("begun\n"))
	if _, err := io.ReadFull(resp.Body, begun); err != nil {
		t.Fatal(err)
	}
	ready(t, s.rt, want(2, map[string]string{"OAUTH_CLIENT_ID": "app-new"}))
	if got := envAt(t, st.Location)["OAUTH_CLIENT_ID"]; got != "app-new" {
		t.Errorf("a new request is answered by %s", got)
	}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(rest) != "app-abc" {
		t.Errorf("the old request got %q, %v", rest, err)
	}
}

// mirror answers with the request that it got.
const mirror = `
export default { async fetch(request, env) {
  if (request.headers.get("Upgrade") == "websocket") {
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.addEventListener("message", e => server.send(env.OAUTH_CLIENT_ID + " " + e.data));
    return new Response(null, { status: 101, webSocket: client });
  }
  const headers = new Headers({ "X-URL": request.url, "X-Method": request.method });
  for (const name of ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "User-Agent", "Accept-Encoding", "Cookie"])
    headers.set("Got-" + name, String(request.headers.get(name)));
  headers.append("Set-Cookie", "a=1"); headers.append("Set-Cookie", "b=2");
  return new Response(request.body, { status: 418, headers });
}};
`

func TestRequestsAndAnswersPassUnchanged(t *testing.T) {
	s := newSite(t)
	s.script("app", "web", mirror)
	st := ready(t, s.rt, want(1, credentials))
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	req, err := http.NewRequestWithContext(t.Context(), "PUT", st.Location+"/a%2Fb/%E6%97%A5//c?x=1;y=2&z=%zz",
		bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "my-app.example.com"
	wanted := map[string]string{
		"X-URL": "http://my-app.example.com/a%2Fb/%E6%97%A5//c?x=1;y=2&z=%zz", "X-Method": "PUT",
		"Got-User-Agent": "null", "Got-Accept-Encoding": "null", "Got-Forwarded": "for=192.0.2.1",
		"Got-X-Forwarded-For": "192.0.2.1", "Got-X-Forwarded-Proto": "https", "Got-Cookie": "a=b; c=\"d\"",
	}
	req.Header = http.Header{"User-Agent": {""}, "X-Forwarded-For": {"192.0.2.1"}, "X-Forwarded-Proto": {"https"},
		"Forwarded": {"for=192.0.2.1"}, "Cookie": {`a=b; c="d"`}}
	resp, err := (&http.Transport{DisableCompression: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, body) || resp.StatusCode != http.StatusTeapot {
		t.Errorf("status %d, %d bytes, %v", resp.StatusCode, len(got), err)
	}
	for name, value := range wanted {
		if resp.Header.Get(name) != value {
			t.Errorf("%s is %q", name, resp.Header.Get(name))
		}
	}
	if cookies := resp.Header.Values("Set-Cookie"); len(cookies) != 2 {
		t.Errorf("cookies %q", cookies)
	}
}

func TestWebSocketOutlivesAnEnvironment(t *testing.T) {
	s := newSite(t)
	s.script("app", "web", mirror)
	st := ready(t, s.rt, want(1, credentials))
	conn, err := net.Dial("tcp", strings.TrimPrefix(st.Location, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v, %v", resp, err)
	}
	for _, word := range []string{"one", "two"} {
		frame := append([]byte{0x81, 0x80 | byte(len(word)), 0, 0, 0, 0}, word...) // text, masked with zeros
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 2+len("app-abc ")+len(word))
		if _, err := io.ReadFull(reader, answer); err != nil || string(answer[2:]) != "app-abc "+word {
			t.Fatalf("%q, %v", answer, err)
		}
		ready(t, s.rt, want(2, map[string]string{"OAUTH_CLIENT_ID": "app-new"}))
	}
}

// BenchmarkPushToReady is an environment change from the push to READY, the new
// workerd's start included.
func BenchmarkPushToReady(b *testing.B) {
	s := newSite(b)
	for generation := int64(1); b.Loop(); generation++ {
		ready(b, s.rt, want(generation, map[string]string{"GENERATION": strconv.FormatInt(generation, 10)}))
	}
}
