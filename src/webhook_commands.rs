//! The commands `valet webhook …`, which administer the endpoints in the database.

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use valet::{
    domain::webhooks::endpoints::{Endpoints, PreviousSecret},
    model::WebhookEndpoint,
    state::AppState,
};

use crate::{Failure, instant, output, settings, stop_on_signal, webhook_listener};

#[derive(Subcommand)]
pub enum WebhookCommand {
    /// Adds an endpoint and prints its id and its secret.
    Add {
        /// Its address: https, without credentials.
        url: String,
        /// A type that it receives, such as image.ready; may be repeated. Without any, it receives all.
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
    },
    /// Prints all endpoints: id, state, address and types.
    List,
    /// Prints the secret of an endpoint.
    Secret(Endpoint),
    /// Replaces the secret of an endpoint and prints the new one. Messages are signed with both for 24 hours.
    Rotate {
        #[command(flatten)]
        endpoint: Endpoint,
        /// Also within 24 hours of the last replacement: messages are no longer signed with the secret before the current one.
        #[arg(long)]
        force: bool,
    },
    /// Turns an endpoint off. Messages that wait for it are given up.
    Disable(Endpoint),
    /// Turns an endpoint on.
    Enable(Endpoint),
    /// Sends one message of type webhook.test from this machine, and prints the outcome.
    Test(Endpoint),
    /// Receives messages at an endpoint on this machine, verifies them, and prints them, until Ctrl-C. For development.
    Listen {
        /// Port on the loopback interface.
        #[arg(long, default_value_t = 4001)]
        port: u16,
    },
    /// Sends the messages of an endpoint again, delivered or not, with the same webhook-id.
    Replay {
        #[command(flatten)]
        endpoint: Endpoint,
        /// The time of the oldest change (RFC 3339). Delivered messages are kept for 7 days, others for 30.
        #[arg(long, value_name = "TIME", value_parser = instant)]
        since: OffsetDateTime,
    },
}

#[derive(Args)]
pub struct Endpoint {
    /// The endpoint's id.
    id: String,
}

/// Runs a command.
pub async fn run(command: WebhookCommand) -> Result<(), Failure> {
    let app = AppState::open(&settings()?).await?;
    let endpoints = app.valet.endpoints.as_ref().ok_or("WEBHOOK_SECRET is not set: set it as on the servers")?;
    let now = OffsetDateTime::now_utc();
    match command {
        WebhookCommand::Add { url, types } => {
            let endpoint = endpoints.add(&url, types, now).await?;
            output::print_line(&endpoint.id)?;
            output::print_line(endpoints.secret(&endpoint.id).await?.expose_secret())?;
        }
        WebhookCommand::List => {
            for endpoint in endpoints.list().await? {
                output::print_line(line(&endpoint))?;
            }
        }
        WebhookCommand::Secret(Endpoint { id }) => output::print_line(endpoints.secret(&id).await?.expose_secret())?,
        WebhookCommand::Rotate { endpoint, force } => {
            let previous = if force { PreviousSecret::Ended } else { PreviousSecret::Kept };
            output::print_line(endpoints.rotate(&endpoint.id, previous, now).await?.expose_secret())?;
        }
        WebhookCommand::Disable(Endpoint { id }) => endpoints.disable(&id).await?,
        WebhookCommand::Enable(Endpoint { id }) => endpoints.enable(&id).await?,
        WebhookCommand::Listen { port } => webhook_listener::listen(endpoints, port, stop_on_signal()?).await?,
        WebhookCommand::Test(Endpoint { id }) => test(endpoints, &id, now).await?,
        WebhookCommand::Replay { endpoint, since } => {
            let count = endpoints.replay(&endpoint.id, since, now).await?;
            output::print_line(format_args!("{count} messages are sent again"))?;
        }
    }
    Ok(())
}

/// Sends a test message, and prints its status or fails with the reason.
async fn test(endpoints: &Endpoints, id: &str, now: OffsetDateTime) -> Result<(), Failure> {
    let attempt = endpoints.test(id, now).await?;
    let (status, took) = (attempt.status.unwrap_or(0), attempt.took.as_millis());
    match attempt.error {
        None if (200..300).contains(&status) => {
            Ok(output::print_line(format_args!("delivered: status {status} after {took} ms"))?)
        }
        None => Err(format!("the endpoint answered {status} after {took} ms; only 2xx counts as delivered").into()),
        Some(error) => Err(format!("there was no answer: {error}").into()),
    }
}

/// Returns the line of an endpoint in the list.
fn line(endpoint: &WebhookEndpoint) -> String {
    let since = endpoint.first_failure_at.and_then(|at| at.format(&Rfc3339).ok());
    let failing = since.map(|since| format!(" failing since {since}")).unwrap_or_default();
    let why = endpoint.disabled_reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let types = if endpoint.types.is_empty() { "all types".to_owned() } else { endpoint.types.join(",") };
    format!("{} {}{why} {} {types}{failing}", endpoint.id, endpoint.state.as_str(), endpoint.url)
}
