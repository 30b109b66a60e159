//! An OpenID provider for tests: keys, tokens, and a server that can fail as providers do.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::{
    encoding::AsDer,
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use poem::{
    EndpointExt, IntoResponse, Response, Route, Server, get, handler, http::StatusCode, listener::TcpAcceptor, web::Data,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// Encodes bytes as JWTs do.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key pair of one of the types that providers use.
pub enum Key {
    Rsa(rsa::KeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Key {
    pub fn rsa() -> Self {
        Self::Rsa(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap())
    }

    pub fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    /// Returns the name of the key's algorithm in a token's header.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    /// Returns the public key as providers publish it.
    pub fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                // PKCS#1: the headers of a SEQUENCE and of an INTEGER, four bytes each, then a zero and the modulus of 256 bytes.
                let der = pair.public_key().as_ref().to_vec();
                json!({ "kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "n": base64(&der[9..265]), "e": "AQAB" })
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": base64(&point[1..33]), "y": base64(&point[33..]) })
            }
            Self::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": "EdDSA", "x": base64(pair.public_key()) })
            }
        }
    }

    /// Returns encodings of the public key that a verifier could mistake for a shared secret.
    pub fn public_bytes(&self) -> Vec<Vec<u8>> {
        let (raw, der) = match self {
            Self::Rsa(pair) => (pair.public_key().as_ref().to_vec(), pair.public_key().as_der().unwrap().as_ref().to_vec()),
            Self::Ec(pair) => (pair.public_key().as_ref().to_vec(), pair.public_key().as_der().unwrap().as_ref().to_vec()),
            Self::Ed(pair) => (pair.public_key().as_ref().to_vec(), Vec::new()),
        };
        let armoured = base64::engine::general_purpose::STANDARD.encode(&der);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{armoured}\n-----END PUBLIC KEY-----\n").into_bytes();
        vec![raw, der, pem, self.jwk("rsa").to_string().into_bytes(), Vec::new()]
    }

    /// Returns a token with these claims and this header, signed with the key.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
        let random = SystemRandom::new();
        let bytes = message.as_bytes();
        let signature = match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(bytes).as_ref().to_vec(),
        };
        format!("{message}.{}", base64(signature))
    }

    /// Returns a token that is valid if the claims are.
    pub fn token(&self, kid: &str, claims: &Value) -> String {
        self.sign(&json!({ "alg": self.algorithm(), "kid": kid, "typ": "JWT" }), claims)
    }
}

/// Returns a token signed with a shared secret.
pub fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{message}.{}", base64(hmac::sign(&key, message.as_bytes())))
}

/// Behavior of the provider.
#[derive(Clone)]
pub enum Behavior {
    /// Answers correctly.
    Well,
    /// Answers with this status.
    Failing(u16),
    /// Never answers.
    Silent,
    /// Redirects to a server that would answer correctly.
    Redirecting(String),
    /// Answers correctly, with a megabyte of padding.
    Endless,
    /// Answers with this configuration, and with the correct keys.
    Configured(Value),
}

/// State that tests change while the provider runs.
struct State {
    behavior: Behavior,
    keys: Vec<Value>,
}

/// A running provider.
pub struct Provider {
    pub issuer: String,
    state: Arc<Mutex<State>>,
    /// Number of requests for the keys.
    fetches: Arc<AtomicUsize>,
}

/// Data of the request handlers.
#[derive(Clone)]
struct Shared {
    issuer: String,
    state: Arc<Mutex<State>>,
    fetches: Arc<AtomicUsize>,
}

/// Answers a request for a document as the current behavior says.
async fn answer(shared: &Shared, document: impl FnOnce(&State) -> Value) -> Response {
    let (behavior, document) = {
        let state = shared.state.lock().unwrap();
        (state.behavior.clone(), document(&state))
    };
    match behavior {
        Behavior::Failing(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Behavior::Silent => std::future::pending().await,
        Behavior::Redirecting(to) => Response::builder().status(StatusCode::FOUND).header("location", to).finish(),
        Behavior::Endless => {
            let mut large = document;
            large["padding"] = Value::from("x".repeat(1 << 20));
            large.to_string().into_response()
        }
        Behavior::Configured(other) if document.get("jwks_uri").is_some() => other.to_string().into_response(),
        Behavior::Well | Behavior::Configured(_) => document.to_string().into_response(),
    }
}

/// Serves the OpenID configuration.
#[handler]
async fn serve_configuration(shared: Data<&Shared>) -> Response {
    let issuer = &shared.issuer;
    answer(&shared, |_| json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") })).await
}

/// Serves the keys, and counts the request.
#[handler]
async fn serve_keys(shared: Data<&Shared>) -> Response {
    shared.fetches.fetch_add(1, Ordering::SeqCst);
    answer(&shared, |state| json!({ "keys": state.keys })).await
}

impl Provider {
    /// Starts a provider with these keys under these key ids.
    pub async fn start(keys: &[(&str, &Key)]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let issuer = format!("http://{}/realms/main", listener.local_addr().unwrap());
        let state = State { behavior: Behavior::Well, keys: keys.iter().map(|(kid, key)| key.jwk(kid)).collect() };
        let provider = Self { issuer: issuer.clone(), state: Arc::new(Mutex::new(state)), fetches: Arc::default() };
        let shared = Shared { issuer, state: provider.state.clone(), fetches: provider.fetches.clone() };
        let routes = Route::new()
            .at("/realms/main/.well-known/openid-configuration", get(serve_configuration))
            .at("/realms/main/keys", get(serve_keys))
            .data(shared);
        tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_std(listener).unwrap()).run(routes));
        provider
    }

    /// Sets the behavior from now on.
    pub fn behave(&self, behavior: Behavior) {
        self.state.lock().unwrap().behavior = behavior;
    }

    /// Replaces the published keys.
    pub fn publish(&self, keys: Vec<Value>) {
        self.state.lock().unwrap().keys = keys;
    }

    /// Returns the header of a token that names the first published key.
    pub fn header(&self) -> Value {
        let key = self.state.lock().unwrap().keys[0].clone();
        let algorithm = match key["kty"].as_str() {
            Some("RSA") => "RS256",
            Some("EC") => "ES256",
            _ => "EdDSA",
        };
        json!({ "alg": algorithm, "kid": key["kid"], "typ": "JWT" })
    }

    /// Returns the number of requests for the keys.
    pub fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Returns the claims of a valid token.
    pub fn claims(&self, subject: &str) -> Value {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        json!({ "iss": self.issuer, "sub": subject, "aud": AUDIENCE, "iat": now, "exp": now + 600 })
    }
}

/// Audience of the provider's tokens.
pub const AUDIENCE: &str = "photos";
