package admin_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
)

func refusal(id string) oauth.Refusal {
	return oauth.Refusal{
		RequestID: id, At: time.Unix(1, 0), Endpoint: "/oauth/token", ClientID: "a-client", App: "an-app",
		Error:  *oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeNotInManifest, "no %s", "such").About("such", "", ""),
		Params: map[string]string{"scope": "such"},
	}
}

func TestRefusalsKeepsTheLastOnes(t *testing.T) {
	m := admin.NewRefusals(3)
	for n := range 10 {
		m.Add(refusal(fmt.Sprint(n)))
	}
	for n := range 10 {
		got, known := m.Find(fmt.Sprint(n))
		if known != (n >= 7) {
			t.Errorf("%d: %v", n, known)
		}
		if known && (got.Error.Rule != oauth.RuleScopeNotInManifest || got.Params["scope"] != "such" ||
			got.RequestID != fmt.Sprint(n)) {
			t.Errorf("%d: %+v", n, got)
		}
	}
	m.Add(refusal("8")) // again: the older one goes first, and the newer one stays
	m.Add(refusal("x"))
	m.Add(refusal("y"))
	if _, known := m.Find("8"); !known {
		t.Error("the newer of two is forgotten with the older")
	}
}

func TestRefusalsAreBoundedInBytes(t *testing.T) {
	const n = 4096
	m := admin.NewRefusals(n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	huge := strings.Repeat("x", 60<<10)
	for i := range 3 * n {
		r := refusal(fmt.Sprint(i))
		r.ClientID, r.Endpoint, r.Error.Asked, r.Error.Nearest, r.Error.Description = huge, huge, huge, huge, huge
		r.Params = make(map[string]string)
		for p := range 17 {
			r.Params[fmt.Sprint(p)] = huge
		}
		m.Add(r)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("it takes %d KiB", grown>>10)
	}
	got, known := m.Find(fmt.Sprint(3*n - 1))
	if !known || len(got.Error.Asked) > 1024 || !strings.HasSuffix(got.Error.Asked, "...") {
		t.Errorf("the last one: %v, %d bytes", known, len(got.Error.Asked))
	}
	runtime.KeepAlive(m)
}

func TestRefusalsLeaveOutWhatIsNoRefusal(t *testing.T) {
	m := admin.NewRefusals(3)
	for _, code := range []string{oauth.CodeAuthorizationPending, oauth.CodeUseDPoPNonce} {
		r := refusal(code)
		r.Error.Code = code
		m.Add(r)
		if _, known := m.Find(code); known {
			t.Errorf("%s is kept", code)
		}
	}
	probe := refusal("probe")
	probe.Error = oauth.Error{Rule: oauth.RulePathUnknown}
	m.Add(probe)
	if _, known := m.Find("probe"); !known {
		t.Error("an address that there is not is not explained")
	}
	m.Add(refusal("kept"))
	for n := range 20 {
		probe.RequestID = fmt.Sprint("probe-", n)
		m.Add(probe)
		beyond := refusal(fmt.Sprint("beyond-", n))
		beyond.Beyond = true
		m.Add(beyond)
	}
	if _, known := m.Find("kept"); !known {
		t.Error("a flood drives out what others were refused")
	}
	if _, known := m.Find("beyond-19"); !known {
		t.Error("the last of a flood is not explained")
	}
	m.Add(refusal(""))
	if _, known := m.Find(""); known {
		t.Error("a refusal without a request is found")
	}
}

func TestRefusalsBlankWhatLooksLikeACredential(t *testing.T) {
	secret := "wfs_" + strings.Repeat("Ab3-_", 9)
	code := "wfc_" + strings.Repeat("c", 200)
	jwt := "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ." + strings.Repeat("s", 80)
	m := admin.NewRefusals(3)
	for n, canary := range []string{secret, code, jwt} {
		r := refusal(fmt.Sprint(n))
		text := strings.Repeat("ä", 500) + " " + canary + " " + canary // it is cut off within one, too
		r.ClientID, r.App, r.Endpoint = canary, canary, canary
		r.Error = oauth.Error{Code: canary, Rule: canary, Description: text, Asked: text, Nearest: canary, Where: canary}
		r.Params = map[string]string{"scope": text, canary: canary}
		m.Add(r)
		got, known := m.Find(fmt.Sprint(n))
		if !known {
			t.Fatal("not kept")
		}
		if said := fmt.Sprintf("%+v", got); strings.Contains(said, canary[:24]) {
			t.Errorf("%s", said)
		}
	}
}

func TestRefusalsByManyAtOnce(t *testing.T) {
	m := admin.NewRefusals(50)
	var all sync.WaitGroup
	for writer := range 8 {
		all.Go(func() {
			for n := range 500 {
				id := fmt.Sprintf("%d-%d", writer, n)
				m.Add(refusal(id))
				if got, known := m.Find(id); known && got.RequestID != id {
					t.Errorf("%s is %s", id, got.RequestID)
				}
			}
		})
	}
	all.Wait()
	kept := 0
	for writer := range 8 {
		for n := range 500 {
			if _, known := m.Find(fmt.Sprintf("%d-%d", writer, n)); known {
				kept++
			}
		}
	}
	if kept != 50 {
		t.Errorf("%d are kept", kept)
	}
}
