// Board is a Worker that lets people sign in. All that it knows of the server is in its env, and a standard library finds the
// rest by discovery: nothing here is warifu's.
//
// Workers share no memory, and this one has no database, so what it remembers of a person travels in cookies that scripts
// cannot read. Requests that change something are POST, which SameSite=Lax keeps to our own pages.

import * as oauth from "./oauth4webapi.js"

const scopes = "openid profile email offline_access threads:read threads:write"

// sure are the ways to have signed in that are sure enough to delete everything: with a second factor, or a passkey.
const sure = ["urn:warifu:acr:mfa", "urn:warifu:acr:phr"]

export default {
  async fetch(request, env) {
    const url = new URL(request.url)
    try {
      switch (`${request.method} ${url.pathname}`) {
        case "GET /":
          return await home(request, env)
        case "POST /login":
          return await login(url, env)
        case "GET /callback":
          return await callback(request, url, env)
        case "POST /refresh":
          return await refresh(request, env)
        case "POST /clear":
          return await clear(request, url, env)
        case "POST /logout":
          return seeOther("/", cookie("board_session", null, request.url))
        case "DELETE /threads":
          return await threads(request, env)
      }
      return page("Not found", "<h1>There is no such page</h1>", 404)
    } catch (error) {
      return fault(error)
    }
  },
}

// home greets whoever is signed in.
async function home(request, env) {
  const session = read(request, "board_session")
  if (!session) {
    return page("Board", `<h1>Nobody is signed in</h1><form method="post" action="/login"><button id="signin">Sign in</button></form>`)
  }
  const server = await discover(env)
  const reply = await oauth.userInfoRequest(server.as, server.client, session.access_token, server.options)
  const user = await oauth.processUserInfoResponse(server.as, server.client, session.sub, reply)
  const cleared = new URL(request.url).searchParams.has("cleared") ? `<p id="cleared">The board is empty now.</p>` : ""
  return page("Board", `<h1>Hello, <span id="user">${escape(user.email ?? user.sub)}</span></h1>${cleared}
<p>New tokens so far: <span id="refreshes">${session.refreshes}</span></p>
<form method="post" action="/refresh"><button id="refresh">Get new tokens</button></form>
<form method="post" action="/clear"><button id="clear">Delete everything on the board</button></form>
<form method="post" action="/logout"><button id="signout">Sign out</button></form>`)
}

// login sends a person to the server, and remembers what the answer has to fit. more are further parameters of the request,
// and clearing is who wanted to delete everything when they were sent.
async function login(url, env, more = {}, clearing = undefined) {
  const { as, client } = await discover(env)
  const sent = {
    state: oauth.generateRandomState(),
    nonce: oauth.generateRandomNonce(),
    verifier: oauth.generateRandomCodeVerifier(),
    clearing,
  }
  const to = new URL(as.authorization_endpoint)
  for (const [name, value] of Object.entries({
    response_type: "code",
    client_id: client.client_id,
    redirect_uri: `${url.origin}/callback`,
    scope: scopes,
    state: sent.state,
    nonce: sent.nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(sent.verifier),
    code_challenge_method: "S256",
    ...more,
  })) {
    to.searchParams.set(name, value)
  }
  return seeOther(to.href, cookie("board_login", sent, url, 600))
}

// callback trades the code for tokens. The library checks state, iss, nonce and the ID token.
async function callback(request, url, env) {
  const sent = read(request, "board_login")
  if (!sent) {
    return page("Board", `<h1>This browser was not on its way to sign in</h1><p><a href="/">Try again</a></p>`, 400)
  }
  const { as, client, auth, options } = await discover(env)
  const answer = oauth.validateAuthResponse(as, client, url, sent.state)
  const reply = await oauth.authorizationCodeGrantRequest(as, client, auth, answer, `${url.origin}/callback`, sent.verifier, options)
  const tokens = await oauth.processAuthorizationCodeResponse(as, client, reply, { expectedNonce: sent.nonce, requireIdToken: true })
  const { sub } = oauth.getValidatedIdTokenClaims(tokens)
  const cookies = [cookie("board_login", null, url), keep(tokens, sub, 0, url)]
  if (sent.clearing !== sub) {
    return seeOther("/", ...cookies)
  }
  await deleteThreads(tokens.access_token, url, env) // what they came back for; nobody is sent away twice
  return seeOther("/?cleared", ...cookies)
}

// clear deletes everything on the board for a person. When the API is not sure enough who they are, its challenge says what
// it takes: the server asks them for that, or leads them to set it up, and they come back with tokens that say so.
async function clear(request, url, env) {
  const session = read(request, "board_session")
  if (!session) {
    return seeOther("/")
  }
  try {
    await deleteThreads(session.access_token, url, env)
  } catch (error) {
    const why = challengeOf(error)
    if (why?.error !== "insufficient_user_authentication") {
      throw error
    }
    return login(url, env, { acr_values: why.acr_values }, session.sub)
  }
  return seeOther("/?cleared")
}

