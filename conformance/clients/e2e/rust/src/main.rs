//! A web app on openidconnect, as its documentation shows it: discovery, PKCE, an ID token that is verified with its
//! nonce and its hash of the access token, userinfo, and a refresh. It shows what it has seen as JSON.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::{env, fs};

use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreProviderMetadata, CoreUserInfoClaims,
};
use openidconnect::{
    AccessTokenHash, AuthorizationCode, ClientId, ClientSecret, CsrfToken, IssuerUrl, Nonce,
    OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse,
    reqwest,
};
use serde_json::json;
use url::Url;

type Failure = Box<dyn Error>;

/// What the app remembers of a sign-in that has begun.
struct Begun {
    state: CsrfToken,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
}

fn main() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let own = format!("http://{}", listener.local_addr()?);

    let http = reqwest::blocking::ClientBuilder::new()
        .redirect(reqwest::redirect::Policy::none())
        .add_root_certificate(reqwest::Certificate::from_pem(&fs::read(env::var("SSL_CERT_FILE")?)?)?)
        .build()?;
    let metadata = CoreProviderMetadata::discover(&IssuerUrl::new(env::var("OAUTH_ISSUER")?)?, &http)?;
    let client = CoreClient::from_provider_metadata(
        metadata,
        ClientId::new(env::var("OAUTH_CLIENT_ID")?),
        Some(ClientSecret::new(env::var("OAUTH_CLIENT_SECRET")?)),
    )
    .set_redirect_uri(RedirectUrl::new(format!("{own}/callback"))?);

    println!("{own}");
    let mut begun: Option<Begun> = None;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let url = Url::parse(&own)?.join(&path_of(&stream)?)?;
        if url.path() != "/callback" {
            let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
            let (to, state, nonce) = client
                .authorize_url(
                    CoreAuthenticationFlow::AuthorizationCode,
                    CsrfToken::new_random,
                    Nonce::new_random,
                )
                .add_scope(Scope::new("email".to_string()))
                .add_scope(Scope::new("profile".to_string()))
                .set_pkce_challenge(challenge)
                .url();
            begun = Some(Begun { state, nonce, verifier });
            write!(stream, "HTTP/1.1 303 See Other\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            continue;
        }
        let shown = (|| -> Result<String, Failure> {
            let Begun { state, nonce, verifier } = begun.take().ok_or("nothing has begun")?;
            let parameter = |name: &str| {
                url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
            };
            if parameter("state").as_ref() != Some(state.secret()) {
                return Err("another state".into());
            }
            let code = AuthorizationCode::new(parameter("code").ok_or("no code")?);
            let tokens = client.exchange_code(code)?.set_pkce_verifier(verifier).request(&http)?;

            let id_token = tokens.id_token().ok_or("no ID token")?;
            let checks = client.id_token_verifier();
            let claims = id_token.claims(&checks, &nonce)?;
            let expected = claims.access_token_hash().ok_or("no at_hash")?;
            let actual = AccessTokenHash::from_token(
                tokens.access_token(),
                id_token.signing_alg()?,
                id_token.signing_key(&checks)?,
            )?;
            if actual != *expected {
                return Err("another access token".into());
            }

            let userinfo: CoreUserInfoClaims =
                client.user_info(tokens.access_token().to_owned(), Some(claims.subject().clone()))?.request(&http)?;

            let old = tokens.refresh_token().ok_or("no refresh token")?;
            let refreshed = client.exchange_refresh_token(old)?.request(&http)?;
            let renewed = refreshed.id_token().ok_or("no ID token on refresh")?;
            let later = renewed.claims(&checks, |_: Option<&Nonce>| Ok(()))?;
            Ok(json!({
                "sub": claims.subject().as_str(),
                "email": claims.email().map(|email| email.as_str()),
                "userinfo": userinfo.email().map(|email| email.as_str()),
                "refreshed": refreshed.refresh_token().is_some_and(|new| new.secret() != old.secret()),
                "same": later.subject() == claims.subject(),
            })
            .to_string())
        })();
        let (status, body) = match shown {
            Ok(body) => ("200 OK", body),
            Err(failure) => ("500 Internal Server Error", format!("{failure:?}")),
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}

/// The path and query of a request, whose headers are read to their end.
fn path_of(stream: &TcpStream) -> Result<String, Failure> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().ok_or("no request")??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    Ok(first.split(' ').nth(1).ok_or("no path")?.to_string())
}
