//go:build e2e

package clients

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/conformance/local"
)

// The Model Context Protocol: an agent is told of a server, and of nothing else. It finds the authorization server by
// what the MCP server answers, becomes a client in one of three ways, and a person signs in and allows it.
func TestLibraryOfMCP(t *testing.T) {
	modulesIn(t, "mcp")
	resource := "http://" + freeAddress(t) + "/mcp"
	mcp := deploy(t, "mcp-server", "resource: "+resource, `scopes: ["threads:read"]`)
	said := announced(t, mcp, "node", "mcp/server.js", "OAUTH_RESOURCE="+resource,
		"OAUTH_RESOURCE_METADATA="+server.Issuer+"/oauth/resource?resource="+url.QueryEscape(resource))
	if said != resource {
		t.Fatalf("the MCP server says %q", said)
	}
	agentAddress := freeAddress(t)
	document := clientDocument(t, "http://127.0.0.1/callback") // on whichever port (RFC 8252 section 7.3)
	for _, agent := range []struct {
		name, runner, file string
		want               map[string]any
	}{
		{"typescript", "node", "mcp/agent.js", nil},
		{"python", pythonWith(t, "mcp/requirements.txt"), "mcp/agent.py", map[string]any{"stepped up": true}},
	} {
		for _, how := range []string{"document", "registration", "manifest"} {
			t.Run(agent.name+" by "+how, func(t *testing.T) {
				var c local.Credentials
				if how == "manifest" {
					c = deploy(t, "agent-"+agent.name, "clientName: Agent", `redirectUris: ["http://127.0.0.1:*"]`,
						`scopes: ["threads:read", "threads:write", offline_access]`)
				}
				address := announced(t, c, agent.runner, agent.file,
					"MCP_SERVER="+resource, "MCP_CLIENT="+how, "MCP_CLIENT_DOCUMENT="+document,
					"MCP_CLIENT_ADDRESS="+agentAddress)
				want := map[string]any{"sub": local.UserID, "tools": "read write", "refreshed": true}
				for name, value := range agent.want {
					want[name] = value
				}
				if how == "document" {
					want["client"] = document
				}
				checkPage(t, walk{"/", want}, newBrowser(t).visit(address+"/"))
			})
		}
	}
}

// clientDocument publishes a document that describes an agent on this machine, as the MCP specification shows it, and
// gives its address.
func clientDocument(t testing.TB, callback string) string {
	t.Helper()
	var address string
	site := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"client_id": %q, "client_name": "Agent", "client_uri": "https://agent.example.com",
			"redirect_uris": [%q],
			"grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
			"token_endpoint_auth_method": "none"}`, address, callback)
	}))
	site.TLS = &tls.Config{Certificates: []tls.Certificate{server.Certificate}, MinVersion: tls.VersionTLS12}
	site.StartTLS()
	t.Cleanup(site.Close)
	address = strings.Replace(site.URL, "127.0.0.1", "localhost", 1) + "/oauth/client-metadata.json"
	return address
}

func freeAddress(t testing.TB) string {
	t.Helper()
	address, err := local.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