// deleteThreads asks the API, which is in this very Worker: anywhere else, leave customFetch out.
async function deleteThreads(token, url, env) {
  const { options } = await discover(env)
  await oauth.protectedResourceRequest(token, "DELETE", new URL("/threads", url), undefined, undefined, {
    ...options,
    [oauth.customFetch]: (to, init) => threads(new Request(to, init), env),
  })
}

// threads is an API, a resource server in the words of OAuth: it knows nobody but by their access token. This example has no
// database, so all that it shows of deleting is who may.
async function threads(request, env) {
  const [, token] = /^Bearer (.+)$/i.exec(request.headers.get("Authorization") ?? "") ?? []
  if (!token) {
    return challenge(401, {})
  }
  const { as, client, auth, options } = await discover(env)
  const reply = await oauth.introspectionRequest(as, client, auth, token, options)
  const { active, scope, acr } = await oauth.processIntrospectionResponse(as, client, reply)
  if (!active) {
    return challenge(401, { error: "invalid_token" })
  }
  if (!scope.split(" ").includes("threads:write")) {
    return challenge(403, { error: "insufficient_scope", scope: "threads:write" })
  }
  if (!sure.includes(acr)) {
    return challenge(401, {
      error: "insufficient_user_authentication",
      error_description: "deleting everything takes a second factor",
      acr_values: sure[0],
    })
  }
  return new Response(null, { status: 204 })
}

// challenge says what was wrong with an access token (RFC 6750 section 3), or with how its user has signed in (RFC 9470
// section 3).
function challenge(status, why) {
  const params = Object.entries(why).map(([name, value]) => `${name}="${value}"`)
  return new Response(null, { status, headers: { "WWW-Authenticate": `Bearer ${params.join(", ")}`.trim() } })
}

// challengeOf is what the library has read of one.
function challengeOf(error) {
  return error instanceof oauth.WWWAuthenticateChallengeError ? error.cause[0].parameters : undefined
}

// refresh trades the refresh token for the next tokens. A refresh token works once.
async function refresh(request, env) {
  const session = read(request, "board_session")
  if (!session) {
    return seeOther("/")
  }
  const { as, client, auth, options } = await discover(env)
  const reply = await oauth.refreshTokenGrantRequest(as, client, auth, session.refresh_token, options)
  const tokens = await oauth.processRefreshTokenResponse(as, client, reply)
  return seeOther("/", keep(tokens, session.sub, session.refreshes + 1, request.url))
}

// discover finds the server's endpoints. Requests without TLS are only for a server on this very machine.
let known // metadata by issuer; values may outlive a request, promises must not
async function discover(env) {
  const issuer = new URL(env.OAUTH_ISSUER)
  const here = issuer.protocol === "http:" && ["127.0.0.1", "localhost", "[::1]"].includes(issuer.hostname)
  const options = { [oauth.allowInsecureRequests]: here }
  if (known?.issuer !== env.OAUTH_ISSUER) {
    known = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, options))
  }
  return {
    as: known,
    client: { client_id: env.OAUTH_CLIENT_ID },
    auth: oauth.ClientSecretBasic(env.OAUTH_CLIENT_SECRET),
    options,
  }
}

// fault says what went wrong in words that hold no token.
function fault(error) {
  const told = error instanceof oauth.AuthorizationResponseError || error instanceof oauth.ResponseBodyError
  const code = (told ? error.error : challengeOf(error)?.error) ?? "fault"
  console.error(code, error.message)
  const words = code === "access_denied" ? "You said no, and that is fine" : "That did not work"
  return page("Board", `<h1 id="error">${words}</h1><p><code>${escape(code)}</code></p><p><a href="/">Back</a></p>`, code === "fault" ? 500 : 400)
}

function keep(tokens, sub, refreshes, url) {
  return cookie("board_session", { access_token: tokens.access_token, refresh_token: tokens.refresh_token, sub, refreshes }, url, 30 * 24 * 3600)
}

// cookie writes a cookie; without a value it takes it away.
function cookie(name, value, url, seconds = 0) {
  const secure = new URL(url).protocol === "https:" ? "; Secure" : ""
  const text = value ? encodeURIComponent(JSON.stringify(value)) : ""
  return `${name}=${text}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${value ? seconds : 0}${secure}`
}

function read(request, name) {
  const found = (request.headers.get("Cookie") ?? "").split("; ").find((c) => c.startsWith(`${name}=`))
  try {
    return found ? JSON.parse(decodeURIComponent(found.slice(name.length + 1))) : undefined
  } catch {
    return undefined // not ours
  }
}

function seeOther(location, ...cookies) {
  const headers = new Headers({ Location: location, "Cache-Control": "no-store" })
  for (const c of cookies) {
    headers.append("Set-Cookie", c)
  }
  return new Response(null, { status: 303, headers })
}

function escape(text) {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)
}

function page(title, body, status = 200) {
  const html = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${title}</title><link rel="icon" href="data:,"><style>body { font: 18px/1.5 system-ui; margin: 15vh auto; max-width: 30rem }</style>
${body}`
  return new Response(html, {
    status,
    headers: {
      "Content-Type": "text/html; charset=utf-8",
      "Cache-Control": "no-store",
      "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
    },
  })
}
