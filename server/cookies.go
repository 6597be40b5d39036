package server

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/warifu/warifu/storage"
)

// Four cookies: one ties pending requests to the browser that made them, one is the sign-in, one says who has signed in
// in this browser before, one the language that was chosen. Others are there for a while: while somebody has proven a
// part of who they are (proof.go), while the browser is at an identity provider (away.go), and after a form of the
// account (account.go). On https their names make browsers keep them to this very
// host, over TLS (RFC 6265bis section 4.1.3.2).
//
// Browsers do not tell the ports of a host apart, and a __Host- cookie has no path: so where an issuer has a port or a
// path of its own, the names end with a fingerprint of it, and the cookies of two servers on one host do not mix.
const (
	cookieBrowser = "warifu_browser"
	cookieSession = "warifu_session"
	cookieKnown   = "warifu_known"
	cookieLang    = "warifu_lang"
)

// cookies are what browsers keep for this server. What they hold is sealed, and a form is tied to them.
type cookies struct {
	*issuer
	secure bool   // the issuer is https
	own    string // what the names end with
}

func newCookies(iss *issuer, address *url.URL) *cookies {
	k := &cookies{issuer: iss, secure: address.Scheme == "https"}
	if address.Port() != "" || address.Path != "" {
		sum := sha256.Sum256([]byte(iss.name))
		k.own = "_" + hex.EncodeToString(sum[:4])
	}
	return k
}

func (k *cookies) cookieName(name string) string {
	if k.secure {
		name = "__Host-" + name
	}
	return name + k.own
}

// setCookie keeps a cookie for life, for as long as the browser is open (0), or not at all (less).
func (k *cookies) setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	c := &http.Cookie{
		Name: k.cookieName(name), Value: value, Path: "/",
		MaxAge: int(life / time.Second), HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: k.secure,
	}
	if life < 0 {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

func (k *cookies) cookie(r *http.Request, name string) string { return k.longCookie(r, name, 1024) }

// longCookie is a cookie of at most so many bytes.
func (k *cookies) longCookie(r *http.Request, name string, most int) string {
	// If there are two cookies of one name, one was planted: trust neither.
	cookies := r.CookiesNamed(k.cookieName(name))
	if len(cookies) != 1 || len(cookies[0].Value) > most {
		return ""
	}
	return cookies[0].Value
}

// browser returns the hash of the browser's cookie, which it sets if there is none.
func (k *cookies) browser(w http.ResponseWriter, r *http.Request) string {
	if held := k.cookie(r, cookieBrowser); len(held) >= 32 {
		return hashOf(held)
	}
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	value := base64.RawURLEncoding.EncodeToString(b)
	k.setCookie(w, cookieBrowser, value, 0)
	return hashOf(value)
}

// sameBrowser reports whether the request came from the browser that started a.
func (k *cookies) sameBrowser(r *http.Request, a *AuthRequest) bool {
	held := k.cookie(r, cookieBrowser)
	return len(held) >= 32 && subtle.ConstantTimeCompare([]byte(hashOf(held)), []byte(a.Browser)) == 1
}

// hashOf is what is kept and compared in the place of a value.
func hashOf(value string) string {
	sum := sha256.Sum256([]byte(value))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sessionRef is what the session cookie holds, sealed: with the user's id in it, one read brings everything.
type sessionRef struct {
	ID   string `json:"i"`
	User string `json:"u"`
}

// session is the sign-in that a browser claims; storage knows whether it still stands.
func (k *cookies) session(r *http.Request) (sessionRef, bool) {
	var ref sessionRef
	sealed := k.cookie(r, cookieSession)
	if sealed == "" || k.open(storage.SealSession, sealed, &ref) != nil {
		return sessionRef{}, false
	}
	return ref, true
}

func (k *cookies) setSession(w http.ResponseWriter, ref sessionRef) error {
	sealed, err := k.seal(storage.SealSession, ref)
	if err != nil {
		return err
	}
	k.setCookie(w, cookieSession, sealed, k.life.Session)
	return nil
}

// knownBrowser is what the cookie of a browser holds in which people have signed in, sealed. It opens nothing, but
// their names are not locked there by what others guess elsewhere.
type knownBrowser struct {
	ID    string   `json:"i"` // for which its own guesses count
	Users []string `json:"u"` // hashes of their ids, or marks of these, the last one to sign in first
}

const (
	// knownFor is how long a browser is known; shorter where sealing keys are dropped before.
	knownFor = 180 * 24 * time.Hour
	// mostKnown are the users of one browser.
	mostKnown = 8
)

// knows reports whether the user has signed in in this browser.
func (b knownBrowser) knows(userID string) bool { return userID != "" && b.knowsHash(hashOf(userID)) }

// knowsHash is knows, by the hash of the user's id.
func (b knownBrowser) knowsHash(user string) bool {
	return user != "" && b.ID != "" && (slices.Contains(b.Users, user) || b.proved(user))
}

// proved reports whether the user, by the hash of their id, has given a second factor in this browser. To have signed
// in is not enough for guesses of codes: whoever had the password before there was a second factor has many such
// browsers.
func (b knownBrowser) proved(user string) bool {
	return user != "" && b.ID != "" && slices.Contains(b.Users, provedMark(user))
}

func provedMark(user string) string { return hashOf("second factor " + user) }

func (k *cookies) known(r *http.Request) knownBrowser {
	var b knownBrowser
	if sealed := k.cookie(r, cookieKnown); sealed == "" || k.open(storage.SealKnown, sealed, &b) != nil {
		return knownBrowser{}
	}
	return b
}

// keepKnown keeps in the browser that somebody has signed in there, by the hash of their id, and whether by a second
// factor; "" is nobody whose password can be guessed.
func (k *cookies) keepKnown(w http.ResponseWriter, r *http.Request, user string, proved bool) error {
	if user == "" {
		return nil
	}
	b := k.known(r)
	if b.ID == "" {
		b.ID = randomHex(16)
	}
	mark := provedMark(user)
	now := user
	if proved || b.proved(user) {
		now = mark
	}
	users := append([]string{now}, slices.DeleteFunc(b.Users, func(u string) bool { return u == user || u == mark })...)
	b.Users = users[:min(len(users), mostKnown)]
	sealed, err := k.seal(storage.SealKnown, b)
	if err != nil {
		return err
	}
	k.setCookie(w, cookieKnown, sealed, knownFor)
	return nil
}

// formToken is the anti-forgery token of a form: good for one browser and one pending request. The cookie itself stays
// out of the page.
func (k *cookies) formToken(browser, request string) (string, error) {
	return k.store.SealFixed(storage.SealForm, []byte(browser+hashOf(request)))
}

func (k *cookies) checkFormToken(token, browser, request string) bool {
	plain, err := k.store.Open(storage.SealForm, token)
	return err == nil && subtle.ConstantTimeCompare(plain, []byte(browser+hashOf(request))) == 1
}
