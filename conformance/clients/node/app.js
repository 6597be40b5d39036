// What all apps here share: where they listen, and how they tell what they have seen.

import { createServer } from "node:http"

export const issuer = process.env.OAUTH_ISSUER
export const clientId = process.env.OAUTH_CLIENT_ID
export const clientSecret = process.env.OAUTH_CLIENT_SECRET
export const scope = "openid profile email offline_access threads:read"

// listen serves on a free port of loopback and prints the app's own address.
export function listen(handler) {
  const server = createServer(handler)
  server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`))
  return server
}

// serve answers GET requests: each route gives a URL to go to, or what is to be shown as JSON.
export function serve(routes) {
  const server = listen(async (request, response) => {
    const url = new URL(request.url, `http://127.0.0.1:${server.address().port}`)
    try {
      const route = routes[url.pathname]
      if (!route) {
        response.writeHead(404).end()
        return
      }
      const answer = await route(url)
      if (answer instanceof URL) {
        response.writeHead(303, { location: answer.href }).end()
        return
      }
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer))
    } catch (error) {
      response.writeHead(500, { "content-type": "text/plain" }).end(`${error.stack}\n${JSON.stringify(error.cause)}`)
    }
  })
}
