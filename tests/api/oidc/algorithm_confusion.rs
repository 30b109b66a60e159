//! Covers tokens that name another algorithm or key than that of their signature: a key determines its algorithm, and only
//! published keys for verification are used.

use serde_json::{Value, json};

use super::{
    app_of,
    provider::{Key, Provider, base64, hs256},
    read_account,
};

/// Shared secret in the key set.
const PUBLISHED_SECRET: [u8; 32] = [7; 32];

/// Names of algorithms for a token's header.
const ALGORITHMS: [&str; 12] =
    ["RS256", "ES256", "EdDSA", "PS256", "RS384", "RS512", "ES384", "HS256", "none", "None", "ES256K", ""];

/// A published key that must not verify tokens, because of one member of its JWK.
struct UnusableKey {
    kid: &'static str,
    key: Key,
    member: &'static str,
    value: Value,
}

/// The keys of a provider, and a foreign one.
struct Keys {
    rsa: Key,
    ec: Key,
    ed: Key,
    unusable: [UnusableKey; 4],
    foreign: Key,
}

impl Keys {
    /// Generates a key of each kind.
    fn generate() -> Self {
        Self {
            rsa: Key::rsa(),
            ec: Key::ec(),
            ed: Key::ed(),
            unusable: [
                UnusableKey { kid: "enc", key: Key::rsa(), member: "use", value: json!("enc") },
                UnusableKey { kid: "ops", key: Key::rsa(), member: "key_ops", value: json!(["sign"]) },
                UnusableKey { kid: "ps", key: Key::rsa(), member: "alg", value: json!("PS256") },
                UnusableKey { kid: "p384", key: Key::ec(), member: "crv", value: json!("P-384") },
            ],
            foreign: Key::rsa(),
        }
    }

    /// Returns the keys of algorithms that the server accepts.
    fn usable(&self) -> [(&'static str, &Key); 3] {
        [("rsa", &self.rsa), ("ec", &self.ec), ("ed", &self.ed)]
    }

    /// Returns the key set: the usable keys, the unusable ones, a shared secret, and malformed entries.
    fn published(&self) -> Vec<Value> {
        let mut published: Vec<_> = self.usable().map(|(kid, key)| key.jwk(kid)).into();
        published.extend(self.unusable.iter().map(|unusable| {
            let mut jwk = unusable.key.jwk(unusable.kid);
            jwk[unusable.member] = unusable.value.clone();
            jwk
        }));
        published.push(json!({ "kty": "oct", "kid": "oct", "alg": "HS256", "k": base64(PUBLISHED_SECRET) }));
        published.extend([json!({ "kty": "RSA", "kid": "bad", "n": "!", "e": "AQAB" }), json!(1), json!({})]);
        published
    }

    /// Returns tokens whose shared secret is public: a public key, or a published secret.
    fn with_public_secrets(&self, claims: &Value) -> Vec<String> {
        let mut forged = vec![hs256(&PUBLISHED_SECRET, &json!({ "alg": "HS256", "kid": "oct" }), claims)];
        for secret in self.usable().iter().flat_map(|(_, key)| key.public_bytes()) {
            for kid in ["rsa", "ec", "ed", "oct"] {
                for typ in ["JWT", "at+jwt"] {
                    forged.push(hs256(&secret, &json!({ "alg": "HS256", "kid": kid, "typ": typ }), claims));
                }
            }
        }
        forged
    }

    /// Returns tokens that name another key than their signature's, another algorithm than their key's, an unusable key, or no key.
    fn with_other_keys_or_algorithms(&self, claims: &Value) -> Vec<String> {
        let Self { rsa, ec, ed, foreign, .. } = self;
        let mut forged = vec![rsa.sign(&json!({ "alg": "RS256" }), claims)];
        for (key, kid) in [(rsa, "ec"), (rsa, "ed"), (ec, "rsa"), (ed, "rsa"), (ec, "ed"), (ed, "ec"), (foreign, "rsa")] {
            forged.extend(ALGORITHMS.map(|algorithm| key.sign(&json!({ "alg": algorithm, "kid": kid }), claims)));
        }
        for algorithm in ["PS256", "RS384", "RS512", "none", "rs256"] {
            forged.push(rsa.sign(&json!({ "alg": algorithm, "kid": "rsa" }), claims));
        }
        forged.extend(self.unusable.iter().map(|unusable| unusable.key.token(unusable.kid, claims)));
        forged
    }

    /// Returns tokens of the foreign key whose header contains that key or its address at another provider, and tokens whose header
    /// has `crit`.
    fn with_keys_in_the_header(&self, thief: &Provider, claims: &Value) -> Vec<String> {
        let header = |member: &str, value: Value| {
            let mut header = json!({ "alg": "RS256", "kid": "rsa" });
            header[member] = value;
            header
        };
        let critical = header("crit", json!(["exp"]));
        vec![
            self.foreign.sign(&header("jwk", self.foreign.jwk("rsa")), claims),
            self.foreign.sign(&header("jku", json!(format!("{}/keys", thief.issuer))), claims),
            self.foreign.sign(&header("x5u", json!(format!("{}/keys", thief.issuer))), claims),
            self.foreign.sign(&header("x5c", json!([base64("certificate")])), claims),
            self.foreign.sign(&critical, claims),
            self.rsa.sign(&critical, claims),
        ]
    }
}

#[tokio::test]
async fn algorithm_confusion_is_rejected() {
    let keys = Keys::generate();
    let provider = Provider::start(&keys.usable()).await;
    provider.publish(keys.published());
    let thief = Provider::start(&[("rsa", &keys.foreign)]).await;
    let app = app_of(&provider).await;
    let claims = provider.claims("ada");
    let genuine = read_account(&app, keys.rsa.token("rsa", &claims)).await;
    assert_eq!(genuine.status, 200, "unusable keys in the set do not affect the others");
    let forged = [
        keys.with_public_secrets(&claims),
        keys.with_other_keys_or_algorithms(&claims),
        keys.with_keys_in_the_header(&thief, &claims),
    ];
    for token in forged.concat() {
        let answer = read_account(&app, token.clone()).await;
        assert_eq!(answer.problem(), (401, "token_invalid"), "{token}: {answer:?}");
    }
    assert_eq!(thief.fetches(), 0);
}
