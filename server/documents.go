package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Documents are public and the same for everyone: the metadata and the key set. Everything that verifies a token of
// ours asks for them, again and again, so they are made once and stand ready as bytes. A caller that has one shows its
// entity tag and is told that it has not changed (RFC 9110 section 13.1.2). The tag is a hash of the bytes, so all
// replicas give the same.

// readyDocument is a document as it is sent. The header values are shared by all responses that carry them.
type readyDocument struct {
	body         []byte
	etag, length []string
}

func newReadyDocument(v any) (*readyDocument, error) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(v); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body.Bytes())
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	return &readyDocument{body.Bytes(), []string{tag}, []string{strconv.Itoa(body.Len())}}, nil
}

// Header values of every document. The next signing key is published long before it signs, unless an operator wants it
// to sign at once, so caching for a while is safe.
var (
	documentCaching = []string{"public, max-age=300"}
)

func (d *readyDocument) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Cache-Control"], h["Etag"] = documentCaching, d.etag
	if d.heldBy(r) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h["Content-Type"], h["Content-Length"] = typeJSON, d.length
	_, _ = w.Write(d.body) // net/http leaves it out of an answer to HEAD
}

// heldBy reports whether the caller has the current tag, even as a weak one.
func (d *readyDocument) heldBy(r *http.Request) bool {
	for _, list := range r.Header["If-None-Match"] {
		for tag := range strings.SplitSeq(list, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == d.etag[0] {
				return true
			}
		}
	}
	return false
}

// documentAlgs are those of published keys; access tokens are signed by one of them.
var documentAlgs = oauth.ServerAlgs()

// keySet is the JWK Set (RFC 7517 section 5): every key that signs, will sign next, or signed what may still be valid.
type keySet struct{ made atomic.Pointer[madeKeySet] }

type madeKeySet struct {
	*readyDocument
	keys [][]*storage.Key // of which it was made, in the order of documentAlgs
}

// of gives the document of the keys that the store has now. Two callers who find that keys have changed may both make
// it.
func (s *keySet) of(store *storage.Store) (*readyDocument, error) {
	made := s.made.Load()
	if made != nil && made.current(store) {
		return made.readyDocument, nil
	}
	made = &madeKeySet{}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, use := range documentAlgs {
		keys := store.Keys(use)
		made.keys = append(made.keys, keys)
		for _, k := range keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: publicKey(k), KeyID: k.Name(), Algorithm: use, Use: "sig"})
		}
	}
	var err error
	if made.readyDocument, err = newReadyDocument(set); err != nil {
		return nil, err
	}
	s.made.Store(made)
	return made.readyDocument, nil
}

// current reports whether the store still has the very keys of which the document was made.
func (m *madeKeySet) current(store *storage.Store) bool {
	for i, use := range documentAlgs {
		if !slices.Equal(store.Keys(use), m.keys[i]) {
			return false
		}
	}
	return true
}

// documents are endpoints that are public and the same for everyone. They do not wait and read no body.
func (s *Server) publicDocuments() ([]*endpoint, error) {
	metadata, err := newReadyDocument(s.metadata())
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	keys, get := &keySet{}, []string{http.MethodGet, http.MethodHead}
	discovery := func(w http.ResponseWriter, r *http.Request) error {
		metadata.serve(w, r)
		return nil
	}
	return []*endpoint{
		{path: pathDiscovery, methods: get, document: true, serve: discovery},
		{path: pathMetadata, methods: get, document: true, serve: discovery},
		{path: oauth.PathResourceMetadata, methods: get, document: true, serve: s.resourceMetadata},
		{path: pathJWKS, methods: get, document: true, serve: func(w http.ResponseWriter, r *http.Request) error {
			set, err := keys.of(s.store)
			if err != nil {
				return fmt.Errorf("publish keys: %w", err)
			}
			set.serve(w, r)
			return nil
		}},
	}, nil
}

// documentsFirst serves documents before anything is made for a request: nothing of it can fail, wait or be told of.
// What else comes to their addresses goes to next, as everything does. Many programs join an issuer and a well-known
// path with a slash too many: documents are found there as well.
func (s *Server) documentsFirst(endpoints []*endpoint, next http.Handler) http.Handler {
	ready := make(map[string]http.Handler)
	for _, e := range endpoints {
		if !e.document {
			continue
		}
		route := s.cfg.Metrics.Route(e.path)
		h := s.cors(e, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun, told := time.Now(), (*reply)(nil)
			if s.cfg.AccessLog != nil {
				told = &reply{ResponseWriter: w}
				w = told
			}
			if e.serve(w, r) != nil {
				next.ServeHTTP(w, r) // where errors are dealt with
				return
			}
			route.Served(metrics.OK, time.Since(begun))
			if told != nil {
				s.logDocument(r, told, e.path, begun)
			}
		}))
		for _, address := range s.addresses(e) {
			ready[address] = h
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		document := ready[r.URL.Path]
		if document == nil && oddPath(r.URL.Path) {
			document = ready[path.Clean(r.URL.Path)]
		}
		if document == nil || r.Method != http.MethodGet && r.Method != http.MethodHead || len(r.URL.RawQuery) > maxQuery {
			next.ServeHTTP(w, r)
			return
		}
		s.commonHeaders(w.Header(), []string{newRequestID()})
		document.ServeHTTP(w, r)
	})
}
