// A relying party on openid-client, as its README shows it.

import * as client from "openid-client"
import { clientId, clientSecret, issuer, scope, serve } from "./app.js"

const config = await client.discovery(new URL(issuer), clientId, clientSecret)
let sent, idToken

serve({
  "/": async (url) => {
    const verifier = client.randomPKCECodeVerifier()
    sent = { pkceCodeVerifier: verifier, expectedState: client.randomState(), expectedNonce: client.randomNonce() }
    return client.buildAuthorizationUrl(config, {
      redirect_uri: `${url.origin}/callback`,
      scope,
      code_challenge: await client.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
      state: sent.expectedState,
      nonce: sent.expectedNonce,
    })
  },
  "/callback": async (url) => {
    const tokens = await client.authorizationCodeGrant(config, url, sent)
    const { sub } = tokens.claims()
    const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token)
    const userinfo = await client.fetchUserInfo(config, refreshed.access_token, sub)
    const introspected = await client.tokenIntrospection(config, refreshed.access_token)
    await client.tokenRevocation(config, refreshed.refresh_token)
    const revoked = await client.tokenIntrospection(config, refreshed.access_token)
    idToken = tokens.id_token
    return { sub, email: userinfo.email, refreshed: refreshed.refresh_token !== tokens.refresh_token, active: introspected.active, revoked: !revoked.active }
  },
  "/logout": async (url) =>
    client.buildEndSessionUrl(config, { post_logout_redirect_uri: `${url.origin}/signed-out`, id_token_hint: idToken, state: "bye" }),
  "/signed-out": async (url) => ({ state: url.searchParams.get("state") }),
  "/service": async () => {
    const tokens = await client.clientCredentialsGrant(config, { scope: "threads:read" })
    return { active: (await client.tokenIntrospection(config, tokens.access_token)).active }
  },
  // The same flow with a pushed request (RFC 9126) and tokens bound to a key (RFC 9449).
  "/par-dpop": async (url) => {
    const verifier = client.randomPKCECodeVerifier()
    sent = { pkceCodeVerifier: verifier, expectedState: client.randomState(), expectedNonce: client.randomNonce() }
    return client.buildAuthorizationUrlWithPAR(config, {
      redirect_uri: `${url.origin}/callback-dpop`,
      scope,
      code_challenge: await client.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
      state: sent.expectedState,
      nonce: sent.expectedNonce,
    })
  },
  "/callback-dpop": async (url) => {
    const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair())
    const tokens = await client.authorizationCodeGrant(config, url, sent, undefined, { DPoP })
    const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP })
    const userinfo = await client.fetchUserInfo(config, refreshed.access_token, tokens.claims().sub, { DPoP })
    return { sub: userinfo.sub, email: userinfo.email, tokenType: refreshed.token_type }
  },
})
