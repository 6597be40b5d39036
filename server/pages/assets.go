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
	return s.serveAsset(base, name, asset{contentType, body}), nil
}

// serveAsset registers an asset below base and returns its path.
func (s *Set) serveAsset(base, name string, a asset) string {
	sum := sha256.Sum256(a.body)
	ext := path.Ext(name)
	p := base + "/assets/" + strings.TrimSuffix(name, ext) + "-" + hex.EncodeToString(sum[:6]) + ext
	s.assets.Store(p, a)
	return p
}

// AssetsPath is the path, ending in a slash, below which Assets serves: the
// issuer's path and "assets/".
func (s *Set) AssetsPath() string { return s.site.Home + "assets/" }

// Assets serves the stylesheet, the icon and logos. It expects the whole path, not a
// stripped one, and leaves to nowhere what there is not. Browsers may keep the answers for ever.
func (s *Set) Assets(nowhere http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		held, ok := s.assets.Load(r.URL.EscapedPath())
		if !ok {
			held, ok = s.before.Load(r.URL.EscapedPath())
		}
		if !ok {
			nowhere(w, r)
			return
		}
		a := held.(asset)
		h := w.Header()
		h.Set("Content-Type", a.contentType)
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		// An SVG that is opened by itself is a document: it may look as it does in an image, and do nothing.
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox")
		_, _ = w.Write(a.body) // net/http drops the body of a HEAD
	})
}
