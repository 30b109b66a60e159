//! The token in the path of Uppy's calls, which cannot carry a header. It is accepted for these calls only, and its header type
//! distinguishes it from an access token.

use jsonwebtoken::Header;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Caller, TokenError, TokenTimes, Tokens, check_times};
use crate::model::{SessionId, UserId};

/// Type in the header, by which this token differs from an access token.
const TYP: &str = "uppy+jwt";

/// Claims of the token. `sid` is absent if an identity provider signed the caller in.
#[derive(Serialize, Deserialize)]
struct UppyClaims {
    sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
}

impl Tokens {
    /// Returns a token that is valid until `expires_at`. `None` if the library cannot sign, which does not happen with this kind of
    /// key.
    #[must_use]
    pub fn issue_uppy_token(&self, caller: Caller, now: OffsetDateTime, expires_at: OffsetDateTime) -> Option<SecretString> {
        let claims = UppyClaims {
            sub: caller.user.to_string(),
            sid: caller.session().map(|session| session.to_string()),
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            iat: now.unix_timestamp(),
            exp: expires_at.unix_timestamp(),
        };
        jsonwebtoken::encode(&header(&self.kid), &claims, &self.signing).ok().map(SecretString::from)
    }

    /// Returns the user of a token, and the session with which it ends.
    ///
    /// # Errors
    /// [`TokenError`], without details of the token.
    pub fn verify_uppy_token(&self, token: &str, now: OffsetDateTime) -> Result<(UserId, Option<SessionId>), TokenError> {
        let claims: UppyClaims = self.decode_own(token, header)?;
        let user = UserId::parse(&claims.sub).ok_or(TokenError::Invalid)?;
        let session = claims.sid.as_deref().map(|sid| SessionId::parse(sid).ok_or(TokenError::Invalid)).transpose()?;
        check_times(TokenTimes { nbf: None, iat: claims.iat, exp: claims.exp }, now)?;
        Ok((user, session))
    }
}

/// Returns the whole header of a token for Uppy's calls that is signed with the key `kid`.
fn header(kid: &str) -> Header {
    let mut header = super::header(kid);
    header.typ = Some(TYP.to_owned());
    header
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;

    use super::{
        super::{SessionEnd, TokenOrigin},
        *,
    };
    use crate::config;

    /// Returns the tokens of a server with this secret and audience.
    fn tokens(secret: &str, audience: &str) -> Tokens {
        Tokens::new(&config::Tokens {
            secret: secret.into(),
            previous: Vec::new(),
            issuer: "valet".to_owned(),
            audience: audience.to_owned(),
            access_ttl: Duration::from_secs(7200),
            refresh_ttl: Duration::from_secs(7200),
        })
    }

    #[test]
    fn access_and_uppy_tokens_are_not_interchangeable() {
        let (tokens, now) = (tokens("a secret of thirty-two bytes, 012", "valet"), OffsetDateTime::now_utc());
        let (user, session) = (UserId::new(), SessionId::new());
        let caller = Caller { user, origin: TokenOrigin::Session(session) };
        let end = now + Duration::from_secs(60);
        let uppy_token = tokens.issue_uppy_token(caller, now, end).unwrap();
        let (access, _) = tokens.issue(user, SessionEnd { id: session, at: end }, now).unwrap();
        assert_eq!(tokens.verify_uppy_token(uppy_token.expose_secret(), now), Ok((user, Some(session))));
        assert_eq!(tokens.verify_uppy_token(access.expose_secret(), now), Err(TokenError::Invalid));
        assert_eq!(tokens.verify(uppy_token.expose_secret(), now), Err(TokenError::Invalid));
        assert_eq!(tokens.verify_uppy_token(uppy_token.expose_secret(), end), Err(TokenError::Expired));
        assert_eq!(
            tokens.verify_uppy_token(uppy_token.expose_secret(), now - Duration::from_secs(60)),
            Err(TokenError::Invalid),
            "not issued yet"
        );
        let provided = Caller { user, origin: TokenOrigin::Provider { issued_at: now, expires_at: end } };
        let uppy_token = tokens.issue_uppy_token(provided, now, end).unwrap();
        assert_eq!(tokens.verify_uppy_token(uppy_token.expose_secret(), now), Ok((user, None)));
    }

    #[test]
    fn tokens_of_other_keys_and_services_are_refused() {
        let (ours, now) = (tokens("a secret of thirty-two bytes, 012", "valet"), OffsetDateTime::now_utc());
        let caller = Caller { user: UserId::new(), origin: TokenOrigin::Session(SessionId::new()) };
        for other in
            [tokens("another secret of thirty-two bytes", "valet"), tokens("a secret of thirty-two bytes, 012", "others")]
        {
            let token = other.issue_uppy_token(caller, now, now + Duration::from_secs(60)).unwrap();
            assert_eq!(ours.verify_uppy_token(token.expose_secret(), now), Err(TokenError::Invalid));
        }
        for text in ["", ".", "a.b.c", &"x".repeat(20_000)] {
            assert_eq!(ours.verify_uppy_token(text, now), Err(TokenError::Invalid));
        }
    }
}
