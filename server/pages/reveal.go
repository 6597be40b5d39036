package pages

import (
	_ "embed"
	"strings"
)

//go:embed scripts/reveal.js
var revealFile string

// reveal gives a password a button that shows it. The button is hidden until the script runs: where scripts do not run,
// there is none.
var reveal = strings.TrimSpace(revealFile)

func (p SignIn) script() string {
	switch {
	case p.NoForm:
		return ""
	case p.Passkey.Options != "":
		return reveal + "\n" + askPasskey
	}
	return reveal
}
