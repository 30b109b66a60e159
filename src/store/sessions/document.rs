//! The document of a session and its conversion in both directions.

use mongodb::bson::{Binary, Bson, DateTime, doc, spec::BinarySubtype};
use serde::{Deserialize, Serialize};

use super::{Exchange, Session};
use crate::{
    model::{ServiceKeyId, SessionId, UserId},
    store::{StoreError, datetime, instant},
};

/// A record of `sessions`; the fields are those of [`Session`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionDoc {
    #[serde(rename = "_id")]
    id: String,
    user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password_version: Option<i64>,
    created_at: DateTime,
    last_used_at: DateTime,
    expires_at: DateTime,
    ends_at: DateTime,
    token_hash: Binary,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_key: Option<Binary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<Binary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<ExchangeDoc>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<ExchangeDoc>,
    /// Number of exchanges of refresh tokens.
    generation: i64,
}

/// A stored [`Exchange`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExchangeDoc {
    hash: Binary,
    salt: Binary,
    at: DateTime,
    #[serde(default)]
    agent: Option<Binary>,
    #[serde(default)]
    network: Option<String>,
    /// [`Exchange::by_other_agent`].
    #[serde(default)]
    newcomer: bool,
}

impl SessionDoc {
    /// Returns the document of a new session.
    pub(super) fn new(session: &Session) -> Self {
        Self {
            id: session.id.to_string(),
            user: session.user.to_string(),
            device: session.device.clone(),
            password_version: session.password_version,
            created_at: datetime(session.created_at),
            last_used_at: datetime(session.last_used_at),
            expires_at: datetime(session.expires_at),
            ends_at: datetime(session.ends_at),
            token_hash: binary(&session.token_hash),
            token_key: session.token_key.as_ref().map(binary),
            agent: session.agent.as_ref().map(binary),
            issued_by: session.issued_by.map(|key| key.to_string()),
            parent: session.parent.as_ref().map(ExchangeDoc::new),
            earlier: session.earlier.iter().map(ExchangeDoc::new).collect(),
            generation: 0,
        }
    }

    /// Converts the document; the error names the damaged field.
    pub(super) fn into_session(self) -> Result<Session, StoreError> {
        let corrupt = |field| StoreError::Corrupt { collection: "sessions", id: self.id.clone(), field };
        let bytes = |binary: &Binary, field| parse_32_bytes(binary).ok_or_else(|| corrupt(field));
        let exchange = |exchange: &ExchangeDoc, field| exchange.parse().ok_or_else(|| corrupt(field));
        Ok(Session {
            id: SessionId::parse(&self.id).ok_or_else(|| corrupt("_id"))?,
            user: UserId::parse(&self.user).ok_or_else(|| corrupt("user"))?,
            password_version: self.password_version,
            created_at: instant(self.created_at),
            last_used_at: instant(self.last_used_at),
            expires_at: instant(self.expires_at),
            ends_at: instant(self.ends_at),
            token_hash: bytes(&self.token_hash, "tokenHash")?,
            token_key: self.token_key.as_ref().map(|key| bytes(key, "tokenKey")).transpose()?,
            agent: self.agent.as_ref().map(|agent| bytes(agent, "agent")).transpose()?,
            issued_by: self
                .issued_by
                .as_deref()
                .map(|key| ServiceKeyId::parse(key).ok_or_else(|| corrupt("issuedBy")))
                .transpose()?,
            parent: self.parent.as_ref().map(|parent| exchange(parent, "parent")).transpose()?,
            earlier: self.earlier.iter().map(|earlier| exchange(earlier, "earlier")).collect::<Result<_, _>>()?,
            device: self.device,
        })
    }
}

impl ExchangeDoc {
    pub(super) fn new(exchange: &Exchange) -> Self {
        Self {
            hash: binary(&exchange.hash),
            salt: binary(&exchange.salt),
            at: datetime(exchange.at),
            agent: exchange.agent.as_ref().map(binary),
            network: exchange.network.clone(),
            newcomer: exchange.by_other_agent,
        }
    }

    /// Converts the exchange for an update.
    pub(super) fn into_bson(self) -> Bson {
        let Self { hash, salt, at, agent, network, newcomer } = self;
        doc! { "hash": hash, "salt": salt, "at": at, "agent": agent, "network": network, "newcomer": newcomer }.into()
    }

    /// Converts the stored exchange; `None` if it is damaged.
    fn parse(&self) -> Option<Exchange> {
        Some(Exchange {
            hash: parse_32_bytes(&self.hash)?,
            salt: parse_32_bytes(&self.salt)?,
            at: instant(self.at),
            agent: self.agent.as_ref().and_then(parse_32_bytes),
            network: self.network.clone(),
            by_other_agent: self.newcomer,
        })
    }
}

/// Converts a stored digest, key or salt; `None` if it has another length.
fn parse_32_bytes(binary: &Binary) -> Option<[u8; 32]> {
    <[u8; 32]>::try_from(&*binary.bytes).ok()
}

/// Converts a digest, key or salt for a document.
pub(super) fn binary(bytes: &[u8; 32]) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }
}
