package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/conformance/local"
)

// own is the warifu server that the suite starts, once, for all tests that need it.
var own struct {
	once   sync.Once
	err    error
	server *local.Server
	party  *Party
	cfg    Config
	slots  chan struct{} // of all suites together: the server counts sign-ins of a user at the same time as guesses
	keys   keyring       // of all suites together: making them takes long
}

// ownSuite is a suite for our own server, with changes of the configuration.
func ownSuite(t *testing.T, change func(*Config)) *Suite {
	t.Helper()
	own.once.Do(func() { own.err = startOwn() })
	if own.err != nil {
		t.Fatal(own.err)
	}
	cfg := own.cfg
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, own.party)
	if err != nil {
		t.Fatal(err)
	}
	s.slots, s.keys = own.slots, &own.keys
	t.Cleanup(s.Close)
	return s
}

// registrationOn lets clients register themselves.
const registrationOn = `oauth2: {registration: {enabled: true, initialAccessTokenFiles: [registration-token]}}
`

// startOwn starts the server, serves the relying party, and registers its clients.
func startOwn() (err error) {
	token := rand.Text() + rand.Text()
	own.server, err = local.Start(context.Background(), local.Options{
		Binary: os.Getenv("WARIFU_BINARY"), Config: registrationOn,
		Files: map[string][]byte{"registration-token": []byte(token)},
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	base := "https://" + listener.Addr().String()
	own.party = Serve(listener, base, &own.server.Certificate)
	if own.cfg, err = ReadConfig("testdata/warifu.yaml"); err != nil {
		return err
	}
	cfg := &own.cfg
	cfg.Issuer, cfg.CAFile, cfg.BaseURL, cfg.Registration.InitialAccessToken = own.server.Issuer, own.server.CAFile,
		base, token
	own.slots = make(chan struct{}, min(8, 2*runtime.GOMAXPROCS(0)))
	var faults []error
	client := func(app string) Client {
		manifest, err := os.ReadFile(filepath.Join("testdata", "apps", app+".yml"))
		if err == nil {
			err = own.server.Apply(bytes.ReplaceAll(manifest, []byte("$BASE"), []byte(base)))
		}
		c, err2 := own.server.Credentials(app)
		faults = append(faults, err, err2)
		return Client{ID: c.ClientID, Secret: c.ClientSecret, RedirectURI: base + "/callback", PostLogoutRedirectURI: base +
			"/post_logout_redirect"}
	}
	cfg.Clients.Client, cfg.Clients.Client2, cfg.Clients.SecretPost = client("client"), client("client2"),
		client("client-secret-post")
	back, front := client("backchannel"), client("frontchannel")
	back.BackchannelLogoutURI, front.FrontchannelLogoutURI = base+"/backchannel_logout", base+"/frontchannel_logout"
	cfg.Clients.Backchannel, cfg.Clients.Frontchannel = &back, &front
	return errors.Join(faults...)
}

// stopOwn ends what startOwn has started.
func stopOwn() error {
	var faults []error
	if own.server != nil {
		faults = append(faults, own.server.Stop())
	}
	if own.party != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		faults = append(faults, own.party.Close(ctx))
	}
	return errors.Join(faults...)
}
