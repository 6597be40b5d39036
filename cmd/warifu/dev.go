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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/plugins/runtimeworkers"
	"github.com/warifu/warifu/storage"
)

// devOptions are the flags of `warifu dev`.
type devOptions struct {
	files  []string
	listen string
	data   string
	format string
}

// defaultManifests are looked for when no file is named.
var defaultManifests = []string{filepath.Join(".takos", "app.yml"), "app.yml"}

func (c *cli) dev() *cobra.Command {
	var opts devOptions
	command := &cobra.Command{
		Use: "dev [-f FILE]...", Short: "Try it on this machine: server, database, user and your app.yml in one process",
		Long: `dev runs a complete server on this machine for developing an app: an embedded database, one user, and the
app that the manifest describes, with its env in files. Saving the manifest applies it again; a faulty
edit is reported and changes nothing. Everything is kept in the data directory, so the next start has the
same client ids, secrets and grants.

A Worker whose script exists at the manifest's artifactPath runs in workerd, if dev finds it: at
$WARIFU_WORKERD, in PATH, or in node_modules (npm install workerd).`,
		Example: `  warifu dev                         with .takos/app.yml, or app.yml
  warifu dev -f web/app.yml -f api/app.yml
  warifu dev -o json                 one line on stdout once it is ready`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runDev(cmd.Context(), opts) },
	}
	flags := command.Flags()
	flags.StringArrayVarP(&opts.files, "filename", "f", nil,
		"manifest; can be repeated (default .takos/app.yml, then app.yml)")
	flags.StringVar(&opts.listen, "listen", "127.0.0.1:5556",
		"host:port of the issuer; the host is 127.0.0.1, localhost or [::1]")
	flags.StringVar(&opts.data, "data", ".warifu", "directory for everything that dev keeps")
	must(command.MarkFlagFilename("filename", "yml", "yaml"))
	must(command.MarkFlagDirname("data"))
	outputFlag(command, &opts.format, "table", "json")
	return command
}

// devUser is the one user of a dev server. Its password is random, and kept in the data directory.
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
	host, _, err := net.SplitHostPort(opts.listen)
	if err != nil || host != "127.0.0.1" && host != "localhost" && host != "::1" {
		return usagef("--listen %s: dev listens on 127.0.0.1, localhost or [::1] only, as in 127.0.0.1:5556; for other addresses use warifu serve", opts.listen)
	}
	web, err := (&net.ListenConfig{}).Listen(ctx, "tcp", opts.listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w (another warifu dev? choose another address with --listen)", opts.listen, err)
	}
	defer func() { _ = web.Close() }()
	if err := os.MkdirAll(opts.data, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	user, err := loadDevUser(filepath.Join(opts.data, "user.json"))
	if err != nil {
		return err
	}
	cfg, err := c.devConfig(opts, host, web, user)
	if err != nil {
		return err
	}
	cfg.Plugins = workers.settings()
	settings, err := config.Load(cfg)
	if err != nil {
		return err
	}
	i, err := build(ctx, settings, building{dev: true, web: web, log: newLogger(cfg.Logger, c.stderr)})
	if err != nil {
		return err
	}
	defer i.close()
	d := &devServer{cli: c, instance: i, opts: opts, files: files, user: user, workers: workers}
	return i.run(ctx, d.follow)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// devConfig is the configuration of a dev server.
func (c *cli) devConfig(opts devOptions, host string, web net.Listener, user devUser) (*config.Config, error) {
	_, port, err := net.SplitHostPort(web.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", opts.listen, err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(user.Password), bcrypt.DefaultCost)
	if err != nil {
		return nil, fmt.Errorf("hash the user's password: %w", err)
	}
	cfg := config.Default()
	cfg.Issuer = "http://" + net.JoinHostPort(host, port)
	cfg.Storage.Config.DataDir = opts.data
	cfg.Outbound.Allow = []string{"127.0.0.0/8", "::1/128"} // the app that is being developed
	cfg.EnablePasswordDB = true
	cfg.StaticPasswords = []config.StaticPassword{devPerson(user.Email, string(hash))}
	cfg.Logger.Level = "warn"
	if level := config.LogLevel(c.env(config.Variable("logger.level"))); level.Valid() {
		cfg.Logger.Level = level
	}
	return cfg, nil
}

// devPerson has every claim, so that an app can be tried with whatever it asks for. The phone number is one of those
// reserved for fiction.
func devPerson(email, hash string) config.StaticPassword {
	return config.StaticPassword{
		Email: email, EmailVerified: true, Username: "dev", Name: "Dev User", UserID: "dev", Hash: hash,
		GivenName: "Dev", FamilyName: "User", MiddleName: "Q.", Nickname: "devvy",
		Profile: "https://example.com/dev", Picture: "https://example.com/dev/picture.png", Website: "https://example.com/",
		Gender: "female", Birthdate: "1990-04-01", Zoneinfo: "Asia/Tokyo", Locale: "en-US",
		PhoneNumber: "+1 (202) 555-0100", PhoneNumberVerified: true,
		Address: config.Address{
			Formatted: "1-2-3 Example\nChiyoda-ku, Tokyo 100-0005\nJapan", StreetAddress: "1-2-3 Example", Locality: "Chiyoda-ku",
			Region: "Tokyo", PostalCode: "100-0005", Country: "Japan",
		},
	}
}

// loadDevUser reads the user of this data directory, or makes one.
func loadDevUser(file string) (devUser, error) {
	user := devUser{Email: "dev@example.com", Password: strings.ToLower(rand.Text())}
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
	user     devUser
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
	return watch.Run(ctx, d.changed)
}

func (d *devServer) apply(ctx context.Context, allowDelete bool) ([]*manifests.Plan, error) {
	files, faults := manifests.Read(d.files, nil)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	plans, warnings, err := d.instance.apps.deployer.ApplyFiles(ctx, files,
		manifests.ApplyOptions{AllowDelete: allowDelete})
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

// changed is called when a manifest was saved. A faulty one is reported and changes nothing.
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

// readyLine is what -o json prints when the server is ready.
type readyLine struct {
	Issuer string     `json:"issuer"`
	Admin  string     `json:"admin"`
	User   devUser    `json:"user"`
	Apps   []readyApp `json:"apps"`
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
	line := readyLine{Issuer: i.cfg.Issuer, Admin: i.cfg.Socket, User: d.user, Apps: []readyApp{}}
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
	fact("user", line.User.Email)
	fact("password", line.User.Password)
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
