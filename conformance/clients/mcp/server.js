// An MCP server with the TypeScript SDK's own bearer authentication. All that it knows of the authorization server is in its
// env: it introspects tokens with its credentials, and names the metadata that the authorization server publishes for it.

import { requireBearerAuth } from "@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js"
import { InvalidTokenError } from "@modelcontextprotocol/sdk/server/auth/errors.js"
import { createMcpExpressApp } from "@modelcontextprotocol/sdk/server/express.js"
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js"
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js"

const { OAUTH_ISSUER, OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET, OAUTH_RESOURCE, OAUTH_RESOURCE_METADATA } = process.env

const found = await (await fetch(`${OAUTH_ISSUER}/.well-known/oauth-authorization-server`)).json()

// verifyAccessToken asks the authorization server about a token (RFC 7662).
async function verifyAccessToken(token) {
  const credentials = btoa(`${encodeURIComponent(OAUTH_CLIENT_ID)}:${encodeURIComponent(OAUTH_CLIENT_SECRET)}`)
  const reply = await fetch(found.introspection_endpoint, {
    method: "POST",
    headers: { Authorization: `Basic ${credentials}` },
    body: new URLSearchParams({ token }),
  })
  const told = await reply.json()
  if (!told.active) {
    throw new InvalidTokenError("the token is not active")
  }
  return {
    token,
    clientId: told.client_id,
    scopes: told.scope.split(" "),
    expiresAt: told.exp,
    resource: new URL([told.aud].flat()[0]),
    extra: { sub: told.sub },
  }
}

const needs = (...requiredScopes) =>
  requireBearerAuth({
    verifier: { verifyAccessToken },
    requiredScopes,
    resourceMetadataUrl: OAUTH_RESOURCE_METADATA,
    expectedResource: OAUTH_RESOURCE,
  })
const reads = needs("threads:read")
const writes = needs("threads:read", "threads:write")

// A server for each request: nothing is remembered in between.
function server() {
  const mcp = new McpServer({ name: "threads", version: "1.0.0" })
  mcp.registerTool("read", { description: "Who asks" }, ({ authInfo }) => ({
    content: [{ type: "text", text: authInfo.extra.sub }],
  }))
  mcp.registerTool("write", { description: "As what" }, ({ authInfo }) => ({
    content: [{ type: "text", text: authInfo.scopes.join(" ") }],
  }))
  return mcp
}

const app = createMcpExpressApp()
app.use("/mcp", (request, response, next) => {
  const call = request.body?.method === "tools/call" && request.body.params?.name === "write"
  return (call ? writes : reads)(request, response, next)
})
app.post("/mcp", async (request, response) => {
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined })
  await server().connect(transport)
  await transport.handleRequest(request, response, request.body)
})
app.all("/mcp", (_request, response) => response.status(405).set("Allow", "POST").end())
const at = new URL(OAUTH_RESOURCE)
app.listen(at.port, at.hostname, () => console.log(OAUTH_RESOURCE))
