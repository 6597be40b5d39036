// A relying party without a secret, on oauth4webapi: it authenticates with the token that the cluster has issued to its
// service account, which it reads from the file for each request, because the cluster renews it there.

import { readFileSync } from "node:fs"
import * as oauth from "oauth4webapi"
import { clientId, issuer, scope, serve } from "./app.js"

const as = await oauth.processDiscoveryResponse(new URL(issuer), await oauth.discoveryRequest(new URL(issuer)))
const client = { client_id: clientId }
const auth = (_as, { client_id }, body) => {
  body.set("client_id", client_id)
  body.set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
  body.set("client_assertion", readFileSync(process.env.OAUTH_CLIENT_ASSERTION_FILE, "utf8").trim())
}
let sent

serve({
  "/": async (url) => {
    sent = { state: oauth.generateRandomState(), nonce: oauth.generateRandomNonce(), verifier: oauth.generateRandomCodeVerifier(), callback: `${url.origin}/callback` }
    const to = new URL(as.authorization_endpoint)
    to.search = new URLSearchParams({
      client_id: clientId,
      redirect_uri: sent.callback,
      response_type: "code",
      scope,
      code_challenge: await oauth.calculatePKCECodeChallenge(sent.verifier),
      code_challenge_method: "S256",
      state: sent.state,
      nonce: sent.nonce,
    })
    return to
  },
  "/callback": async (url) => {
    const params = oauth.validateAuthResponse(as, client, url, sent.state)
    const response = await oauth.authorizationCodeGrantRequest(as, client, auth, params, sent.callback, sent.verifier)
    const tokens = await oauth.processAuthorizationCodeResponse(as, client, response, { expectedNonce: sent.nonce, requireIdToken: true })
    const { sub } = oauth.getValidatedIdTokenClaims(tokens)
    const refreshed = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, tokens.refresh_token))
    const userinfo = await oauth.processUserInfoResponse(as, client, sub, await oauth.userInfoRequest(as, client, refreshed.access_token))
    const active = await introspect(refreshed.access_token)
    await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, refreshed.refresh_token))
    return { sub, email: userinfo.email, refreshed: refreshed.refresh_token !== tokens.refresh_token, active, revoked: !(await introspect(refreshed.access_token)) }
  },
  "/service": async () => {
    const response = await oauth.clientCredentialsGrantRequest(as, client, auth, { scope: "threads:read" })
    const tokens = await oauth.processClientCredentialsResponse(as, client, response)
    return { active: await introspect(tokens.access_token) }
  },
  // What a job does that knows no client authentication: the token itself is exchanged (RFC 8693).
  "/exchange": async () => {
    const form = new URLSearchParams({
      grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      subject_token: readFileSync(process.env.OAUTH_CLIENT_ASSERTION_FILE, "utf8").trim(),
      audience: "https://api.example.com/",
    })
    const response = await fetch(as.token_endpoint, { method: "POST", body: form })
    const tokens = await response.json()
    const { sub, aud } = JSON.parse(Buffer.from(tokens.access_token.split(".")[1], "base64url"))
    return { own: sub === clientId, aud }
  },
})

async function introspect(token) {
  const response = await oauth.introspectionRequest(as, client, auth, token)
  return (await oauth.processIntrospectionResponse(as, client, response)).active
}
