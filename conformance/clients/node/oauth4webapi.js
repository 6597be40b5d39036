// A relying party on oauth4webapi, as its examples show it: every step by hand.

import * as oauth from "oauth4webapi"
import { clientId, clientSecret, issuer, scope, serve } from "./app.js"

const as = await oauth.processDiscoveryResponse(new URL(issuer), await oauth.discoveryRequest(new URL(issuer)))
const client = { client_id: clientId }
const auth = oauth.ClientSecretBasic(clientSecret)
let sent, idToken

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
    idToken = tokens.id_token
    return { sub, email: userinfo.email, refreshed: refreshed.refresh_token !== tokens.refresh_token, active, revoked: !(await introspect(refreshed.access_token)) }
  },
  "/logout": async (url) => {
    const to = new URL(as.end_session_endpoint)
    to.search = new URLSearchParams({ post_logout_redirect_uri: `${url.origin}/signed-out`, id_token_hint: idToken, state: "bye" })
    return to
  },
  "/signed-out": async (url) => ({ state: url.searchParams.get("state") }),
  "/service": async () => {
    const response = await oauth.clientCredentialsGrantRequest(as, client, auth, { scope: "threads:read" })
    const tokens = await oauth.processClientCredentialsResponse(as, client, response)
    return { active: await introspect(tokens.access_token) }
  },
})

async function introspect(token) {
  const response = await oauth.introspectionRequest(as, client, auth, token)
  return (await oauth.processIntrospectionResponse(as, client, response)).active
}
