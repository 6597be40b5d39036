package oauth

// requestRules are those of the endpoints, in the order of their constants.
var requestRules = []Rule{
	{RuleClientMissing, "The request does not say which client it comes from.",
		"The app must send client_id, or authenticate: OAUTH_CLIENT_ID is in its environment."},
	{RuleClientUnknown, "No client has this client_id.",
		"Compare it with warifu get clients. Use the OAUTH_CLIENT_ID of the app's environment, or apply the app's " +
			"manifest."},
	{RuleClientDisabled, "The client is disabled, or its app is being deleted.",
		"See warifu describe app; apply the app again once it is gone."},
	{RuleClientRemoved, "The client was removed while the request was under way.",
		"Apply the app's manifest again, and begin anew."},
	{RuleClientReturned, "The client was removed since this was issued, and its app was given the same client_id again.",
		"Begin anew: what an earlier client was issued is not the present one's."},
	{RuleClientDocument, "The client_id is the address of a document that this server could not use.",
		"Correct the document: the server's log has the reason. Whether such clients are allowed is " +
			"oauth2.clientIDMetadataDocuments."},
	{RuleClientDocumentHost, "The client_id is the address of a document on a host from which this server takes none.",
		"If clients from there are wanted, take the host out of deny of oauth2.clientIDMetadataDocuments, or add it to " +
			"allow, and run warifu reload."},
	{RuleClientSecretWrong, "The client exists, but the secret is not one of its secrets.",
		"Use the OAUTH_CLIENT_SECRET of the app's environment; warifu get deliveries shows whether that has " +
			"arrived, and warifu get secrets which secrets are valid."},
	{RuleResourceServerSecret, "The configuration has this resource server, but the secret is wrong.",
		"Use the secret in the file that oauth2.resourceServers names for it; after a change of that file, " +
			"run warifu reload."},
	{RuleIntrospectionPublic, "Introspection is for those that authenticate, and the request has a client_id alone.",
		"Have a resource server ask, or a client with a secret or keys; to a public client " +
			"tokens are opaque."},
	{RuleClientAuthMethod, "The client did not authenticate in the way that it registered.",
		"Authenticate as spec.oauth.tokenEndpointAuthMethod says, or change that. A public client (public: true) sends no " +
			"secret: leave it out, or take public out."},
	{RuleClientAuthMalformed, "The client's credentials cannot be read.",
		"Send Authorization: Basic with client id and secret, each form-urlencoded, or both in the body; an " +
			"assertion comes with its client_assertion_type."},
	{RuleClientAuthTwice, "The client authenticated in more than one way at once.",
		"Send the credentials either in the Authorization header or in the body, not in both."},
	{RuleClientOther, "The client_id in the body is not that of the client that authenticated.",
		"Leave client_id out of the body, or send the one of the credentials."},
	{RuleAssertionSignature, "The client assertion is signed by none of the client's keys, or with an algorithm that is " +
		"not allowed.",
		"Register the public key in spec.oauth.jwks or jwksUri, and sign with an algorithm that it is registered for."},
	{RuleAssertionClaims, "The client assertion has a good signature, but one of its claims is wrong.",
		"Correct the claim that the description names: iss and sub are the client_id, aud is the issuer, exp is " +
			"within the hour, jti is new each time."},
	{RuleAssertionUsed, "The client assertion was used before.",
		"Sign a new one, with a new jti, for each request."},
	{RuleWorkloadIssuer, "The client is a workload, and nobody whom this server trusts has issued the " +
		"token that it showed.",
		"Add the iss of the token to trustedIssuers of the configuration, to the letter, or have the token " +
			"issued by one that is there."},
	{RuleWorkloadIdentity, "The token is of a workload that the client does not list.",
		"List issuer and subject of the token in spec.oauth.identities, to the letter, and apply; or run the " +
			"program as the workload that is listed."},
	{RuleWorkloadSignature, "The token of the workload is not signed by any of its issuer's keys, " +
		"or its algorithm is not accepted from that issuer.",
		"See that the token comes from the issuer that it names, and that the keys of trustedIssuers are those of that " +
			"issuer."},
	{RuleWorkloadClaims, "The token of the workload has a good signature, but one of its claims is wrong.",
		"Correct what the description names: aud is the issuer of this server (or the audience of the " +
			"identity) and nothing " +
			"else, exp is within a day. A token that has expired is read anew from the file that the platform renews."},
	{RuleWorkloadKeys, "The keys with which the token of a workload is verified cannot be fetched from its issuer now.",
		"See that this server reaches the issuer, or the address of its keys in trustedIssuers; the log has the reason."},
	{RuleGrantTypeMissing, "The token request has no grant_type.",
		"Send grant_type, such as authorization_code or refresh_token."},
	{RuleGrantTypeUnknown, "The grant_type is not one that this server has.",
		"Correct its spelling, or use one that the description names. There is none for passwords, on purpose: send the " +
			"user through authorization."},
	{RuleGrantTypeOff, "This server has the grant type, and its configuration does not turn it on.",
		"Use one that the description names, or turn it on in oauth2.grantTypes of the server's configuration."},
	{RuleGrantTypeUnregistered, "The client has not registered the grant type that it used.",
		"Add it to spec.oauth.grantTypes in app.yml and apply again."},

	{RuleMethodNotAllowed, "The endpoint does not take this request method.",
		"Use a method that the header Allow names. Token requests are POST."},
	{RulePathUnknown, "There is no such address.",
		"Compare it with /.well-known/openid-configuration: the app should take the addresses of endpoints from " +
			"there."},
	{RuleContentType, "The body is of a type that the endpoint does not read.",
		"Send application/x-www-form-urlencoded, or application/json where the endpoint takes it."},
	{RuleBodyMalformed, "The body, the query or a form cannot be read.",
		"Send a well-formed form, or one JSON object."},
	{RuleRequestTooLong, "The request, or one of its parameters, is longer than the limit.",
		"Shorten it: state and nonce should be short random strings. Push a large request (RFC 9126)."},
	{RuleParameterInQuery, "Parameters came in the query of an endpoint that reads them from the body.",
		"Send them in the body, so that they do not end up in logs."},
	{RuleParameterMissing, "A parameter is missing.",
		"Send the parameter that the description names."},
	{RuleParameterRepeated, "A parameter that may come once came several times.",
		"Send it once. Only resource and audience may be repeated."},
	{RuleParameterMalformed, "A parameter does not have the form that it must have.",
		"Send the parameter that the description names in the form that it describes."},
	{RuleParameterValue, "A parameter has a value that this server does not support.",
		"Send one of the values that the description names."},
	{RuleParameterConflict, "Two parameters contradict each other.",
		"Send only one of them, or values that agree."},
	{RuleResponseType, "The response_type is not code.",
		"Use the authorization code flow: the implicit and hybrid flows are not offered, on purpose."},
	{RuleRequestURIForeign, "The request_uri is not one that this server gave for a pushed request, or it came " +
		"where none may.",
		"Push the request to the pushed authorization request endpoint, and use the request_uri of its reply."},
	{RuleRegistrationByValue, "The request carries the parameter registration, which is not supported.",
		"Register the client before it asks."},
	{RuleObjectMalformed, "The request object is not a JWT that this server can read.",
		"Send a signed JWT of three parts, with no critical headers and one value for each claim; encrypted ones " +
			"are not supported."},
	{RuleObjectSignature, "The request object is not signed by one of the client's keys, with an algorithm that it " +
		"has registered.",
		"Register the public key in spec.oauth.jwks or jwksUri, and sign as requestObjectSigningAlg says."},
	{RuleObjectClaims, "A claim of the request object is not right.",
		"Correct the claim that the description names."},
	{RuleObjectMissing, "The client has registered that it signs its requests, and this one is not a " +
		"signed request object.",
		"Send the parameters as claims of a signed JWT (request, RFC 9101), or take requireSignedRequestObject and " +
			"requestObjectSigningAlg out of spec.oauth."},
	{RuleIDTokenHint, "The id_token_hint is not an ID token that this server issued to this client.",
		"Send the last ID token that the client got from this server, or leave it out."},
	{RuleACRUnmet, "The request demands a way of signing in that the user has not used, and was not asked for, or that " +
		"this server does not offer.",
		"Ask for one of acr_values_supported, and send the user through an authorization request without prompt=none: " +
			"they are asked for what is missing, or led to set it up."},

	{RuleRedirectURIMissing, "The authorization request has no redirect_uri.",
		"Send one of those that are registered."},
	{RuleRedirectURIUnregistered, "The redirect_uri is not registered for the client. Apart from a wildcard port, each " +
		"character counts.",
		"Add it to spec.oauth.redirectUris in app.yml and apply again, or make the app send one that is there."},
	{RuleRedirectURIWithdrawn, "The redirect_uri was registered when the request was made, and no longer is.",
		"Begin anew with a redirect URI that is registered, or add it to spec.oauth.redirectUris again."},
	{RuleRedirectURIDiffers, "The redirect_uri of the token request is not that of the authorization request.",
		"Send the same redirect_uri in both requests."},
	{RulePKCERequired, "The client must use PKCE, and the request has no code_challenge.",
		"Have the library use PKCE with S256. Public clients must, and so must those that push their requests and " +
			"use DPoP."},
	{RulePKCEMethod, "The code_challenge_method is not S256.",
		"Have the library use S256: plain is not offered, on purpose."},
	{RulePKCEMismatch, "The code_verifier is missing, or does not match the code_challenge of the authorization " +
		"request.",
		"Keep the verifier with the state in the same session of the user, and send it with the code. If the app " +
			"did not begin this sign-in, somebody else may have."},
	{RulePKCEUnexpected, "The token request has a code_verifier, but the authorization request had no code_challenge.",
		"Send both, or neither. If the app did send a challenge, the code may come from another request: begin anew."},
	{RulePushRequired, "The client has registered that it pushes its requests, and this one came by the browser.",
		"Push the request first (RFC 9126), or take requirePushedAuthorizationRequests out of spec.oauth."},
	{RulePushedUnknown, "The request_uri was never given by this server, or is so old that its key is gone.",
		"Push the request again."},
	{RulePushedOtherClient, "The request_uri was given to another client.",
		"Send the client_id of the client that pushed the request."},
	{RulePushedExpired, "The pushed request has expired before the user came with it.",
		"Push it when the user is about to be sent, and not before."},
	{RulePushedUsed, "The pushed request was answered before.",
		"Push a new one for each sign-in."},
	{RuleSignInNeeded, "The user would have to sign in, and prompt=none forbids asking.",
		"This is an expected answer to a silent request: send the user through an authorization request without " +
			"prompt=none."},
	{RuleConsentNeeded, "The user has not allowed all that the app asks for, and prompt=none forbids asking.",
		"This is an expected answer to a silent request: send the user through an authorization request without " +
			"prompt=none."},
	{RuleOtherUser, "The user who is signed in is not the one that the request names.",
		"Leave id_token_hint and the claim sub out if any user will do; otherwise the user has to sign in with " +
			"that account."},
	{RuleUserDenied, "The user said no.",
		"Show that in the app. There is nothing to correct at the server."},
	{RuleSignInCancelled, "The user went back to the app without signing in.",
		"Show that in the app. There is nothing to correct at the server."},
	{RuleSignInWrong, "Nobody could be signed in with this name and password, and the form was shown again.",
		"Let the user try again. If the user is sure, warifu audit says why: the password is wrong or has changed, the " +
			"account is disabled, or nobody has the name."},
	{RuleSignInLocked, "There were too many guesses at the name, or from the address, so no password is " +
		"checked for a while.",
		"Wait as long as the page says; warifu audit shows where the guesses come from."},
	{RuleSignInBusy, "More passwords were to be checked at once than the server takes.",
		"Try again in some seconds. If it happens often, somebody is guessing passwords, " +
			"or the server has too few processors."},
	{RuleFactorWrong, "The code for the second factor is wrong, or was used before, and the form was shown again.",
		"Let the user wait for the next code, and check that the clock of their device is right. " +
			"A user who has lost the device uses a recovery code; without one, an operator removes the factor."},
	{RuleLinkGone, "The link of an invitation, or of a mail to set a new password, was used, has expired, " +
		"or was not made by this server.",
		"A link works once, for a limited time, and only while nothing has changed in how the user signs in: make another " +
			"one with warifu invite, or let the user ask for it on the sign-in page."},
	{RulePasskeyWrong, "A passkey was not taken, and the page was shown again.",
		"The refusal says why. One that nobody has was removed from the account here, and should be removed " +
			"from the device, " +
			"too. If its counter has not moved on, somebody may have a copy: have its user remove it. After a change of the " +
			"issuer's host, no passkey works any more."},
	{RuleConnectorUnavailable, "An identity provider or directory did not answer, or not as it should.",
		"Look for its connector in the log, and check that the server reaches the address in its configuration. " +
			"It is asked again at the next sign-in."},
	{RuleConnectorRefused, "An identity provider or directory signed the user in, or answered, in a way " +
		"that this server does not accept.",
		"The description says what is wrong. If the user has too many groups, let groups of the connector in the " +
			"configuration say which count."},
	{RuleUserCode, "The user code of a device is not one that waits for an answer.",
		"Type the code as the device shows it; if it is too old, or was answered before, begin again at the device."},
	{RulePeerNotAdmitted, "The app asked for an ID token that another app takes as well, and the user may not use that " +
		"one.",
		"See spec.oauth.access of the other app; leave its scope out of requests for users who may not use it."},
	{RuleFactorNeeded, "The app, or the server's configuration, demands a second factor, and the user has signed in " +
		"without one that suffices.",
		"Send the user through an authorization request without prompt=none: they are asked for it, or led to set one " +
			"up. What is demanded is spec.oauth.access.mfa in app.yml, or mfa in the server's configuration."},
	{RuleUserNotAdmitted, "The user may not use the app: app.yml says who may, and this user is not among them.",
		"If the user should be, put them into one of the groups, or add a group or an e-mail address to spec.oauth.access " +
			"in app.yml and apply again. An address counts only when it is verified. Otherwise show that in the app."},
	{RuleUserInactive, "The user's account was disabled or removed.",
		"The app should end its session of this user."},
	{RuleSessionEnded, "The user signed out before the code was redeemed.",
		"Send the user through authorization again."},
	{RuleUserEnded, "Everything that was begun for the user before has ended: the password has changed, the " +
		"account was disabled for a time, or an operator revoked it (warifu audit says which).",
		"Send the user through authorization again."},
	{RuleConsentWithdrawn, "What the user had allowed the client was revoked before the code was redeemed.",
		"Send the user through authorization again, where they are asked."},
	{RuleRequestExpired, "The user left a page open for longer than a request may wait.",
		"Begin again at the app. How long a request waits is expiry.authRequests. Within a day, the browser that " +
			"began it continues with a new one, unless it was pushed; links to the pages of a sign-in expire."},
	{RuleRequestAltered, "The pending request cannot be opened: it was cut off, altered, or is older than the key " +
		"that sealed it.",
		"Begin again at the app. If it happens often, something between browser and server cuts off long addresses."},
	{RuleOtherBrowser, "The page was opened in a different browser from the one in which the request began, or " +
		"the browser keeps no cookies.",
		"Begin again at the app, in one browser, with cookies allowed for the issuer's host."},
	{RuleFormForeign, "The form was not one that this server made for this browser, or it was not filled in as its " +
		"buttons do.",
		"Begin again at the app. If it happens often, another site tries to send forms for the user, or a proxy " +
			"changes Origin or Host."},

	{RuleScopeMissing, "The request names no scope.",
		"Ask for one or more of spec.oauth.scopes in app.yml."},
	{RuleScopeTooMany, "The request names more than 64 scopes.",
		"Ask for those that the app needs now."},
	{RuleScopeNotInManifest, "The client asked for a scope that it has not registered.",
		"Add it to spec.oauth.scopes in app.yml and apply again, or make the app ask for less."},
	{RuleScopeNotInCatalogue, "The client has registered the scope, but this server no longer has it in its " +
		"catalogue.",
		"Add it to scopes of the server's configuration, or take it out of app.yml."},
	{RuleScopeCeiling, "The client belongs to no app, and this server has none of the scopes that it asked for, or none " +
		"for such clients.",
		"Ask for one of scopes_supported. If the scope is a resource server's, add it to scopes of this server's " +
			"configuration, and to oauth2.registration.scopes where that is set."},
	{RuleScopeUnregistered, "The client asked for a scope that its registration or document does not name.",
		"Add it to scope of the registration or the document, or ask for less."},
	{RuleScopeBeyondGrant, "The request asks for a scope beyond what the user granted, or what the token that is " +
		"exchanged has.",
		"Ask for the same scopes or fewer; for more, send the user through authorization again."},
	{RuleScopeAboutUser, "The client asked for itself, and the scope is about a user.",
		"Leave the scopes of OpenID Connect out of a client credentials request."},
	{RuleScopeWithdrawn, "None of the scopes that were granted are registered for the client any longer.",
		"Add them to spec.oauth.scopes again and apply, or send the user through authorization with the scopes of " +
			"today."},
	{RuleScopeOpenID, "Userinfo needs an access token with the scope openid.",
		"Add openid to the scopes that the app registers and asks for."},
	{RuleScopePeer, "The client asked for an ID token that another client takes as well, and no client with that id " +
		"trusts it, or it left out openid.",
		"Compare the id after " + PeerScope + " with the other client's, and add the name of the app that asks to " +
			"spec.oauth.trustedPeers of the other app. Both must know their users by the same sub. Ask for openid as well."},
	{RuleResourceMissing, "The request does not say for whom the token is to be.",
		"Send resource or audience with the identifier of a resource server."},
	{RuleResourceUnknown, "No resource server is registered by this identifier.",
		"Use an identifier of oauth2.resourceServers in the configuration, or of an app's spec.oauth.resource or " +
			"resourceIdentifiers. Compare it with the one that is registered, path and port included."},
	{RuleResourceTooMany, "The request names too many resources at once.",
		"Ask for at most 8, of 1024 bytes together."},
	{RuleResourceNotGranted, "The token request names a resource that was not part of the authorization.",
		"Name it in the authorization request as well."},
	{RuleResourceWithdrawn, "None of the resources that were granted has a resource server any more.",
		"Send the user through authorization again, for the current resources."},
	{RuleResourceForms, "The token would be for resource servers that want different forms of access tokens " +
		"(accessTokenType, accessTokenAlg).",
		"Ask for a token for each of them: name one resource in the token request."},
	{RuleExchangeAudience, "The client wants to exchange a token for a resource server that its manifest does not list.",
		"Add the identifier to spec.oauth.tokenExchangeAudiences in app.yml and apply again, if the app is to call " +
			"that resource server for its users."},

	{RuleCodeInvalid, "This server did not issue the code, or it was altered.",
		"Send the code as it came, without decoding it twice. Check that the token request goes to the same issuer " +
			"as the authorization request."},
	{RuleCodeExpired, "The code has expired; its lifetime is short (expiry.codes).",
		"Redeem the code at once when it arrives; send the user through authorization again."},
	{RuleCodeUsed, "The code was redeemed before; everything issued from it is revoked, because it may have been " +
		"stolen.",
		"Redeem a code once. Look for a callback that is loaded twice, or for a retry of a token request; send the " +
			"user through authorization again."},
	{RuleCodeOtherClient, "The code was not issued to the client that redeems it.",
		"Use the same client_id for both requests; look for environments that are mixed up."},
	{RuleRefreshTokenInvalid, "This server did not issue the refresh token, or it was altered.",
		"Send the refresh token as it came, to the issuer that issued it; otherwise send the user through " +
			"authorization again."},
	{RuleRefreshTokenExpired, "The refresh token has expired: it was not used for too long, or the grant has " +
		"reached its greatest age.",
		"Send the user through authorization again. The limits are in expiry.refreshTokens of the server's " +
			"configuration."},
	{RuleRefreshTokenUsed, "The refresh token was used before; everything issued from it is revoked, because it " +
		"may have been stolen.",
		"Store the new refresh token of every reply, and refresh from one place at a time; an app that cannot needs " +
			"refreshTokens.reuseInterval in its manifest. Send the user through authorization again."},
	{RuleRefreshTokenRevoked, "The grant of the refresh token was revoked, or ended when the user signed out.",
		"Send the user through authorization again; warifu audit shows who revoked it."},
	{RuleRefreshTokenOtherClient, "The refresh token was issued to another client.",
		"Use the client_id that the token was issued to; look for environments that are mixed up."},
	{RuleDeviceCodeInvalid, "This server did not issue the device code, or it was altered.",
		"Send the device code as it came; otherwise ask for another one."},
	{RuleDeviceCodeExpired, "The user did not decide in time.",
		"Ask for another device code, and show its user code."},
	{RuleDeviceCodeUsed, "The device code was redeemed before; everything issued from it is revoked.",
		"Stop polling once tokens have come; ask for another device code."},
	{RuleDeviceCodeOtherClient, "The device code was issued to another client.",
		"Use the same client_id for both requests."},
	{RuleDeviceCodePending, "The user has not decided yet.",
		"This is an expected answer: go on polling."},
	{RuleDevicePollEarly, "The device polls more often than the interval allows.",
		"Wait for the interval between polls, and 5 seconds longer after each slow_down."},
	{RuleTokenOtherClient, "The client wants to revoke a token that was issued to another client.",
		"Use the client that the token was issued to; an operator can revoke any grant (warifu revoke grant)."},
	{RuleAccessTokenMissing, "The request has no access token.",
		"Send Authorization: Bearer with the access token."},
	{RuleAccessTokenInvalid, "The access token is not one of this server for this use, has expired, or its grant " +
		"was revoked.",
		"Refresh it, or send the user through authorization again. A token for other resources than the issuer is " +
			"not for userinfo."},
	{RuleAccessTokenTwice, "The access token came in more than one way at once.",
		"Send it once, in the Authorization header."},
	{RuleAccessTokenScheme, "The access token came by the wrong scheme: DPoP is for tokens that are bound to a " +
		"key, Bearer for all others.",
		"Use the scheme that token_type named when the token was issued."},
	{RuleSubjectTokenInvalid, "The subject_token is not a live access token of this server.",
		"Exchange the access token that the user's request brought, before it ends."},
	{RuleSubjectTokenAudience, "The subject_token is not for a resource server that the client speaks for.",
		"Make the token's audience spec.oauth.resource of the client, if it is that resource server."},
	{RuleSubjectTokenOwn, "The subject_token is a client's own: there is no user to act for.",
		"Exchange a token that a user's request brought; for itself the client uses client_credentials."},
	{RuleSubjectTokenChain, "The subject_token has come through too many exchanges.",
		"Look for services that call each other in a circle."},
	{RuleTokenType, "Only access tokens are exchanged.",
		"Send urn:ietf:params:oauth:token-type:access_token as subject_token_type, and as requested_token_type or " +
			"not at all."},
	{RuleActorToken, "The request has an actor_token: the client that asks is the actor.",
		"Leave actor_token out."},

	{RuleProofMissing, "A DPoP proof is missing: the client has registered for DPoP, or what it shows is bound to " +
		"a key.",
		"Send the header DPoP with a proof; a code or token that is bound to a key needs a proof of that key."},
	{RuleProofInvalid, "The DPoP proof is not right.",
		"Correct what the description names: htm and htu are method and address of this request, iat is now, ath " +
			"is the hash of the access token."},
	{RuleProofUsed, "The DPoP proof was used before.",
		"Make a new proof, with a new jti, for each request."},
	{RuleProofNonce, "The DPoP proof has no nonce of this server, or one that is too old.",
		"This is an expected answer: send the request again with the nonce of the header DPoP-Nonce."},
	{RuleProofKey, "The DPoP proof is not of the key that the code, token or request is bound to.",
		"Use one key from the authorization request to the last refresh."},

	{RuleLogoutURIUnregistered, "The post_logout_redirect_uri is not registered for the client.",
		"Add it to spec.oauth.postLogoutRedirectUris in app.yml and apply again."},
	{RuleLogoutClient, "The logout request names an address to return to, and not the client that it comes from.",
		"Send id_token_hint, or the client_id; both must name the same client."},
	{RuleStartUnregistered, "The client has no address at which somebody else may begin a sign-in.",
		"Add initiateLoginUri to spec.oauth in app.yml and apply again, or link to the app itself."},
	{RuleStartTarget, "The target_link_uri does not have the origin of the client's initiateLoginUri.",
		"Link to a page of the app itself."},
	{RuleForwardProxy, "A request for forward auth came from an address that is not that of a trusted proxy.",
		"List the proxy that is in front of the app in web.trustedProxies of the configuration; nobody else may ask."},
	{RuleForwardHeaders, "A request to an app behind forward auth brought a header that tells the app who its user is.",
		"Find out who sends it; only this server may set it. If it is a proxy in front of the one that asks, " +
			"have it drop these headers."},
	{RuleForwardHost, "No app is at the host that a proxy asks about.",
		"Add it to spec.oauth.forwardAuth.hosts in the app's app.yml and apply again."},
	{RuleForwardRequest, "What a proxy says of the request that it asks about is missing or not right.",
		"Have the proxy set X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-Uri and X-Forwarded-Method, each " +
			"once, and replace what it was sent; the app is served by https."},
	{RuleForwardSignIn, "A request to an app behind forward auth came without a sign-in, and was not for a page.",
		"This is an expected answer: a page of the app leads to the sign-in."},
	{RuleForwardUser, "The user lacks what an app behind forward auth identifies its users by.",
		"Give the account a user name or a verified e-mail address, or choose sub in spec.oauth.forwardAuth.user."},
	{RuleForwardCookies, "A browser came back from the sign-in for an app behind forward auth without the cookie " +
		"that it began with.",
		"Allow cookies at the app's host; neither the app nor its proxy may remove them. The sign-in ends in the " +
			"browser in which it began."},
	{RuleForwardReturn, "A browser came back from a sign-in for an app behind forward auth, " +
		"and no such sign-in is in progress at that host.",
		"Begin at the app again. If it happens often, see whether people bookmark the pages of the sign-in, and " +
			"expiry.authRequests."},
	{RuleForwardAnswer, "A sign-in for an app behind forward auth ended with an error instead of a code.",
		"The user said no, or the request before this one was refused: explain that one."},
	{RuleRegistrationToken, "The initial access token of a registration request is missing, " +
		"or is not one of this server's.",
		"Send one of the tokens in the files of oauth2.registration.initialAccessTokenFiles."},
	{RuleRegistrationAccessToken, "The registration access token is missing, or is not the one of this client; or " +
		"no such client has registered itself.",
		"Send the registration_access_token that came with the client's registration, to the " +
			"registration_client_uri beside it."},
	{RuleRegistrationMetadata, "The registration has metadata that this server does not take.",
		"Correct the member that the description names."},
	{RuleRegistrationConflict, "The registration was changed by another request at the same moment.",
		"Read it, and try again."},
	{RuleRegistrationsFull, "As many clients have registered themselves as this server takes.",
		"Remove those that are no longer used (warifu get clients, warifu delete client); " +
			"those that were never used are removed automatically."},
	{RuleRateLimit, "There were too many requests of this kind in a short time.",
		"Wait, and try again; look for a loop in the app."},
	{RuleStorageUnavailable, "The server could not reach its storage.",
		"Try again. The server's log says what happened, under the same request id."},
	{RuleServerFault, "The server failed.",
		"This is a fault of the server: its log says what happened, under the same request id."},
}
