package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/mail"
)

// A configuration that was read again is taken over in two steps. The first makes all that it needs, and may fail: then
// what was made is dropped, and nothing else has changed. The second puts it in force, and cannot fail. What storage
// cannot take of the changes of people is tried again, see [instance.laterPeople].

// successor is a configuration for which everything is ready.
type successor struct {
	settings           *config.Settings
	changes            config.Changes
	provider           server.Config
	public             *server.Server
	plugins            *plugins.Change
	deploying          manifests.DeployerOptions
	webCert, adminCert *tls.Certificate
}

// prepare makes all that a configuration needs. With anew, connectors are made anew though nothing has changed in what
// is read here.
func (i *instance) prepare(ctx context.Context, next *config.Settings, changes config.Changes, anew bool) (
	_ *successor, err error) {
	s := &successor{settings: next, changes: changes, provider: next.Provider}
	before := i.inUse.Load()
	s.provider.Refused, s.provider.Logger = i.provider.Refused, i.log
	s.provider.AccessLog = accessLog(next.Logger, i.log)
	if s.provider.Connectors, err = i.connectors(next, i.kept(next, changes, anew)); err != nil {
		return nil, err
	}
	if !changes.Touch("outbound") {
		s.provider.Outbound = i.provider.Outbound // with its connections
		next.Provider.Outbound = i.provider.Outbound
	}
	if s.provider.Mail = i.provider.Mail; changes.Touch("mail") {
		if s.provider.Mail, err = i.sender(next); err != nil {
			return nil, err
		}
	}
	if s.webCert, err = pairFor(i.webCert, next.Web.TLSCert, next.Web.TLSKey); err != nil {
		return nil, fmt.Errorf("web.tlsCert: %w", err)
	}
	if s.adminCert, err = pairFor(i.adminCert, next.Admin.TLSCert, next.Admin.TLSKey); err != nil {
		return nil, fmt.Errorf("admin.tlsCert: %w", err)
	}
	if i.cfg.Admin.Listen != "" && next.AdminToken == "" {
		next.AdminToken = before.AdminToken // the listener stays until a restart, and with it what it asks for
	}
	if s.public, err = i.public().With(s.provider); err != nil {
		return nil, err
	}
	hooks, runtimes, err := i.specs(next)
	if err != nil {
		return nil, err
	}
	s.deploying = i.deploying(next, s.public)
	if s.plugins, err = i.host.Change(ctx, hooks, runtimes); err != nil { // last: it starts processes
		return nil, err
	}
	for _, hook := range s.plugins.Hooks {
		s.deploying.Hooks = append(s.deploying.Hooks, hook)
	}
	for _, runtime := range s.plugins.Runtimes {
		s.deploying.Runtimes = append(s.deploying.Runtimes, runtime)
	}
	if err := i.changeKeys(ctx, next); err != nil {
		s.plugins.Discard()
		return nil, err
	}
	return s, nil
}

// changeKeys has storage use other encryption keys. It is the last that may fail, and undoes nothing: keys that it took
// can stay, whatever follows.
func (i *instance) changeKeys(ctx context.Context, next *config.Settings) error {
	switch listed := i.inUse.Load().EncryptionKeyFiles; {
	case len(listed) == 0 && len(next.EncryptionKeyFiles) == 0:
		return nil // storage keeps its key itself, and another dataDir waits for a restart
	case next.KEK == nil:
		return fmt.Errorf("encryptionKeyFiles: without this list only the key in %s is used, "+
			"and the key that seals now is not there", next.KEKFile)
	}
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	if err := i.store.SetKEK(ctx, next.KEK, next.KEKFile); err != nil {
		return fmt.Errorf("encryptionKeyFiles: %w", err)
	}
	return nil
}

// kept are the connectors that are the same as before.
func (i *instance) kept(next *config.Settings, changes config.Changes, anew bool) map[string]connector.Connector {
	kept := make(map[string]connector.Connector)
	if anew || changes.Touch("web.trustedProxies") { // which connectors believe as well
		return kept
	}
	for _, c := range i.provider.Connectors {
		if c.ID != connector.StaticName && !slices.Contains(changes.Changed, c.ID) {
			kept[c.ID] = c
		}
	}
	return kept
}

