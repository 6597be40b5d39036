package server

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/warifu/warifu/storage"
)

// Three cookies: one ties pending requests to the browser that made them, one is the sign-in, one the language that was
// chosen. On https their names make browsers keep them to this very host, over TLS (RFC 6265bis section 4.1.3.2).
const (
	cookieBrowser = "warifu_browser"
	cookieSession = "warifu_session"
	cookieLang    = "warifu_lang"
)

// cookies are what browsers keep for this server. What they hold is sealed, and a form is tied to them.
type cookies struct {
	*issuer
	secure bool // the issuer is https
}

func (k *cookies) cookieName(name string) string {
	if k.secure {
		return "__Host-" + name
	}
	return name
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

func (k *cookies) cookie(r *http.Request, name string) string {
	// If there are two cookies of one name, one was planted: trust neither.
	cookies := r.CookiesNamed(k.cookieName(name))
	if len(cookies) != 1 || len(cookies[0].Value) > 1024 {
		return ""
	}
	return cookies[0].Value
}

// browser returns the hash of the browser's cookie, which it sets if there is none.
func (k *cookies) browser(w http.ResponseWriter, r *http.Request) string {
	if held := k.cookie(r, cookieBrowser); len(held) >= 32 {
		return hashed(held)
	}
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	value := base64.RawURLEncoding.EncodeToString(b)
	k.setCookie(w, cookieBrowser, value, 0)
	return hashed(value)
}

// sameBrowser reports whether the request came from the browser that started a.
func (k *cookies) sameBrowser(r *http.Request, a *AuthRequest) bool {
	held := k.cookie(r, cookieBrowser)
	return len(held) >= 32 && subtle.ConstantTimeCompare([]byte(hashed(held)), []byte(a.Browser)) == 1
}

func hashed(value string) string {
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

// formToken is the anti-forgery token of a form: good for one browser and one pending request. The cookie itself stays out
// of the page.
func (k *cookies) formToken(browser, request string) (string, error) {
	return k.store.SealFixed(storage.SealForm, []byte(browser+hashed(request)))
}

func (k *cookies) checkFormToken(token, browser, request string) bool {
	plain, err := k.store.Open(storage.SealForm, token)
	return err == nil && subtle.ConstantTimeCompare(plain, []byte(browser+hashed(request))) == 1
}
