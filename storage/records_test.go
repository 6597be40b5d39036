package storage

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// recordTypes are the kinds of records, by the first word of the files in testdata/records.
var recordTypes = map[string]func(value []byte) (string, error){
	"app": recoded[App], "audit": recoded[AuditEntry], "chain": recoded[link], "client": recoded[Client],
	"clock": recoded[clock], "compromised": recoded[CompromisedKey], "consent": recoded[Consent],
	"delivery": recoded[Delivery], "device": recoded[Device], "ending": recoded[ending],
	"former": recoded[FormerClient], "formerid": recoded[formerOwner], "grant": recoded[Grant],
	"grantrecord": recodedGrant, "key": recoded[Key], "logout": recoded[Logout], "mark": recoded[mark],
	"pastterm": recoded[pastTerm], "resource": recoded[resourceOwner], "rotation": recoded[SecretRotation],
	"secretuse": recoded[SecretUse], "session": recoded[Session], "sessionuse": recoded[sessionUse],
	"user": recoded[User], "arrival": recoded[arrival], "link": recoded[Link], "upstream": recoded[Upstream],
	"complete": recoded[complete], "factors": recoded[Factors], "factorsrecord": recoded[factorsRecord],
	"handle": recoded[handleRecord], "history": recoded[history], "moved": recoded[moved], "turn": recoded[turn],
}

func recoded[T any](value []byte) (string, error) {
	record, err := decode[T]("record", value)
	if err != nil {
		return "", err
	}
	return encode(record), nil
}

// recodedGrant reads a grant in its compact form, as it is found under a key.
func recodedGrant(value []byte) (string, error) {
	g, err := decodeGrant(&mvccpb.KeyValue{Key: []byte(grantKey("my-app-7k2m", "g-1")), Value: value})
	if errors.Is(err, ErrNotFound) {
		return string(value), nil
	}
	if err != nil {
		return "", err
	}
	return encodeGrant(g), nil
}

// A database outlives the program that wrote it. The files are values as an earlier version stored them, and each is
// read and written again without a difference, so replicas of both versions can work on one database.
func TestStoredRecordsStayAsTheyAre(t *testing.T) {
	files, err := filepath.Glob("testdata/records/*.json")
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		kind, _, _ := strings.Cut(name, "-")
		t.Run(name, func(t *testing.T) {
			stored, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			recode, known := recordTypes[kind]
			if !known {
				t.Fatalf("no record is called %s", kind)
			}
			got, err := recode(stored)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(stored) {
				t.Errorf("read:    %s\nwritten: %s", stored, got)
			}
		})
		seen = append(seen, kind)
	}
	for kind := range recordTypes {
		if !slices.Contains(seen, kind) {
			t.Errorf("testdata/records has no %s", kind)
		}
	}
}

// A value that was read must also be where the program looks for it.
func TestStoredClientIsUnderstood(t *testing.T) {
	stored, err := os.ReadFile("testdata/records/client-full.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := decode[Client]("client", stored)
	if err != nil {
		t.Fatal(err)
	}
	for field, got := range map[string]any{
		"ID": c.ID, "App": c.App, "Name": c.ClientName, "RedirectURIs": c.RedirectURIs,
		"PostLogoutRedirectURIs": c.PostLogoutRedirectURIs,
		"Scopes":                 c.Scopes, "LogoURI": c.LogoURI, "TosURI": c.TOSURI, "PolicyURI": c.PolicyURI,
		"RegistrationToken": len(c.RegistrationToken),
	} {
		want := map[string]any{
			"ID": "my-app-7k2m", "App": "my-app", "Name": "My App <&> 日本",
			"RedirectURIs":           []string{"https://app.example.com/cb?x=1&y=2", "http://localhost:*"},
			"PostLogoutRedirectURIs": []string{"https://app.example.com/bye"}, "Scopes": []string{"openid", "threads:read"},
			"LogoURI": "https://app.example.com/logo.png",
			"TosURI":  "https://app.example.com/tos", "PolicyURI": "https://app.example.com/privacy", "RegistrationToken": 32,
		}[field]
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", field, got, want)
		}
	}
	if !c.Public || !c.Disabled || len(c.Secrets) != 2 || c.Secrets[1].ID != "s2" || *c.DefaultMaxAge != 3600 ||
		c.SectorIdentifierURI == "" || c.CreatedAt.Equal(c.UpdatedAt) {
		t.Errorf("%+v", c)
	}
}

// Both forms of a grant say the same, and no field of one is forgotten in the other.
func TestCompactGrantSaysAllThatAGrantSays(t *testing.T) {
	stored, err := os.ReadFile("testdata/records/grant-full.json")
	if err != nil {
		t.Fatal(err)
	}
	at := func(value string) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(grantKey("my-app-7k2m", "g-1")), Value: []byte(value)}
	}
	old, err := decodeGrant(at(string(stored)))
	if err != nil {
		t.Fatal(err)
	}
	old.Term = 4711
	compact, err := decodeGrant(at(encodeGrant(old)))
	if err != nil {
		t.Fatal(err)
	}
	want := *old
	want.Session, want.OutlivesSession = "", false // the session has a note of the grant
	for _, at := range []*time.Time{&want.AuthTime, &want.CreatedAt, &want.ExpiresAt} {
		*at = at.Truncate(time.Millisecond).UTC()
	}
	if !reflect.DeepEqual(*compact, want) {
		t.Errorf("%+v\nwant %+v", *compact, want)
	}
	for field, v := range reflect.ValueOf(*old).Fields() {
		if v.IsZero() && field.Tag.Get("json") != "-" && field.Name != "Dead" {
			t.Errorf("grant-full.json leaves out %s, so nobody knows whether it is stored", field.Name)
		}
	}
	// A version before this form gets an error, and not an empty grant.
	if g, err := decode[Grant]("grant", []byte(encodeGrant(old))); err == nil {
		t.Errorf("an older version reads %+v", g)
	}
	if _, err := decodeGrant(at(tombstone("replayed"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tombstone: %v", err)
	}
}
