package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/plugins/runtimeworkers"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// devOptions are the flags of `warifu dev`.
type devOptions struct {
	files  []string
	listen string
	data   string
	config string
	users  []string
	format string
}

// defaultManifests are looked for when no file is named.
var defaultManifests = []string{filepath.Join(".takos", "app.yml"), "app.yml"}

func (c *cli) dev() *cobra.Command {
	var opts devOptions
	command := &cobra.Command{
		Use: "dev [-f FILE]...", Short: "Try it on this machine: server, database, user and your app.yml in one process",
		Long: `dev runs a complete server on this machine for developing an app: an embedded database, a user, an
invitation for another one, and the app that the manifest describes, with its env in files. Saving the
manifest applies it again; a faulty edit is reported and changes nothing. Everything is kept in the data
directory, so the next start has the same client ids, secrets and grants.

The link of the invitation leads to a page on which the user chooses how to sign in. It is printed at each
start until it was used. --user adds users, whose passwords are made and kept as well. With --config, a
file in the language of warifu serve says more: scopes, staticPasswords, connectors, subject, claims,
expiry, oauth2 (registration and the like), outbound, trustedIssuers, web.allowedOrigins, web.trustedProxies
and logger. So do environment variables, as in WARIFU_OAUTH2_REGISTRATION_ENABLED=true, or
WARIFU_EXPIRY_REFRESH_TOKENS_REUSE_INTERVAL=10s.

A Worker whose script exists at the manifest's artifactPath runs in workerd, if dev finds it: at
$WARIFU_WORKERD, in PATH, or in node_modules (npm install workerd).`,
		Example: `  warifu dev                         with .takos/app.yml, or app.yml
  warifu dev -f web/app.yml -f api/app.yml
  warifu dev --user ann@example.com --config dev.yaml
  warifu dev -o json                 one line on stdout once it is ready`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runDev(cmd.Context(), opts) },
	}
	flags := command.Flags()
	flags.StringArrayVarP(&opts.files, "filename", "f", nil,
		"manifest; can be repeated (default .takos/app.yml, then app.yml)")
	flags.StringVar(&opts.listen, "listen", "localhost:5556",
		"host:port of the issuer; the host is localhost, 127.0.0.1 or [::1]")
	flags.StringVar(&opts.data, "data", ".warifu", "directory for everything that dev keeps")
	flags.StringVar(&opts.config, "config", "", "configuration for what dev does not decide by itself")
	flags.StringArrayVar(&opts.users, "user", nil, "e-mail address of one more user; can be repeated")
	must(command.MarkFlagFilename("config", "yml", "yaml"))
	must(command.MarkFlagFilename("filename", "yml", "yaml"))
	must(command.MarkFlagDirname("data"))
	outputFlag(command, &opts.format, "table", "json")
	return command
}

// devUser is a user of a dev server. The password is random, and kept in the data directory.
type devUser struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

