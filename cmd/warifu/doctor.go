package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/doctor"
	"github.com/warifu/warifu/storage"
)

func (c *cli) doctor() *cobra.Command {
	var format, ca, file string
	command := &cobra.Command{
		Use: "doctor [CONFIG.yaml]", Short: "Find out what is wrong, or soon will be, and what to do",
		Long: `doctor looks at the files that a configuration names, at the issuer as apps and browsers see it from this
machine (DNS, certificate, redirects, discovery, clocks, what a proxy passes on), and at what the running
server knows (a configuration that it has refused, etcd, replicas, keys, plugins, deliveries, secrets,
forward auth, connectors). It changes nothing, and prints no secret.

With a configuration it asks the server that has it; it also does what it can when no server answers. It is
best run as the user of the server: others may not read the files. The exit code is 2 when something is wrong
or soon will be, and 1 when something could not be found out.`,
		Example: `  warifu doctor config.yaml
  warifu doctor -o json | jq '.[] | select(.state != "ok")'
  warifu doctor --ca company.pem config.yaml`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			e := &examination{c: c}
			switch {
			case len(args) > 0 && file != "" && file != args[0]:
				return usagef("--config names the same as the argument: write one of them")
			case len(args) > 0:
				file = args[0]
			}
			if file != "" {
				var err error
				if e.settings, e.faults, err = config.Look(file, c.environ); err != nil {
					return err
				}
				e.file = file
				if c.admin == "" && c.env(adminVariable) == "" {
					c.admin = e.settings.Socket
				}
			}
			if ca != "" {
				text, err := os.ReadFile(ca)
				if err != nil {
					return err
				}
				if e.roots = x509.NewCertPool(); !e.roots.AppendCertsFromPEM(text) {
					return usagef("%s holds no PEM certificate", ca)
				}
			}
			findings, err := e.run(cmd.Context())
			if err != nil {
				return err
			}
			return c.showFindings(findings, format)
		},
	}
	command.Flags().StringVar(&file, "config", "", "configuration of the server: the same as the argument")
	must(command.MarkFlagFilename("config", "yaml", "yml"))
	command.Flags().StringVar(&ca, "ca", "",
		"file with the certificates of the authorities that vouch for the issuer (PEM); by default those of the system")
	outputFlag(command, &format, "table", "json", "yaml")
	return command
}

// examination is one run of doctor.
type examination struct {
	c        *cli
	file     string // of the configuration; "" for none
	settings *config.Settings
	faults   strictyaml.Faults
	roots    *x509.CertPool

	info admin.Info
	away error // why no server answers
}

// run makes all checks there are for what is known: of the configuration, of the issuer, and of the server.
func (e *examination) run(ctx context.Context) ([]doctor.Finding, error) {
	api, err := e.c.client()
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, healthTime)
	e.away = api.do(asking, http.MethodGet, "/v1/info", nil, &e.info)
	cancel()
	switch {
	case e.forbidden() && e.settings == nil:
		return nil, fmt.Errorf("this user may not use the admin socket %s: %s", api.where, asUserOfServer)
	case e.away != nil && e.settings == nil:
		return nil, e.away
	}
	checks := []doctor.Check{{Name: "server", Look: e.server(api)}}
	issuer := e.info.Issuer
	if e.settings != nil {
		checks = append(checks, doctor.Check{Name: "configuration", Look: e.configuration})
		checks = append(checks, e.files().Checks()...)
		if e.settings.Issuer != "" {
			issuer = e.settings.Issuer
		}
		if e.away != nil && e.settings.Storage.Type == config.StorageEmbedded && e.settings.KEK != nil {
			checks = append(checks, doctor.Check{Name: "storage", Within: storageTime, Look: e.records})
		}
		if e.away != nil && e.settings.Storage.Type == config.StorageEtcd && len(e.settings.Etcd.Endpoints) > 0 {
			look := func(ctx context.Context) ([]doctor.Finding, error) {
				ctx, cancel := context.WithTimeout(ctx, healthTime) // then it is known why
				defer cancel()
				health, err := e.settings.Etcd.Health(ctx)
				return doctor.Etcd(health, err), nil
			}
			checks = append(checks, doctor.Check{Name: "etcd", Within: storageTime, Look: look})
		}
	}
	outside := doctor.Outside{Issuer: issuer, Roots: e.roots}
	var inside doctor.Check
	if e.away == nil {
		examined := sync.OnceValues(func() (admin.Examined, error) {
			var out admin.Examined
			ctx, cancel := context.WithTimeout(ctx, insideTime)
			defer cancel()
			return out, api.do(ctx, http.MethodGet, "/v1/doctor", nil, &out)
		})
		outside.Probe = func(context.Context) string {
			out, _ := examined() // what is wrong is said by inside
			return out.Probe
		}
		outside.Keys = func(ctx context.Context) []string { return signingKeys(ctx, api) }
		inside = doctor.Check{Name: "server", Within: insideTime + time.Second}
		inside.Look = func(context.Context) ([]doctor.Finding, error) {
			out, err := examined()
			return out.Findings, err
		}
	}
	var fromOutside, fromInside []doctor.Finding
	var both sync.WaitGroup
	both.Go(func() { fromOutside = doctor.Run(ctx, append(checks, outside.Checks(ctx)...)...) })
	if inside.Look != nil {
		both.Go(func() { fromInside = doctor.Run(ctx, inside) })
	}
	both.Wait()
	return append(fromOutside, fromInside...), ctx.Err()
}

