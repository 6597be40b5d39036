package main

import (
	"fmt"
	"net/netip"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/outbound"
)

// oauth2 adds the configuration's oauth2 section to the server's. Secrets are read from their files.
func (i *instance) oauth2(into *server.Config) error {
	cfg := i.cfg.OAuth2
	into.GrantTypes = i.cfg.GrantTypes()
	into.ClientIDMetadataDocuments = cfg.ClientIDMetadataDocuments
	for n, s := range cfg.ResourceServers {
		secret, err := readLongSecret(fmt.Sprintf("oauth2.resourceServers[%d].secretFile", n), s.SecretFile)
		if err != nil {
			return err
		}
		into.ResourceServers = append(into.ResourceServers, server.ResourceServer{ID: s.ID, Identifier: s.Identifier, Secret: secret})
	}
	if cfg.Registration.Enabled {
		into.Registration = &server.Registration{}
		for n, file := range cfg.Registration.InitialAccessTokenFiles {
			token, err := readLongSecret(fmt.Sprintf("oauth2.registration.initialAccessTokenFiles[%d]", n), file)
			if err != nil {
				return err
			}
			into.Registration.InitialAccessTokens = append(into.Registration.InitialAccessTokens, token)
		}
		if len(into.Registration.InitialAccessTokens) == 0 {
			i.log.Warn("anyone can register clients: oauth2.registration names no initial access tokens")
		}
	}
	var err error
	into.Outbound, err = outboundClient(i.cfg.Outbound)
	return err
}

// outboundClient makes requests within the limits of [config.Outbound].
func outboundClient(c config.Outbound) (*outbound.Client, error) {
	var opts outbound.Options
	for n, text := range c.Allow {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("outbound.allow[%d]: %w", n, err)
		}
		opts.Allow = append(opts.Allow, prefix)
	}
	if c.CAFile != "" {
		var err error
		if opts.RootCAs, err = certPool(c.CAFile); err != nil {
			return nil, fmt.Errorf("outbound.caFile: %w", err)
		}
	}
	return outbound.New(opts), nil
}