func (c *cli) runDev(ctx context.Context, opts devOptions) error {
	files := opts.files
	if len(files) == 0 {
		found := slices.IndexFunc(defaultManifests, exists)
		if found < 0 {
			return usagef("there is no manifest: looked for %s; name one with -f", strings.Join(defaultManifests, " and "))
		}
		files = []string{defaultManifests[found]}
	}
	// First of all, so that a manifest that cannot be read does not stop a server that is half started. Scopes are
	// checked when the manifest is applied.
	docs, faults := manifests.Load(files, nil, manifests.Options{Dev: true})
	if faults.Err() != nil {
		return faults.Err()
	}
	workers, err := c.findWorkers(docs)
	if err != nil {
		return err
	}
	web, issuer, err := devListeners(ctx, opts.listen)
	if err != nil {
		return err
	}
	defer func() {
		for _, listener := range web {
			_ = listener.Close()
		}
	}()
	if err := os.MkdirAll(opts.data, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	users, people, err := devUsers(opts)
	if err != nil {
		return err
	}
	cfg := devConfig(opts.data, issuer, web[0])
	cfg.StaticPasswords, cfg.Plugins = people, workers.settings()
	c.warnOfVariables(config.MisspelledForDev(c.environ, adminVariable, workerdVariable),
		"warifu dev takes scopes, users and the like from --config, and decides the rest by itself")
	settings, err := config.ReadDev(cfg, opts.config, c.environ)
	if err != nil {
		return err
	}
	log, relog := newLogger(cfg.Logger, c.stderr)
	i, err := build(ctx, settings,
		building{dev: true, web: web, log: log, relog: relog, refused: c.sayRefused})
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	defer i.close()
	d := &devServer{cli: c, instance: i, opts: opts, files: files, users: users, workers: workers}
	return i.run(ctx, d.follow)
}

// devConfig is what dev decides by itself.
func devConfig(data, issuer string, web net.Listener) *config.Config {
	cfg := config.Default()
	cfg.Issuer, cfg.Web.HTTP = issuer, web.Addr().String()
	cfg.Storage.Config.DataDir = data
	cfg.Web.AllowedOrigins = []string{"http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*", "https://localhost:*"}
	cfg.Outbound.Allow = []string{"127.0.0.0/8", "::1/128"} // the app that is being developed
	cfg.EnablePasswordDB = true
	cfg.Logger.Level = "warn"
	return cfg
}

// sayRefused shows whoever develops an app what it was refused. The steps of a protocol are no news, nor is what
// browsers look for by themselves.
func (c *cli) sayRefused(r oauth.Refusal) {
	if r.Error.Step() || r.Error.Rule == oauth.RulePathUnknown {
		return
	}
	who := ""
	if name := cmp.Or(r.App, r.ClientID); name != "" {
		who = " for " + name
	}
	c.say("%s %s%s: %s [%s]; more: warifu explain %s", c.paint(c.stderr, yellow, "refused"), harmless(r.Endpoint),
		harmless(who), harmless(strings.Trim(r.Error.Error(), ": ")), r.Error.Rule, r.RequestID)
}

// devListeners listen where --listen says, and give the issuer that has that address. localhost is both addresses of
// this machine: programs try them in either order, and another server on one of them would get half of the requests.
func devListeners(ctx context.Context, address string) (web []net.Listener, issuer string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !oauth.IsLoopback(host) {
		return nil, "", usagef("--listen %s: dev listens on localhost, 127.0.0.1 or [::1] only, as in localhost:5556; "+
			"for other addresses use warifu serve", address)
	}
	first := cmp.Or(map[string]string{"localhost": "127.0.0.1"}[host], host)
	listen := func(host, port string) (net.Listener, error) {
		return (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, port))
	}
	for range 10 { // a free port of one address may be taken at the other
		var one, other net.Listener
		if one, err = listen(first, port); err != nil {
			break
		}
		_, chosen, _ := net.SplitHostPort(one.Addr().String()) // it is one of TCP
		web, issuer = []net.Listener{one}, "http://"+net.JoinHostPort(host, chosen)
		if host != "localhost" {
			return web, issuer, nil
		}
		if other, err = listen("::1", chosen); err == nil {
			return append(web, other), issuer, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) { // this machine has no IPv6
			return web, issuer, nil
		}
		_ = one.Close()
		if port != "0" {
			break
		}
	}
	return nil, "", fmt.Errorf("listen on %s: %w (another warifu dev? choose another address with --listen)", address, err)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// devUsers are the users of a dev server, and as the configuration has them: the one that there always is, and those of
// --user.
func devUsers(opts devOptions) (users []devUser, people []config.StaticPassword, err error) {
	for i, email := range append([]string{"dev@example.com"}, opts.users...) {
		name := "user"
		if i > 0 {
			a, err := mail.ParseAddress(email)
			if err != nil || a.Address != email || strings.ContainsAny(email, "/\\") {
				return nil, nil, usagef("--user %s: it must be an e-mail address, as in ann@example.com", harmless(email))
			}
			name = "user-" + strings.ToLower(email)
		}
		user, err := loadDevUser(filepath.Join(opts.data, name+".json"), email)
		if err != nil {
			return nil, nil, err
		}
		hash, err := devHash(filepath.Join(opts.data, name+".hash"), user.Password)
		if err != nil {
			return nil, nil, fmt.Errorf("hash a user's password: %w", err)
		}
		users = append(users, user)
		if i == 0 {
			people = append(people, devPerson(user.Email, hash))
			continue
		}
		local, _, _ := strings.Cut(email, "@")
		people = append(people, config.StaticPassword{
			Email: email, EmailVerified: true, UserID: "dev-" + strings.ToLower(email), Name: local, Hash: hash})
	}
	return users, people, nil
}

// devPerson has every claim, so that an app can be tried with whatever it asks for. The phone number is one of those
// reserved for fiction.
func devPerson(email, hash string) config.StaticPassword {
	return config.StaticPassword{
		Email: email, EmailVerified: true, Username: "dev", Name: "Dev User", UserID: "dev", Hash: hash,
		GivenName: "Dev", FamilyName: "User", MiddleName: "Q.", Nickname: "devvy",
		Profile: "https://example.com/dev", Picture: "https://example.com/dev/picture.png", Website: "https://example.com/",
		Gender: "female", Birthdate: "1990-04-01", Zoneinfo: "Asia/Tokyo", Locale: "en-US",
		PhoneNumber: "+1 (202) 555-0100", PhoneNumberVerified: true, PreferredUsername: "dev",
		Groups: []string{"developers"}, Attributes: map[string]any{"department": "Development"},
		Address: config.Address{
			Formatted: "1-2-3 Example\nChiyoda-ku, Tokyo 100-0005\nJapan", StreetAddress: "1-2-3 Example",
			Locality: "Chiyoda-ku",
			Region:   "Tokyo", PostalCode: "100-0005", Country: "Japan",
		},
	}
}

// devHash is the hash of the user's password. It is kept beside it: a new one counts as a new password, which ends what
// the user has begun.
func devHash(file, password string) (string, error) {
	kept, err := os.ReadFile(file)
	if err == nil && bcrypt.CompareHashAndPassword(kept, []byte(password)) == nil {
		return string(kept), nil
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if err != nil {
		return "", err
	}
	return string(hash), os.WriteFile(file, hash, 0o600)
}

// loadDevUser reads a user of this data directory, or makes one.
func loadDevUser(file, email string) (devUser, error) {
	user := devUser{Email: email, Password: strings.ToLower(rand.Text())}
	text, err := json.Marshal(user)
	if err != nil {
		return user, fmt.Errorf("make a user: %w", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if text, err = os.ReadFile(file); err == nil {
			err = json.Unmarshal(text, &user)
		}
		if err != nil {
			return user, fmt.Errorf("read the dev user: delete %s to get a new one: %w", file, err)
		}
		return user, nil
	}
	if err == nil {
		_, err = f.Write(append(text, '\n'))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return user, fmt.Errorf("keep the dev user: %w", err)
	}
	return user, nil
}

// devServer is a dev server that is running.
type devServer struct {
	cli      *cli
	instance *instance
	opts     devOptions
	files    []string
	users    []devUser
	workers  devWorkers
}

// settleTime is how long the first start waits for env to be delivered before it prints where things are.
const settleTime = 15 * time.Second

// follow applies the manifests, prints where things are, and applies them again when they change.
func (d *devServer) follow(ctx context.Context) error {
	watch, err := manifests.NewWatch(d.files)
	if err != nil {
		return err
	}
	// Whoever starts it has asked for what the files say; from then on a typo in a file that is saved must not delete.
	plans, err := d.apply(ctx, true)
	if err == nil {
		err = d.announce(ctx, plans)
	}
	if ctx.Err() != nil {
		return nil // interrupted while it started
	}
	if err != nil {
		return err
	}
	watch.Run(ctx, d.look)
	return nil
}

func (d *devServer) apply(ctx context.Context, allowDelete bool) ([]*manifests.Plan, error) {
	files, faults := manifests.Read(d.files, nil)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	plans, warnings, err := d.instance.apps.deployer.ApplyFiles(ctx, files,
		manifests.ApplyOptions{AllowDelete: allowDelete, Trust: true}) // whoever runs this is the operator
	if err != nil {
		return nil, edge(err)
	}
	for _, w := range warnings {
		d.cli.say("%s", w)
	}
	for _, p := range plans {
		settling, cancel := context.WithTimeout(ctx, settleTime)
		_, err := d.instance.apps.deployer.Settle(settling, p.App)
		cancel()
		if err != nil && settling.Err() == nil {
			return nil, err
		}
	}
	return plans, nil
}

// look applies a manifest that was saved. A faulty one is reported and changes nothing.
func (d *devServer) look(ctx context.Context, changed bool) (again time.Duration) {
	if changed {
		d.changed(ctx)
	}
	return 0 // whoever develops saves it again
}

func (d *devServer) changed(ctx context.Context) {
	c := d.cli
	plans, err := d.apply(ctx, false)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		c.report(err)
		c.say("Nothing was changed; correct the file and save it again.")
		return
	}
	for _, p := range plans {
		if !p.Changed {
			continue
		}
		c.say("%s applied again:", p.App)
		for _, change := range p.Changes {
			c.say("  %s", harmless(change.Text))
		}
		for _, consequence := range p.Consequences {
			c.say("  %s %s", c.paint(c.stderr, yellow, "!"), harmless(consequence))
		}
	}
}

// newcomer is the user whom a dev server invites: one that is kept in the database, as operators' commands keep them.
var newcomer = storage.User{ID: "dev-you", Email: "you@example.com", EmailVerified: true, Name: "You"}

// invitation is for the newcomer, who has nothing yet to sign in with.
type invitation struct {
	Email string `json:"email"`
	Link  string `json:"link"`
}

// invite makes the invitation. There is none when it was used, when an operator has disabled the user, or when somebody
// else signs in with that address.
func (d *devServer) invite(ctx context.Context) (*invitation, error) {
	for _, u := range d.instance.cfg.Users {
		if slices.Contains([]string{storage.NormalLogin(u.Email), storage.NormalLogin(u.Username)}, newcomer.Email) {
			return nil, nil
		}
	}
	store := d.instance.store
	a, err := store.Account(ctx, newcomer.ID)
	if errors.Is(err, storage.ErrNotFound) {
		a, err = store.PutAccount(ctx, newcomer, nil, nil, storage.AuditEntry{Action: storage.AuditUserApplied,
			User: newcomer.ID, Detail: "user " + newcomer.ID + ", new"})
	}
	var taken *storage.LoginTakenError
	if errors.As(err, &taken) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !a.User.Managed || !a.User.Active() || a.Factors.Password.Hash != "" || len(a.Factors.Passkeys) > 0 {
		return nil, nil
	}
	link, err := d.instance.public().MakeLink(ctx, a, server.LinkInvitation, server.MostLinkLife)
	if err != nil {
		return nil, err
	}
	return &invitation{a.User.Email, link}, nil
}

// readyLine is what -o json prints when the server is ready.
type readyLine struct {
	Issuer string     `json:"issuer"`
	Admin  string     `json:"admin"`
	User   devUser    `json:"user"`
	Users  []devUser  `json:"users"` // that one, and those of --user
	Apps   []readyApp `json:"apps"`

	Invitation *invitation `json:"invitation,omitempty"`
}

type readyApp struct {
	Name     string        `json:"name"`
	ClientID string        `json:"clientId"`
	Targets  []readyTarget `json:"targets"`

	late []string // targets that do not have their env yet, each described in a line
}

type readyTarget struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Runtime string `json:"runtime"`
	Env     string `json:"env,omitempty"` // the file with its env
	URL     string `json:"url,omitempty"` // where it runs
}

func (d *devServer) announce(ctx context.Context, plans []*manifests.Plan) error {
	i := d.instance
	line := readyLine{Issuer: i.cfg.Issuer, Admin: i.cfg.Socket, User: d.users[0], Users: d.users, Apps: []readyApp{}}
	for _, p := range plans {
		view, err := i.store.App(ctx, p.App)
		if err != nil {
			return err
		}
		if view.App == nil {
			continue // deleted meanwhile
		}
		app := readyApp{Name: p.App, ClientID: view.App.ClientID, Targets: []readyTarget{}}
		for _, x := range view.Deliveries {
			if x.Remove {
				continue // at another runtime, which had it before
			}
			target := readyTarget{Kind: x.Target.Kind, Name: x.Target.Name, Runtime: x.Runtime, Env: x.Location}
			if x.Runtime == config.RuntimeWorkers {
				target.Env, target.URL = "", d.workers.address(p.App, x.Target.Name, x.Location)
			}
			app.Targets = append(app.Targets, target)
			if x.State != storage.DeliveryReady {
				app.late = append(app.late, fmt.Sprintf("%s/%s is %s: %s %s", x.Target.Kind, x.Target.Name, x.State, x.Error,
					x.Remedy))
			}
		}
		line.Apps = append(line.Apps, app)
	}
	var err error
	if line.Invitation, err = d.invite(ctx); err != nil {
		return err
	}
	if d.opts.format == "json" {
		return json.NewEncoder(d.cli.stdout).Encode(line)
	}
	d.greet(line)
	return nil
}

// greet prints where things are and what to type next.
func (d *devServer) greet(line readyLine) {
	c := d.cli
	fact := func(name, value string) { c.say("  %s %s", c.paint(c.stderr, faint, fmt.Sprintf("%-9s", name)), value) }
	c.say("%s\n", c.paint(c.stderr, bold, "warifu is ready."))
	fact("issuer", line.Issuer)
	for _, user := range line.Users {
		fact("user", user.Email)
		fact("password", user.Password)
	}
	if line.Invitation != nil {
		fact("invited", line.Invitation.Email)
		fact("link", line.Invitation.Link)
	}
	next, open := "", ""
	for _, app := range line.Apps {
		c.say("\n  %s", c.paint(c.stderr, bold, app.Name))
		if app.ClientID == "" {
			fact("client", "none: the manifest has no spec.oauth")
		} else {
			fact("client", app.ClientID)
			if next == "" {
				next = app.Name
			}
		}
		for _, t := range app.Targets {
			if t.Env != "" {
				fact("env", near(t.Env)+c.paint(c.stderr, faint, " ("+t.Kind+"/"+t.Name+")"))
			}
			if t.URL != "" {
				fact("runs at", t.URL+c.paint(c.stderr, faint, " ("+t.Kind+"/"+t.Name+")"))
				open = cmp.Or(open, t.URL)
			}
		}
		for _, words := range app.late {
			fact(c.paint(c.stderr, yellow, "env"), harmless(words))
		}
		if app.ClientID != "" && len(app.Targets) == 0 {
			fact("env", "not injected (autoEnv is off): warifu credentials "+app.Name+d.adminFlag())
		}
	}
	c.say("")
	if idle := d.workers.idle(); len(idle) > 0 {
		c.say("%s cannot run, because workerd was not found: npm install workerd@%s", strings.Join(idle, ", "),
			runtimeworkers.WorkerdVersion)
	}
	if open != "" {
		c.say("Next, in a browser: %s\n", c.paint(c.stderr, bold, open))
	} else if next != "" {
		c.say("Next, in another terminal: %s\n", c.paint(c.stderr, bold, "warifu token "+next+d.adminFlag()))
	}
	c.say("Watching %s. Ctrl-C stops the server; %s keeps everything for the next start.", strings.Join(d.files, ", "),
		d.opts.data)
}

// near is a path relative to the working directory, if it is below that.
func near(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if relative, err := filepath.Rel(wd, path); err == nil && filepath.IsLocal(relative) {
			return relative
		}
	}
	return path
}

// adminFlag is what commands need to find this server.
func (d *devServer) adminFlag() string {
	if here, err := filepath.Abs(defaultSocket); err == nil && here == d.instance.cfg.Socket {
		return ""
	}
	return " --admin " + filepath.Join(d.opts.data, "admin.sock")
}