// insideTime is how long the server may take to look at itself.
const insideTime = 20 * time.Second

// signingKeys are the kids with which the server signs; none if it does not say.
func signingKeys(ctx context.Context, api *client) (kids []string) {
	var keys []admin.Key
	if api.do(ctx, http.MethodGet, "/v1/keys", nil, &keys) != nil {
		return nil // the server's own checks say more
	}
	for _, k := range keys {
		if k.State == string(storage.KeyActive) && k.Use != storage.UseSeal && k.Use != storage.UsePairwise {
			kids = append(kids, k.KID)
		}
	}
	return kids
}

// asUserOfServer is what to do where files or the admin socket are not for this user.
const asUserOfServer = "run it as the user of the server (sudo -u), or as root"

// forbidden reports whether the admin socket is there, and not for this user.
func (e *examination) forbidden() bool { return errors.Is(e.away, fs.ErrPermission) }

// fewRecords is the size of an embedded database, in bytes, up to which doctor reads all of its records.
const fewRecords = 256 << 20

// records are what warifu verify finds wrong in an embedded database that no server has open, such as that it is sealed
// under another encryption key. One that is large is left to that.
func (e *examination) records(ctx context.Context) ([]doctor.Finding, error) {
	size, err := storage.EmbeddedSize(e.settings.Dir)
	if err != nil || size == 0 || size > fewRecords {
		return nil, nil // it is made at the first start, or not to be looked at by this user, which files says
	}
	found, err := e.c.findWrong(ctx, e.settings, nil)
	if err != nil {
		return nil, err
	}
	const few = 3
	var out []doctor.Finding
	for _, f := range found.Flaws[:min(len(found.Flaws), few)] {
		seen := f.What
		if f.Key != "" {
			seen = f.Key + ": " + seen
		}
		out = append(out, doctor.Finding{State: doctor.Wrong, Seen: found.What + ": " + seen, Remedy: f.Remedy})
	}
	if more := found.Wrong - len(out); more > 0 {
		out = append(out, doctor.Finding{State: doctor.Wrong, Seen: fmt.Sprintf("and %d more of these", more),
			Remedy: "warifu verify --config " + e.file + " lists them"})
	}
	if len(out) == 0 {
		out = append(out, doctor.Finding{State: doctor.Fine,
			Seen: fmt.Sprintf("%s: %d records, and all secrets can be opened", found.What, found.Records)})
	}
	return out, nil
}

// server is whether the server answers, and whether it is that of the configuration.
func (e *examination) server(api *client) func(context.Context) ([]doctor.Finding, error) {
	return func(context.Context) ([]doctor.Finding, error) {
		if e.forbidden() {
			return []doctor.Finding{{State: doctor.Unknown,
				Seen:   fmt.Sprintf("this user may not use the admin socket %s: what only the server knows is left out", api.where),
				Remedy: asUserOfServer}}, nil
		}
		if e.away != nil {
			return []doctor.Finding{{State: doctor.Wrong,
				Seen: fmt.Sprintf("no server answers at %s (%s): what only a running one knows is left out",
					api.where, whyAway(e.away)),
				Remedy: "start it with warifu serve " + e.file + ", or say where it is with --admin"}}, nil
		}
		found := []doctor.Finding{{State: doctor.Fine, Seen: fmt.Sprintf("warifu %s answers at %s",
			e.info.Version, api.where)}}
		if e.settings != nil && e.settings.Issuer != "" && e.settings.Issuer != e.info.Issuer {
			found = append(found, doctor.Finding{State: doctor.Wrong,
				Seen: fmt.Sprintf("the issuer of that server is %s, and that of %s is %s",
					e.info.Issuer, e.file, e.settings.Issuer),
				Remedy: "name the configuration of that server, or with --admin the server of that configuration"})
		}
		return found, nil
	}
}

