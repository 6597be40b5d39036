"""A web app on Flask and requests-oauthlib, as the latter's documentation shows it. It knows no discovery and no ID tokens: the
app reads the document itself, and who signed in from userinfo."""

import os

import requests
from flask import Flask, jsonify, redirect, request, session
from oauthlib.oauth2 import BackendApplicationClient
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from listen import listen

client_id, client_secret = os.environ["OAUTH_CLIENT_ID"], os.environ["OAUTH_CLIENT_SECRET"]
metadata = requests.get(os.environ["OAUTH_ISSUER"] + "/.well-known/openid-configuration").json()
scope = ["openid", "profile", "email", "offline_access", "threads:read"]

app = Flask(__name__)
app.secret_key = os.urandom(32)
underway = {}  # sessions of the library by state: each remembers what its answer has to fit


@app.get("/")
def login():
    oauth = OAuth2Session(client_id, redirect_uri=request.host_url + "callback", scope=scope, pkce="S256")
    url, session["state"] = oauth.authorization_url(metadata["authorization_endpoint"])
    underway[session["state"]] = oauth
    return redirect(url)


@app.get("/callback")
def callback():
    oauth = underway.pop(session["state"])
    token = oauth.fetch_token(
        metadata["token_endpoint"], client_secret=client_secret, authorization_response=request.url
    )
    refreshed = oauth.refresh_token(metadata["token_endpoint"], auth=HTTPBasicAuth(client_id, client_secret))
    userinfo = oauth.get(metadata["userinfo_endpoint"]).json()
    return jsonify(
        sub=userinfo["sub"], email=userinfo["email"], refreshed=refreshed["refresh_token"] != token["refresh_token"]
    )


@app.get("/service")
def service():
    oauth = OAuth2Session(client=BackendApplicationClient(client_id=client_id, scope=["threads:read"]))
    token = oauth.fetch_token(metadata["token_endpoint"], client_id=client_id, client_secret=client_secret)
    return jsonify(active=bool(token["access_token"]))


listen(app)
