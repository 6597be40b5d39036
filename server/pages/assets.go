package pages

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed assets/*
var assetFiles embed.FS

// asset is a file that never changes under its address: the address holds a
// fingerprint of the content.
type asset struct {
	contentType string
	body        []byte
}

// addAsset registers assets/name below base and returns its path.
func (s *Set) addAsset(base, name, contentType string) (string, error) {
	body, err := assetFiles.ReadFile("assets/" + name)
	if err != nil {
		return "", fmt.Errorf("read asset: %w", err)
	}
	sum := sha256.Sum256(body)
	ext := path.Ext(name)
	p := base + "/assets/" + strings.TrimSuffix(name, ext) + "-" + hex.EncodeToString(sum[:6]) + ext
	s.assets[p] = asset{contentType, body}
	return p, nil
}

// AssetsPath is the path, ending in a slash, below which Assets serves: the
// issuer's path and "assets/".
func (s *Set) AssetsPath() string { return s.site.Home + "assets/" }

// Assets serves the stylesheet and the icon. It expects the whole path, not a
// stripped one. Browsers may keep the answers for ever.
func (s *Set) Assets() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := s.assets[r.URL.EscapedPath()]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		h.Set("Content-Type", a.contentType)
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		_, _ = w.Write(a.body) // net/http drops the body of a HEAD
	})
}
