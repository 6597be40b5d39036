// An agent that is told of an MCP server, and of nothing else: node agent.js http://127.0.0.1:8787/mcp
// It prints the address at which a person signs in and allows it, and then what the server's tools answer.

import { createServer } from "node:http"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"

const server = new URL(process.argv[2] ?? "http://127.0.0.1:8787/mcp")
const listener = createServer()
await new Promise((listening) => listener.listen(0, "127.0.0.1", listening))
const redirectUrl = `http://127.0.0.1:${listener.address().port}/callback`

// What an agent keeps, here in memory. With it the SDK registers the agent, and gets and refreshes its tokens.
const kept = {}
const provider = {
  redirectUrl,
  clientMetadata: {
    client_name: "Example agent",
    redirect_uris: [redirectUrl],
    grant_types: ["authorization_code", "refresh_token"],
    token_endpoint_auth_method: "none",
    application_type: "native",
  },
  state: () => (kept.state = crypto.randomUUID()),
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
  redirectToAuthorization: (url) => console.log(`Open this address, sign in, and allow it:\n\n  ${url}\n`),
}

const connect = async (transport) => {
  const client = new Client({ name: "example-agent", version: "1.0.0" })
  await client.connect(transport)
  return client
}

// answer is the code with which the person's browser comes back.
const answer = () =>
  new Promise((resolve, reject) => {
    listener.on("request", (request, response) => {
      const url = new URL(request.url, redirectUrl)
      if (url.pathname !== "/callback" || url.searchParams.get("state") !== kept.state) {
        response.writeHead(404).end()
        return
      }
      response.setHeader("Content-Type", "text/html; charset=utf-8")
      response.end('<!doctype html><title>Agent</title><link rel="icon" href="data:,">Go back to the terminal.\n')
      const code = url.searchParams.get("code")
      code ? resolve(code) : reject(new Error(url.searchParams.get("error")))
    })
  })

const first = new StreamableHTTPClientTransport(server, { authProvider: provider })
try {
  await connect(first)
} catch (error) {
  if (!(error instanceof UnauthorizedError)) {
    throw error
  }
  await first.finishAuth(await answer())
}
const client = await connect(new StreamableHTTPClientTransport(server, { authProvider: provider }))
for (const call of [{ name: "list" }, { name: "add", arguments: { note: "Water the plants" } }]) {
  const { content } = await client.callTool(call)
  console.log(`${call.name}: ${content[0].text}`)
}
await client.close()
listener.close()
listener.closeAllConnections()