func whyAway(err error) string {
	var unreachable *unreachableError
	if errors.As(err, &unreachable) {
		return unreachable.err.Error()
	}
	return err.Error()
}

// configuration is what is wrong with the file, but for what other checks look at more closely.
func (e *examination) configuration(context.Context) ([]doctor.Finding, error) {
	files := e.files()
	looked := func(f strictyaml.Fault, at ...[]doctor.File) bool {
		return slices.ContainsFunc(slices.Concat(at...), func(file doctor.File) bool {
			return file.Key == f.Path || strings.Contains(f.Message, file.Name)
		})
	}
	var found []doctor.Finding
	for _, f := range e.faults {
		state, remedy := doctor.Wrong, "correct it; warifu config validate "+e.file+" checks it"
		switch {
		case f.Code == "expired" && looked(f, files.Certificates, files.Authorities), f.Code == "mode" &&
			looked(f, files.Secrets):
			continue // certificate, files
		case strings.Contains(f.Message, syscall.EACCES.Error()):
			state, remedy = doctor.Unknown, asUserOfServer
		case f.Severity == strictyaml.SeverityWarning:
			state = doctor.Warning
		}
		found = append(found, doctor.Finding{State: state, Seen: f.String(), Remedy: remedy})
	}
	var half *storage.RestoreUnfinishedError
	if s := e.settings; s.Storage.Type == config.StorageEmbedded && s.Dir != "" &&
		errors.As(storage.UnfinishedRestore(s.Dir), &half) {
		found = append(found, doctor.Finding{State: doctor.Wrong, Seen: "a restore into " + half.Dir + " was not finished, " +
			"and no server starts there", Remedy: half.Remedy()})
	}
	if len(found) == 0 {
		found = append(found, doctor.Finding{State: doctor.Fine, Seen: e.file + " is valid"})
	}
	return found, nil
}

// files are those of the configuration that end, or that nobody else may get at.
func (e *examination) files() doctor.Files {
	s := e.settings
	f := doctor.Files{Data: s.Dir, Embedded: s.Storage.Type == config.StorageEmbedded}
	add := func(to *[]doctor.File, key, name, host string) {
		if name != "" {
			*to = append(*to, doctor.File{Key: key, Name: name, Host: host})
		}
	}
	host := ""
	if issuer, err := url.Parse(s.Issuer); err == nil && issuer.Scheme == "https" && s.Web.HTTP == "" {
		host = issuer.Hostname()
	}
	ssl := s.Storage.Config.SSL
	add(&f.Certificates, "web.tlsCert", s.Web.TLSCert, host)
	add(&f.Certificates, "admin.tlsCert", s.Admin.TLSCert, "")
	add(&f.Certificates, "storage.config.ssl.certFile", ssl.CertFile, "")
	add(&f.Authorities, "storage.config.ssl.caFile", ssl.CAFile, "")
	add(&f.Authorities, "outbound.caFile", s.Outbound.CAFile, "")
	add(&f.Authorities, "mail.caFile", s.Config.Mail.CAFile, "")
	for i, name := range s.EncryptionKeyFiles {
		add(&f.Secrets, fmt.Sprintf("encryptionKeyFiles[%d]", i), name, "")
	}
	add(&f.Secrets, "the encryption key", s.KEKFile, "")
	add(&f.Secrets, "web.tlsKey", s.Web.TLSKey, "")
	add(&f.Secrets, "admin.tlsKey", s.Admin.TLSKey, "")
	add(&f.Secrets, "admin.tokenFile", s.Admin.TokenFile, "")
	add(&f.Secrets, "storage.config.passwordFile", s.Storage.Config.PasswordFile, "")
	add(&f.Secrets, "storage.config.ssl.keyFile", ssl.KeyFile, "")
	add(&f.Secrets, "telemetry.traces.headersFile", s.Telemetry.Traces.HeadersFile, "")
	add(&f.Secrets, "mail.passwordFile", s.Config.Mail.PasswordFile, "")
	for i, rs := range s.OAuth2.ResourceServers {
		add(&f.Secrets, fmt.Sprintf("oauth2.resourceServers[%d].secretFile", i), rs.SecretFile, "")
	}
	for i, name := range s.OAuth2.Registration.InitialAccessTokenFiles {
		add(&f.Secrets, fmt.Sprintf("oauth2.registration.initialAccessTokenFiles[%d]", i), name, "")
	}
	return f
}

