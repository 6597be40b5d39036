package oauth

import (
	"errors"
	"testing"
)

func TestSector(t *testing.T) {
	for rule, c := range map[string]struct {
		uri       string
		redirects []string
		want      string
		err       error
	}{
		"one host": {redirects: []string{"https://app.test/a", "https://APP.test:8443/b"},
			want: "app.test"},
		"loopback does not count": {redirects: []string{"https://app.test/a", "http://localhost:*",
			"http://127.0.0.1:3000/cb", "http://[::1]:*/cb"}, want: "app.test"},
		"nothing but loopback": {redirects: []string{"http://localhost:*"}, want: "client c"},
		"native":               {redirects: []string{"com.example.app:/cb"}, want: "client c"},
		"several hosts":        {redirects: []string{"https://app.test/a", "https://b.test/b"}, err: ErrSectors},
		"several hosts, one identifier": {uri: "https://Sector.test:444/x", redirects: []string{"https://app.test/a",
			"https://b.test/b"}, want: "sector.test"},
	} {
		got, err := (&Client{RedirectURIs: c.redirects, ClientMetadata: ClientMetadata{SectorIdentifierURI: c.uri}}).Sector(
			"c")
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", rule, got, err)
		}
	}
	for _, bad := range []string{"sector", "https://", "::"} {
		if got, err := (&Client{ClientMetadata: ClientMetadata{SectorIdentifierURI: bad}}).Sector("c"); err == nil {
			t.Errorf("sector identifier %q gives %q", bad, got)
		}
	}
}
