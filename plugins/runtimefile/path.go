package runtimefile

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/warifu/warifu/plugins"
)

// A file's name is <dir>/<app>/<kind>-<name>.env, app and name with every byte
// but letters, digits, - and _ as %XX, so that no name can leave the directory
// or meet another.

// maxName keeps an encoded name within what file systems take, with room for a
// temporary file's additions.
const maxName = 200

const envExt = ".env"

func (r *fileRuntime) path(app string, t plugins.Target) (string, error) {
	if err := t.Check(); err != nil {
		return "", fmt.Errorf("%w: %w", plugins.ErrInvalid, err)
	}
	appName, base := encodeName(app), t.Kind+"-"+encodeName(t.Name)+envExt
	if app == "" || len(appName) > maxName || len(base) > maxName {
		return "", fmt.Errorf("%w: the app's or target's name is empty or too long for a file", plugins.ErrInvalid)
	}
	return filepath.Join(r.dir, appName, base), nil
}

func encodeName(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// decodeName is the other way round; false for what encodeName does not write.
func decodeName(encoded string) (string, bool) {
	name, err := url.PathUnescape(encoded)
	return name, err == nil && name != "" && encodeName(name) == encoded
}

// target reads a file's name back.
func target(base string) (plugins.Target, bool) {
	stem, isEnv := strings.CutSuffix(base, envExt)
	kind, encoded, found := strings.Cut(stem, "-")
	name, ok := decodeName(encoded)
	t := plugins.Target{Kind: kind, Name: name}
	return t, isEnv && found && ok && t.Check() == nil
}
