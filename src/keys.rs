//! `valet key`: creates, lists and revokes service keys.

use std::time::Duration;

use secrecy::ExposeSecret;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use valet::{
    config::{Config, Problems},
    domain::service_keys::{NewServiceKey, ServiceKey, ServiceKeys},
    model::{KeyName, Scope, ServiceKeyId},
    state::AppState,
};

use crate::output;

/// An error whose Display is for the operator.
type Failure = Box<dyn std::error::Error>;

/// Commands for service keys.
#[derive(clap::Subcommand)]
pub enum KeyCommand {
    /// Creates a key and prints it, once: only its digest is stored.
    Create {
        /// Name of the key, for lists and the audit log.
        #[arg(value_parser = parse_name)]
        name: KeyName,
        /// Permission of the key; repeat it for several: tokens:create, users:read, users:write, images:read, images:delete.
        #[arg(long, required = true, value_parser = parse_scope)]
        scope: Vec<Scope>,
        /// Lifetime of the key, such as 90d. Without it, the key is valid until it is revoked.
        #[arg(long, value_name = "TIME", value_parser = parse_lifetime)]
        expires: Option<Duration>,
    },
    /// Lists all keys, without their secrets.
    List,
    /// Revokes a key: within 30 seconds every server refuses it.
    Revoke {
        /// Id of the key, as `valet key list` prints it.
        #[arg(value_parser = parse_id)]
        id: ServiceKeyId,
        /// Also ends the sessions of all tokens that were created with the key, once no server accepts it any more. The key may
        /// have been revoked before.
        #[arg(long)]
        end_sessions: bool,
    },
}

/// Parses the name of a key.
fn parse_name(text: &str) -> Result<KeyName, String> {
    KeyName::parse(text).map_err(|error| error.to_string())
}

/// Parses a scope.
fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| format!("one of {} is wanted", Scope::ALL.map(Scope::as_str).join(", ")))
}

/// Parses a lifetime from one second to ten years.
fn parse_lifetime(text: &str) -> Result<Duration, &'static str> {
    let ten_years = Duration::from_secs(10 * 366 * 24 * 60 * 60);
    let parsed = humantime::parse_duration(text).ok().filter(|time| (Duration::from_secs(1)..=ten_years).contains(time));
    parsed.ok_or("a time such as 90d is wanted, from one second to ten years")
}

/// Parses the id of a key.
fn parse_id(text: &str) -> Result<ServiceKeyId, &'static str> {
    ServiceKeyId::parse(text).ok_or("the id of a key is wanted, as `valet key list` prints it; not the key itself")
}

/// Runs the command on the database that the settings name.
///
/// # Errors
/// A text for the operator.
pub async fn run(command: KeyCommand, settings: fn() -> Result<Config, Problems>) -> Result<(), Failure> {
    let app = AppState::open(&settings()?).await?;
    let keys = &app.valet.service_keys;
    let now = OffsetDateTime::now_utc();
    match command {
        KeyCommand::Create { name, scope, expires } => {
            let key = keys.create(NewServiceKey { name, scopes: scope, lifetime: expires }, now).await?;
            Ok(output::print_line(key.expose_secret())?)
        }
        KeyCommand::List => list(keys, now).await,
        KeyCommand::Revoke { id, end_sessions } => {
            let is_revoked = keys.revoke(id, now).await?;
            if is_revoked {
                output::print_line("The key is revoked; every server refuses it within 30 seconds.")?;
            }
            if end_sessions {
                end_sessions_of(keys, id, now).await
            } else if is_revoked {
                Ok(())
            } else {
                Err("no key has this id, or it was revoked before".into())
            }
        }
    }
}

/// Waits until no server accepts the revoked key, with which sessions could be created until then, and ends the sessions of its
/// tokens.
async fn end_sessions_of(keys: &ServiceKeys, id: ServiceKeyId, now: OffsetDateTime) -> Result<(), Failure> {
    let rejected_from = keys.rejected_from(id).await?.ok_or("no key has this id")?;
    tokio::time::sleep((rejected_from - now).try_into().unwrap_or_default()).await;
    let ended = keys.end_sessions(id).await?;
    Ok(output::print_line(format_args!("Ended {ended} sessions of tokens that were created with the key."))?)
}

/// Prints a table of all keys; fails after the table if a key could not be read.
async fn list(keys: &ServiceKeys, now: OffsetDateTime) -> Result<(), Failure> {
    let mut failed = false;
    output::print_line(format_args!("{:36}  {:8}  {:20}  {:20}  {:24}  SCOPES", "ID", "STATE", "EXPIRES", "LAST USED", "NAME"))?;
    for key in keys.list().await? {
        match key {
            Ok(key) => output::print_line(row(&key, now))?,
            Err(error) => {
                failed = true;
                output::print_error(error);
            }
        }
    }
    if failed { Err("some keys could not be read".into()) } else { Ok(()) }
}

/// Returns the row of a key in the table.
fn row(key: &ServiceKey, now: OffsetDateTime) -> String {
    let time = |at: Option<OffsetDateTime>| {
        let at = at.and_then(|at| at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok());
        at.unwrap_or_else(|| "-".to_owned())
    };
    let state = match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(at)) if at <= now => "expired",
        _ => "valid",
    };
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let (expires, used) = (time(key.expires_at), time(key.last_used_at));
    format!("{:36}  {state:8}  {expires:20}  {used:20}  {:24}  {}", key.id, key.name, scopes.join(","))
}
