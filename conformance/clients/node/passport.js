// A web app on Express and Passport with passport-openidconnect, as its README shows it. Passport knows no discovery: the app
// reads the document itself. Nor does it refresh, revoke or sign out at the server.

import express from "express"
import session from "express-session"
import passport from "passport"
import Strategy from "passport-openidconnect"
import { clientId, clientSecret, issuer, listen } from "./app.js"

const metadata = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json()
const app = express()
const server = listen(app)
app.use(session({ secret: "of a test", resave: false, saveUninitialized: false }))
app.use(passport.initialize())
app.use(passport.session())
passport.serializeUser((user, done) => done(null, user))
passport.deserializeUser((user, done) => done(null, user))

server.on("listening", () => {
  passport.use(
    new Strategy(
      {
        issuer: metadata.issuer,
        authorizationURL: metadata.authorization_endpoint,
        tokenURL: metadata.token_endpoint,
        userInfoURL: metadata.userinfo_endpoint,
        clientID: clientId,
        clientSecret,
        callbackURL: `http://127.0.0.1:${server.address().port}/callback`,
        scope: ["profile", "email"],
        skipUserProfile: false, // ask userinfo: the ID token says only who somebody is
      },
      (_issuer, profile, done) => done(null, { sub: profile.id, email: profile.emails[0].value }),
    ),
  )
})

app.get("/", passport.authenticate("openidconnect"))
app.get("/callback", passport.authenticate("openidconnect"), (request, response) => response.json(request.user))
