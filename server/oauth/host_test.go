package oauth

import (
	"strings"
	"testing"
)

// What can be a host at all, what is a name, and what a browser sends are three questions about the same labels.
func TestHostsAndNames(t *testing.T) {
	label := strings.Repeat("a", 63)
	for host, want := range map[string]struct{ valid, name, sent bool }{
		"app.example.com": {true, true, true}, "localhost": {true, true, true}, "xn--bcher-kva.example": {true, true, true},
		"a.1b": {true, true, true}, label + ".test": {true, true, true}, "0xg.test": {true, true, true},
		"app_1.example.com": {true, true, false}, "_acme.test": {true, true, false},
		"-a.test": {true, false, false}, "a-.test": {true, false, false},
		"node.1": {true, false, false}, "a.0x1f": {true, false, false}, // browsers refuse them, other programs do not
		"192.0.2.1": {true, false, true}, "[2001:db8::1]": {true, false, true}, "[2001:DB8::1]": {true, false, false},
		"127.1": {true, false, false}, "0x7f000001": {true, false, false}, "0x7f.1": {true, false, false},
		"2130706433":       {true, false, false},
		"app.example.com.": {false, true, false},
		"":                 {}, ".": {}, "a..b": {}, ".a": {}, label + "a.test": {}, strings.Repeat("a.", 127) +
			"test": {}, "a b": {}, "bücher.test": {},
		"1.2.3.4.5": {}, "192.0.2.256": {}, "1.2.3.08": {}, "256.1": {}, "4294967296": {}, "0x100000000": {},
		"[::1": {}, "[fe80::1%eth0]": {}, "[127.0.0.1]": {}, "2001:db8::1": {},
	} {
		if got := validHost(host); got != want.valid {
			t.Errorf("%s: a host: %t", host, got)
		}
		if got := IsHostName(host); got != want.name {
			t.Errorf("%s: a name: %t", host, got)
		}
		if want.valid && browsersSend(host) != want.sent {
			t.Errorf("%s: sent: %t", host, !want.sent)
		}
	}
}
