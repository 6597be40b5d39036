// A web app on Express 4 and Auth.js (@auth/express), as its documentation shows it: the provider is known by its issuer
// alone, and the user is what the ID token says.

import { ExpressAuth, getSession } from "@auth/express"
import express from "express4"
import { clientId, clientSecret, issuer, listen } from "./app.js"

const config = {
  secret: "of a test, and at least 32 characters",
  trustHost: true,
  providers: [{ id: "warifu", name: "warifu", type: "oidc", issuer, clientId, clientSecret }],
}

const app = express()
app.set("trust proxy", true)
app.use("/auth/*", ExpressAuth(config))
app.get("/", async (request, response) => {
  const session = await getSession(request, config)
  if (!session) return response.redirect("/auth/signin?callbackUrl=/")
  response.json(session.user)
})
listen(app)
