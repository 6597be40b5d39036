"""A web app on Flask and Authlib, as Authlib's documentation shows it: the registry reads discovery and checks the ID token."""

import os

from authlib.integrations.flask_client import OAuth
from authlib.integrations.requests_client import OAuth2Session
from flask import Flask, jsonify, request, session

from listen import listen

app = Flask(__name__)
app.secret_key = os.urandom(32)
oauth = OAuth(app)
oauth.register(
    name="warifu",
    client_id=os.environ["OAUTH_CLIENT_ID"],
    client_secret=os.environ["OAUTH_CLIENT_SECRET"],
    server_metadata_url=os.environ["OAUTH_ISSUER"] + "/.well-known/openid-configuration",
    client_kwargs={"scope": "openid profile email offline_access threads:read", "code_challenge_method": "S256"},
)


def service():
    """The session in which an app calls without a user, and does what the registry does not."""
    return OAuth2Session(os.environ["OAUTH_CLIENT_ID"], os.environ["OAUTH_CLIENT_SECRET"], scope="threads:read")


def active(token):
    metadata = oauth.warifu.load_server_metadata()
    return service().introspect_token(metadata["introspection_endpoint"], token=token).json()["active"]


@app.get("/")
def login():
    return oauth.warifu.authorize_redirect(request.host_url + "callback")


@app.get("/callback")
def callback():
    metadata = oauth.warifu.load_server_metadata()
    token = oauth.warifu.authorize_access_token()
    refreshed = oauth.warifu.fetch_access_token(grant_type="refresh_token", refresh_token=token["refresh_token"])
    userinfo = oauth.warifu.userinfo(token=refreshed)
    before = active(refreshed["access_token"])
    service().revoke_token(metadata["revocation_endpoint"], token=refreshed["refresh_token"]).raise_for_status()
    session["id_token"] = token["id_token"]
    return jsonify(
        sub=token["userinfo"]["sub"],
        email=userinfo["email"],
        refreshed=refreshed["refresh_token"] != token["refresh_token"],
        active=before,
        revoked=not active(refreshed["access_token"]),
    )


@app.get("/logout")
def logout():
    return oauth.warifu.logout_redirect(
        post_logout_redirect_uri=request.host_url + "signed-out", id_token_hint=session["id_token"], state="bye"
    )


@app.get("/signed-out")
def signed_out():
    oauth.warifu.validate_logout_response()
    return jsonify(state=request.args["state"])


@app.get("/service")
def own_account():
    metadata = oauth.warifu.load_server_metadata()
    token = service().fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    return jsonify(active=active(token["access_token"]))


listen(app)
