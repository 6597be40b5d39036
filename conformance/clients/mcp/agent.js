// An agent on the TypeScript SDK's client. It is told of an MCP server and of nothing else, and shows what a tool of it
// answers; a person signs in and allows it when the SDK asks for that. MCP_CLIENT says how the agent comes to be a client.

import { createServer } from "node:http"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"

const { MCP_SERVER, MCP_CLIENT, MCP_CLIENT_DOCUMENT, MCP_CLIENT_ADDRESS, OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET } = process.env

// Provider keeps what the SDK hands it, in memory.
class Provider {
  constructor(redirectUrl) {
    this.redirectUrl = redirectUrl
    this.clientMetadata = {
      client_name: "Agent",
      redirect_uris: [redirectUrl],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
      application_type: "native",
    }
    if (MCP_CLIENT === "document") {
      this.clientMetadataUrl = MCP_CLIENT_DOCUMENT
    }
    if (MCP_CLIENT === "manifest") {
      this.information = { client_id: OAUTH_CLIENT_ID, client_secret: OAUTH_CLIENT_SECRET }
    }
  }
  state = () => (this.sent = crypto.randomUUID())
  clientInformation = () => this.information
  saveClientInformation = (information) => void (this.information = information)
  tokens = () => this.kept
  saveTokens = (tokens) => void (this.kept = tokens)
  redirectToAuthorization = (url) => void (this.asked = url)
  saveCodeVerifier = (verifier) => void (this.verifier = verifier)
  codeVerifier = () => this.verifier
}

let provider, waiting // the transport that has sent a person away

async function connected() {
  const transport = new StreamableHTTPClientTransport(new URL(MCP_SERVER), { authProvider: provider })
  const client = new Client({ name: "agent", version: "1.0.0" })
  try {
    await client.connect(transport)
  } catch (error) {
    if (error instanceof UnauthorizedError) {
      return { transport }
    }
    throw error
  }
  return { transport, client }
}

const listener = createServer(async (request, response) => {
  const url = new URL(request.url, MCP_SERVER)
  try {
    if (url.pathname === "/") {
      provider = new Provider(`http://${MCP_CLIENT_ADDRESS}/callback`)
      waiting = (await connected()).transport
      response.writeHead(303, { Location: provider.asked.href }).end()
      return
    }
    if (url.searchParams.get("state") !== provider.sent) {
      throw new Error("the answer is not to this request")
    }
    await waiting.finishAuth(url.searchParams.get("code"))
    const first = provider.kept
    const { client } = await connected()
    const { tools } = await client.listTools()
    const { content } = await client.callTool({ name: "read" })
    // The access token ends: the SDK refreshes it by itself.
    provider.kept = { ...first, access_token: "ended" }
    await client.callTool({ name: "read" })
    await client.close()
    response.setHeader("Content-Type", "application/json")
    response.end(
      JSON.stringify({
        sub: content[0].text,
        tools: tools.map((tool) => tool.name).join(" "),
        refreshed: provider.kept.access_token !== first.access_token && provider.kept.refresh_token !== first.refresh_token,
        scope: provider.kept.scope,
        client: provider.information.client_id,
      }),
    )
  } catch (error) {
    response.writeHead(500).end(String(error.stack))
  }
})
const at = new URL(`http://${MCP_CLIENT_ADDRESS}`)
listener.listen(at.port, at.hostname, () => console.log(at.origin))
