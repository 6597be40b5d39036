// Notes is an MCP server in a Worker. All that it knows of the authorization server is in its env: who issues its tokens, for
// which resource they must be, and where the metadata is (RFC 9728) from which agents learn the same. Libraries do the rest:
// nothing here is warifu's.

import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js"
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js"
import { CfWorkerJsonSchemaValidator } from "@modelcontextprotocol/sdk/validation/cfworker"
import * as oauth from "oauth4webapi"
import * as z from "zod/v4"

const reading = "threads:read"
const writing = "threads:write"

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url)
    if (pathname.startsWith("/.well-known/oauth-protected-resource")) {
      return fetch(env.OAUTH_RESOURCE_METADATA) // for agents that look for it here
    }
    if (pathname !== new URL(env.OAUTH_RESOURCE).pathname) {
      return new Response("Notes is an MCP server: tell an agent its address.\n", { status: 404 })
    }
    if (request.method !== "POST") {
      return new Response(null, { status: 405, headers: { Allow: "POST" } })
    }
    let token
    try {
      token = await verify(request, env)
    } catch {
      return challenge(env, 401, request.headers.has("Authorization") ? { error: "invalid_token" } : {})
    }
    const message = await request.json()
    const needed = message.method === "tools/call" && message.params?.name === "add" ? [reading, writing] : [reading]
    if (!needed.every((scope) => token.scope.split(" ").includes(scope))) {
      return challenge(env, 403, { error: "insufficient_scope", scope: needed.join(" ") })
    }
    // Workers share no memory: a server for each request, which remembers nothing.
    const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true })
    await notes(token).connect(transport)
    return transport.handleRequest(request, { parsedBody: message })
  },
}

// verify checks the access token: who issued it, its signature, that it is for this resource, and not too old.
let known // metadata by issuer; values may outlive a request, promises must not
async function verify(request, env) {
  const issuer = new URL(env.OAUTH_ISSUER)
  const here = issuer.protocol === "http:" && ["127.0.0.1", "localhost", "[::1]"].includes(issuer.hostname)
  const options = { [oauth.allowInsecureRequests]: here, algorithm: "oauth2" }
  if (known?.issuer !== env.OAUTH_ISSUER) {
    known = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, options))
  }
  return oauth.validateJwtAccessToken(known, request, env.OAUTH_RESOURCE, options)
}

// challenge tells an agent where it learns how to get a token (RFC 9728 section 5.1), and what was wrong with the one that
// it has (RFC 6750 section 3).
function challenge(env, status, why) {
  const params = Object.entries({ resource_metadata: env.OAUTH_RESOURCE_METADATA, ...why })
  const header = `Bearer ${params.map(([name, value]) => `${name}="${value}"`).join(", ")}`
  return new Response(null, { status, headers: { "WWW-Authenticate": header } })
}

// notes are the tools that an agent gets for a user. This example has no database, so what is added is gone at once.
function notes(token) {
  const server = new McpServer(
    { name: "notes", version: "1.0.0" },
    { jsonSchemaValidator: new CfWorkerJsonSchemaValidator() }, // Workers compile no code
  )
  server.registerTool("list", { description: "The user's notes" }, () => text(`There are no notes of ${token.sub} yet.`))
  server.registerTool("add", { description: "Add a note", inputSchema: { note: z.string() } }, ({ note }) =>
    text(`Added for ${token.sub}: ${note}`),
  )
  return server
}

const text = (words) => ({ content: [{ type: "text", text: words }] })