// showFindings writes what was found, and returns the error that leads to the exit code.
func (c *cli) showFindings(findings []doctor.Finding, format string) error {
	if format != "table" {
		if err := encode(c.stdout, format, findings); err != nil {
			return err
		}
	} else {
		width := c.width()
		for _, f := range findings {
			if _, err := io.WriteString(c.stdout, c.finding(f, width)); err != nil {
				return err
			}
		}
	}
	count := make(map[doctor.State]int)
	for _, f := range findings {
		count[f.State]++
	}
	if format == "table" {
		c.say("wrong: %d, warnings: %d, unknown: %d, ok: %d",
			count[doctor.Wrong], count[doctor.Warning], count[doctor.Unknown],
			count[doctor.Fine])
	}
	switch doctor.Worst(findings) {
	case doctor.Wrong, doctor.Warning:
		return errChanges
	case doctor.Unknown:
		return errors.New("nothing is known to be wrong, but not everything could be found out")
	}
	return nil
}

var inkOf = map[doctor.State]color{doctor.Fine: green, doctor.Warning: yellow, doctor.Wrong: red, doctor.Unknown: faint}

// finding is one in a line, and what to do below it, within the width of the terminal.
func (c *cli) finding(f doctor.Finding, width int) string {
	const margin = len("warning  configuration  ")
	text := c.paint(c.stdout, inkOf[f.State], fmt.Sprintf("%-7s", f.State)) + fmt.Sprintf("  %-13s  ",
		harmless(f.Check)) +
		folded(harmless(f.Seen), margin, width) + "\n"
	if f.Remedy != "" {
		text += strings.Repeat(" ", margin) + "-> " + folded(harmless(f.Remedy), margin+3, width) + "\n"
	}
	return text
}

// width is that of the terminal; 0 if stdout is none.
func (c *cli) width() int {
	f, is := c.stdout.(*os.File)
	if !is {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// folded breaks a text between words, behind a margin. Without a width, or with one that leaves no room, it is one
// line.
func folded(text string, margin, width int) string {
	const least = 24
	if width-margin < least {
		return text
	}
	var out strings.Builder
	at := margin
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case at+1+n > width:
			out.WriteString("\n" + strings.Repeat(" ", margin))
			at = margin
		default:
			out.WriteByte(' ')
			at++
		}
		out.WriteString(word)
		at += n
	}
	return out.String()
}

// inside are the checks of what this server knows.
func (i *instance) inside() []doctor.Check {
	cfg := i.inUse.Load()
	inside := doctor.Inside{Store: i.store, Schedules: i.public().KeySchedules(),
		Configuration: func() (c doctor.Configuration) {
			if last := i.last.Load(); last != nil {
				c = doctor.Configuration{Refused: last.refused, Since: last.since, Unasked: last.unasked, Waits: last.waits}
			}
			return c
		},
		NoProxies:     len(cfg.Provider.TrustedProxies) == 0,
		AllowLoopback: i.dev || cfg.Manifests.LocalhostRedirects == config.LocalhostAllow,
		Plugins: func(ctx context.Context) (all []doctor.Plugin) {
			for _, p := range i.host.Present(ctx) {
				all = append(all, doctor.Plugin{Name: p.Name, Kind: string(p.Kind), Version: p.Version, Err: p.Err})
			}
			return all
		}}
	addresses := cfg.UpstreamAddresses()
	for _, id := range slices.Sorted(maps.Keys(addresses)) {
		inside.Upstreams = append(inside.Upstreams, doctor.Upstream{ID: id, Address: addresses[id]})
	}
	return inside.Checks()
}
