package plugintest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/hookoauth"
	"github.com/warifu/warifu/plugins/pluginpb"
	"github.com/warifu/warifu/plugins/runtimefile"
)

// The test binary is every plugin of these tests: with asPlugin as its first
// argument it plays the role of the second.
const asPlugin = "plugin-under-test"

func TestMain(m *testing.M) {
	if len(os.Args) < 3 || os.Args[1] != asPlugin {
		os.Exit(m.Run())
	}
	play(os.Args[2])
}

func play(role string) {
	switch role {
	case "file":
		runtimefile.Serve()
	case "oauth":
		hookoauth.Serve()
	case "model", "nameless":
		plugins.ServeRuntime(&model{})
	case "hook":
		plugins.ServeHook(&faultyHook{})
	case "stays":
		plugins.ServeRuntime(&model{})
		time.Sleep(20 * time.Second)
	case "greets":
		fmt.Println("hello from a library")
		plugins.ServeRuntime(&model{})
	case "version 2":
		fmt.Printf("1|2|unix|%s/plugin1|grpc|x\n", os.Getenv(envSockets))
		time.Sleep(20 * time.Second)
	case "silent", "sleeper":
		time.Sleep(20 * time.Second)
	case "lets everybody in", "unchecked":
		if err := serveByHand(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// serveByHand is a plugin without go-plugin, as one in another language is.
func serveByHand(role string) error {
	config, certificate, err := clientTLS()
	if err != nil {
		return err
	}
	if role != "lets everybody in" {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AppendCertsFromPEM([]byte(os.Getenv("PLUGIN_CLIENT_CERT")))
	}
	listener, err := net.Listen("unix", filepath.Join(os.Getenv(envSockets), "by-hand"))
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	alive := health.NewServer()
	alive.SetServingStatus("plugin", grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, alive)
	pluginpb.RegisterRuntimeServer(server, trusting{})
	block, _ := pem.Decode([]byte(certificate))
	fmt.Printf("1|1|unix|%s|grpc|%s\n", listener.Addr(), base64.RawStdEncoding.EncodeToString(block.Bytes))
	return server.Serve(listener)
}

// trusting takes every request as it comes.
type trusting struct {
	pluginpb.UnimplementedRuntimeServer
}

func (trusting) Describe(context.Context, *pluginpb.DescribeRequest) (*pluginpb.DescribeResponse, error) {
	return &pluginpb.DescribeResponse{Name: "trusting", Version: "1"}, nil
}

func (trusting) Configure(context.Context, *pluginpb.RuntimeConfigureRequest) (*pluginpb.RuntimeConfigureResponse,
	error) {
	return &pluginpb.RuntimeConfigureResponse{}, nil
}

func (trusting) PushEnv(_ context.Context, req *pluginpb.PushEnvRequest) (*pluginpb.PushEnvResponse, error) {
	return &pluginpb.PushEnvResponse{Status: &pluginpb.Status{State: pluginpb.Status_READY,
		AcceptedGeneration: req.GetGeneration(),
		ServingGeneration:  req.GetGeneration(), Digest: req.GetDigest(), Present: true}}, nil
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
