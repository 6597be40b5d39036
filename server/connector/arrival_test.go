package connector_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/connector"
)

// What an upstream says is held to what this server believes of anybody.
func TestAdmit(t *testing.T) {
	c := connector.Connector{ID: "up"}
	long := strings.Repeat("長", 400)
	who, err := c.Admit(connector.Identity{
		UserID: "1", Name: " Ann\x00\u0085\tB.\r\n ", Email: strings.Repeat("a", 255), EmailVerified: true, Username: long,
		Groups: []string{"staff", " staff ", "", "team-a"}, Address: connector.Address{Formatted: "1 Road\n2 Town\x1b"},
		Profile: connector.Profile{PictureURL: "javascript:alert(1)", ProfileURL: "https://example.com/ann",
			WebsiteURL:  "/ann",
			PhoneNumber: strings.Repeat("1", 101), PhoneNumberVerified: true, Locale: "ja-JP"},
		AMR: []string{"pwd", "", "otp\n"}, ACR: strings.Repeat("x", 501),
	})
	if err != nil {
		t.Fatal(err)
	}
	if who.Name != "Ann B." || who.Address.Formatted != "1 Road\n2 Town" || who.Locale != "ja-JP" ||
		who.ProfileURL != "https://example.com/ann" {
		t.Errorf("%+v", who)
	}
	if who.Email != "" || who.EmailVerified || who.PictureURL != "" || who.WebsiteURL != "" || who.PhoneNumber != "" ||
		who.PhoneNumberVerified || who.ACR != "" {
		t.Errorf("what means something else when it is cut: %+v", who)
	}
	if len(who.Username) != 498 || !strings.HasPrefix(long, who.Username) {
		t.Errorf("cut to %d bytes", len(who.Username))
	}
	if !slices.Equal(who.Groups, []string{"staff", "team-a"}) || !slices.Equal(who.AMR, []string{"pwd"}) {
		t.Errorf("%q %q", who.Groups, who.AMR)
	}
}

// Of groups, those count that the configuration keeps; whoever has more of them than tokens hold is not let in, and
// nothing is left out silently.
func TestAdmitGroups(t *testing.T) {
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("cn=group-%d,dc=example", i))
	}
	told := append([]string{"staff", "team-a"}, many...)
	for _, c := range []struct {
		rule string
		keep []string
		told []string
		want []string // nil: refused
	}{
		{"all", nil, told[:2], []string{"staff", "team-a"}},
		{"all of too many", nil, told, nil},
		{"some of too many", []string{"staff", "team-*"}, told, []string{"staff", "team-a"}},
		{"none of too many", []string{}, told, []string{}},
		{"a name that is too long", nil, []string{strings.Repeat("g", 201)}, nil},
		{"a name in two lines", nil, []string{"a\nb"}, nil},
		{"a name that is no text", nil, []string{"\xff"}, nil},
		{"too many bytes", nil, []string{strings.Repeat("a", 199), strings.Repeat("b", 199)},
			[]string{strings.Repeat("a", 199), strings.Repeat("b", 199)}},
	} {
		made := connector.Connector{Groups: c.keep}
		who, err := made.Admit(connector.Identity{UserID: "1", Groups: c.told})
		var groups *connector.TooManyGroups
		var refused *connector.RefusedError
		switch {
		case c.want != nil && (err != nil || !slices.Equal(who.Groups, c.want)):
			t.Errorf("%s: %q, %v", c.rule, who.Groups, err)
		case c.want == nil && (errors.As(err, &groups) != (len(c.told) > 1) || !errors.As(err, &refused) ||
			len(who.Groups) > 0 ||
			!strings.Contains(refused.Reason, fmt.Sprint(len(c.told)))):
			t.Errorf("%s: %q, %v", c.rule, who.Groups, err)
		case err != nil && strings.Contains(err.Error(), "cn=group"):
			t.Errorf("%s: the log names groups: %v", c.rule, err)
		}
	}
	for _, id := range []string{"", strings.Repeat("x", 1025), "\xff"} {
		made := connector.Connector{}
		var refused *connector.RefusedError
		if _, err := made.Admit(connector.Identity{UserID: id}); !errors.As(err, &refused) {
			t.Errorf("%.10q: %v", id, err)
		}
	}
}
