package server

import (
	"bytes"
	"compress/flate"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// away is what a browser keeps, sealed, while it is at an identity provider: what was asked there, and which request of
// an app it is for. Its name follows from the state, so the answer finds it, and only in the browser that began.
type away struct {
	Connector string        `json:"c"`
	Ask       connector.Ask `json:"q"`
	Keep      []byte        `json:"k,omitempty"` // of the connector
	Request   AuthRequest   `json:"r"`
	Ends      int64         `json:"e"` // Unix milliseconds

	cookies []string // that it came in
}

const (
	cookieAway = "warifu_away_"
	// awayFor is how long somebody may take at an identity provider.
	awayFor = 15 * time.Minute
	// mostAway are pending in one browser, in as many tabs, with at most so many bytes in all: a proxy may have 8 KB for
	// the header with all cookies (large_client_header_buffers of nginx).
	mostAway      = 4
	mostAwayBytes = 6 << 10
	// A cookie has at most 4,096 bytes with its name and attributes (RFC 6265 section 6.1). What is longer is in several.
	awayChunk      = 3500
	mostAwayChunks = 6
)

// randomState has 256 bits in 43 characters.
func randomState() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// awayName is the name of the first cookie for a state, and with a number of the others.
func (k *cookies) awayName(state string, chunk int) string {
	sum := sha256.Sum256([]byte(state))
	return awayCookie(hex.EncodeToString(sum[:8]), chunk)
}

func awayCookie(hash string, chunk int) string {
	name := cookieAway + hash
	if chunk > 0 {
		name += "_" + strconv.Itoa(chunk)
	}
	return name
}

// keepAway has the browser keep what it is away for, and drop the oldest of too many.
func (k *cookies) keepAway(w http.ResponseWriter, r *http.Request, a away) error {
	a.Ends = k.now().Add(awayFor).UnixMilli()
	sealed, err := k.sealAway(a)
	if err != nil {
		return err
	}
	if len(sealed) > mostAwayBytes {
		return onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleRequestTooLong,
			"the request is too long for a sign-in at another identity provider: shorten its state"))
	}
	held := k.allAway(r)
	bytes := len(sealed)
	for i, other := range held { // the latest first
		if bytes += other.bytes; i+1 >= mostAway || bytes > mostAwayBytes {
			k.dropAway(w, other.away)
		}
	}
	for chunk := range slices.Chunk([]byte(sealed), awayChunk) {
		n := len(a.cookies)
		a.cookies = append(a.cookies, k.awayName(a.Ask.State, n))
		k.setCookie(w, a.cookies[n], string(chunk), awayFor)
	}
	return nil
}

// sealAway compresses what it seals. The secrets in it are new each time, so its length tells nothing of them.
func (k *cookies) sealAway(a away) (string, error) {
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.BestCompression)
	if err == nil {
		err = errors.Join(json.NewEncoder(z).Encode(a), z.Close())
	}
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return k.store.Seal(storage.SealAway, out.Bytes())
}

func (k *cookies) openAway(sealed string, a *away) error {
	plain, err := k.store.Open(storage.SealAway, sealed)
	if err != nil {
		return err
	}
	return json.NewDecoder(flate.NewReader(bytes.NewReader(plain))).Decode(a) // which is our own
}

// away is what the browser is away for by this state.
func (k *cookies) away(r *http.Request, state string) (a away, is bool) {
	if state == "" {
		return away{}, false
	}
	sealed := ""
	for n := range mostAwayChunks {
		name := k.awayName(state, n)
		held := r.CookiesNamed(k.cookieName(name))
		if len(held) != 1 { // of two of one name, one was planted
			break
		}
		sealed += held[0].Value
		a.cookies = append(a.cookies, name)
	}
	if k.openAway(sealed, &a) != nil || a.Ask.State != state || k.now().UnixMilli() > a.Ends {
		return away{}, false
	}
	return a, true
}

// dropAway has the browser forget.
func (k *cookies) dropAway(w http.ResponseWriter, a away) {
	for _, name := range a.cookies {
		k.setCookie(w, name, "", -1)
	}
}

// pendingAway is one of several.
type pendingAway struct {
	away
	bytes int
}

var awayHash = regexp.MustCompile(`^([0-9a-f]{16})(_[0-9])?$`)

// allAway are those that a browser holds, the latest first. What cannot be read comes last, so that it goes first.
func (k *cookies) allAway(r *http.Request) []pendingAway {
	before, after, _ := strings.Cut(k.cookieName(cookieAway+" "), " ")
	byHash := make(map[string]*pendingAway)
	sealed := make(map[string]string)
	for _, c := range r.Cookies() {
		name, is := strings.CutPrefix(c.Name, before)
		name, ends := strings.CutSuffix(name, after)
		match := awayHash.FindStringSubmatch(name)
		if !is || !ends || match == nil {
			continue
		}
		p := byHash[match[1]]
		if p == nil {
			p = &pendingAway{}
			byHash[match[1]] = p
		}
		p.cookies = append(p.cookies, cookieAway+name)
		p.bytes += len(c.Value)
		sealed[match[1]] += c.Value // browsers send the chunks in the order in which they were set
	}
	var all []pendingAway
	for hash, p := range byHash {
		var a away
		if k.openAway(sealed[hash], &a) == nil {
			p.Ends = a.Ends
		}
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b pendingAway) int { return int(b.Ends - a.Ends) })
	return all
}
