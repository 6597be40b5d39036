package plugins

import (
	"context"
	"errors"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// Kind is what a plugin is to the host.
type Kind string

// Kinds of plugins. They are also the names under which go-plugin serves them.
const (
	HookKind    Kind = "hook"
	RuntimeKind Kind = "runtime"
)

// ProtocolVersion is the version of the contracts in pluginpb. Host and plugin
// agree on the newest that both have.
const ProtocolVersion = 1

// maxMessage caps a message in either direction, in bytes. A manifest is at most
// 1 MiB of YAML.
const maxMessage = 4 << 20

// The cookie only tells a person who starts a plugin by hand that it is one;
// what keeps strangers out is mutual TLS.
var handshake = plugin.HandshakeConfig{
	MagicCookieKey:   "WARIFU_PLUGIN",
	MagicCookieValue: "a71d3c8be3b94d0f9f8a6a6b4e7e1f52",
}

// wire joins one kind of plugin to go-plugin: register on the plugin's side, the
// bare connection on the host's side.
type wire struct {
	plugin.NetRPCUnsupportedPlugin
	register func(*grpc.Server)
}

var _ plugin.GRPCPlugin = (*wire)(nil)

func (w *wire) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	if w.register == nil {
		return errors.New("this side does not serve")
	}
	w.register(s)
	return nil
}

func (w *wire) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

func versions(kind Kind, register func(*grpc.Server)) map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{ProtocolVersion: {string(kind): &wire{register: register}}}
}