// pairFor reads the certificate of a listener that has one.
func pairFor(c *certificate, cert, key string) (*tls.Certificate, error) {
	if c == nil || cert == "" || key == "" {
		return nil, nil
	}
	return config.ReadCertificate(cert, key)
}

// refollowing are the keys with which manifests are applied anew: some may have been refused before, or hooks answer
// otherwise.
var refollowing = []string{"manifests", "plugins.deployHooks", "scopes", "claims", "oauth2",
	"trusted", "trustedIssuers",
	"staticPasswords"}

// takeOver puts a configuration in force. Whoever is no longer among its people is signed out.
func (i *instance) takeOver(ctx context.Context, s *successor) {
	next, before := s.settings, i.inUse.Load()
	if i.relog != nil {
		i.relog(next.Logger)
	}
	i.changeMail(s.provider.Mail)
	i.web.bound(webConnections(next.Web.MaxConnections), s.provider.TrustedProxies)
	if s.changes.Touch("web.maxConnections") {
		i.warnOfConnections(ctx, next.Web)
	}
	if s.webCert != nil {
		i.webCert.use(next.Web.TLSCert, next.Web.TLSKey, s.webCert)
	}
	if s.adminCert != nil {
		i.adminCert.use(next.Admin.TLSCert, next.Admin.TLSKey, s.adminCert)
	}
	i.adminToken.Store(&next.AdminToken)
	i.inUse.Store(next)
	i.provider = s.provider
	s.plugins.Commit()
	s.public.TakeOver() // before people, so that nobody who is signed out comes back by what has gone
	i.apps.deployer.Use(s.deploying, s.changes.Touch("plugins"))
	if err := i.people(ctx); err != nil {
		i.log.ErrorContext(ctx, "changes to users cannot be stored now; trying again", "error", err)
		i.later()
	}
	if slices.ContainsFunc(refollowing, s.changes.Touch) || !slices.Equal(next.ConnectorIDs(), before.ConnectorIDs()) {
		select {
		case i.refollow <- struct{}{}:
		default:
		}
	}
	_ = i.announce(ctx) // whoever hears of a key that this replica does not have has logged it
}

// sender is the way to the mail server of a configuration, nil without one.
func (i *instance) sender(cfg *config.Settings) (*mail.Sender, error) {
	if cfg.Mail == nil {
		return nil, nil
	}
	options := *cfg.Mail
	options.Logger, options.Metrics = i.log, i.metrics
	sender, err := mail.New(options)
	if err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	return sender, nil
}

// changeMail has another sender run, which takes over what waits. Without one, the last goes on with that.
func (i *instance) changeMail(next *mail.Sender) {
	if next == nil || next == i.mail {
		return
	}
	if i.mail != nil {
		i.mail.HandOver(next)
	}
	i.mail = next
	select {
	case i.senders <- next:
	case <-i.leaving:
	}
}

// sendMail runs the sender that there is.
func (i *instance) sendMail(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case sender := <-i.senders:
			stop() // the one before has handed over
			i.metrics.Source("mail", sender.Tell)
			sending, cancel := context.WithCancel(ctx)
			stop = cancel
			running.Go(func() { sender.Run(sending) })
		}
	}
}

// followManifests applies the configured directories, and again when they change, or when the configuration does.
func (i *instance) followManifests(ctx context.Context) error {
	for {
		following, stop := context.WithCancel(ctx)
		m := i.inUse.Load().Manifests
		done := make(chan error, 1)
		go func() { // ends with following, and is waited for
			if len(m.Directories) == 0 {
				done <- nil
				return
			}
			done <- i.apps.deployer.Follow(following, m.Directories, m.Watch)
		}()
		var err error
		again := false
		select {
		case err = <-done:
			if err == nil { // nothing is left to do, until there is another configuration
				select {
				case <-ctx.Done():
				case <-i.refollow:
					again = true
				}
			}
		case <-i.refollow:
			stop()
			err, again = <-done, true
		}
		stop()
		if err != nil || !again || ctx.Err() != nil {
			return err
		}
	}
}
