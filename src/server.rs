//! Runs the server: listeners, the sweeper and other work in the background, and an orderly stop.

use std::sync::atomic::Ordering;

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, CorsOrigins},
    http::{self, server::ConnectionOptions},
    state::AppState,
};

/// Largest number of open connections to `ADMIN_BIND`. Those of clients are counted apart, so that clients cannot lock operators
/// out.
const MAX_ADMIN_CONNECTIONS: usize = 64;

/// Largest number of open connections to `HOOKS_BIND`.
const MAX_HOOK_CONNECTIONS: usize = 256;

/// Returns the connection options of an address that no browser page may call.
fn without_pages(max_connections: usize) -> ConnectionOptions {
    ConnectionOptions { max_connections, origins: CorsOrigins::default() }
}

/// Serves the API and sweeps until `stop`, then finishes the requests under way, within a deadline.
///
/// # Errors
/// Returns an error when `ADMIN_BIND` or `HOOKS_BIND` cannot be listened on.
pub async fn serve(listener: TcpListener, app: AppState, config: &Config, stop: CancellationToken) -> std::io::Result<()> {
    // No upload can be opened before the store's capabilities are known. Connections made meanwhile wait in the backlog.
    app.valet.prober.probe_at_start(time::OffsetDateTime::now_utc()).await;
    let endpoint = http::middleware::drain::close_when_stopping(http::router::endpoint(app.clone(), config), app.stopping());
    let admin_server = serve_admin(&app, config).await?;
    // Cancelled after `STOP_DELAY`: closes the listeners and the event streams.
    let close = CancellationToken::new();
    let hooks = match &config.store_events.hook {
        Some(hook) => {
            let listener = TcpListener::bind(hook.bind).await?;
            tracing::info!(address = %listener.local_addr()?, "the store's notifications are received at /hooks/s3/");
            let endpoint = http::middleware::drain::close_when_stopping(http::hooks::endpoint(app.clone()), app.stopping());
            tokio::spawn(http::server::serve(listener, endpoint, without_pages(MAX_HOOK_CONNECTIONS), close.clone()))
        }
        None => tokio::spawn(async {}),
    };
    let background = spawn_background(&app, &stop, &close);
    let stopped = async {
        stop.cancelled().await;
        app.stopping().store(true, Ordering::Relaxed);
        // Requests are served until every load balancer has probed the readiness.
        tokio::time::sleep(config.stop_delay).await;
        close.cancel();
    };
    let max_connections = http::server::clamp_to_fd_limit(config.load.max_connections);
    if max_connections < config.load.max_connections {
        app.valet.event_streams.lower_limit(max_connections / 2);
    }
    let options = ConnectionOptions { max_connections, origins: config.cors.clone() };
    tokio::join!(http::server::serve(listener, endpoint, options, close.clone()), stopped);
    app.valet.confirmation.wait_for_counts().await;
    // Last, so that metrics can be read while the server drains.
    if let Some(admin_server) = admin_server {
        admin_server.abort();
    }
    for (name, task) in background.into_iter().chain([("hooks", hooks)]) {
        if let Err(error) = task.await {
            tracing::error!(name, %error, "background task panicked");
        }
    }
    Ok(())
}

/// Serves metrics and health checks on `ADMIN_BIND`, if that is set.
async fn serve_admin(app: &AppState, config: &Config) -> std::io::Result<Option<JoinHandle<()>>> {
    let Some(address) = config.admin_bind else { return Ok(None) };
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "metrics are at /metrics");
    let (endpoint, options) = (http::admin::endpoint(app.clone()), without_pages(MAX_ADMIN_CONNECTIONS));
    Ok(Some(tokio::spawn(http::server::serve(listener, endpoint, options, CancellationToken::new()))))
}

/// Makes previews until `stop` (`valet worker`), with metrics and health checks on `ADMIN_BIND`.
///
/// # Errors
/// Returns an error when `ADMIN_BIND` cannot be listened on, or the program's own path is not known.
#[cfg(feature = "worker")]
pub async fn work(app: AppState, config: &Config, stop: CancellationToken) -> std::io::Result<()> {
    let renderer = app.valet.preview_worker.renderer()?;
    let admin_server = serve_admin(&app, config).await?;
    tracing::info!("making previews");
    app.valet.preview_worker.run_until(&renderer, stop).await;
    if let Some(admin_server) = admin_server {
        admin_server.abort();
    }
    tracing::info!("stopped");
    Ok(())
}

/// Starts the tasks that belong to no request, each with its name for the log. They end at `stop`; the event streams, which are
/// responses under way, end at `close`.
fn spawn_background(app: &AppState, stop: &CancellationToken, close: &CancellationToken) -> [(&'static str, JoinHandle<()>); 6] {
    let valet_and_stop = || (app.valet.clone(), stop.clone());
    let (valet, until) = valet_and_stop();
    let sweeper = tokio::spawn(async move { valet.sweeper.sweep_until(until).await });
    let (valet, until) = valet_and_stop();
    let provider = tokio::spawn(async move { valet.identities.refresh_provider_until(until).await });
    let (valet, until) = valet_and_stop();
    let event_fan_out = tokio::spawn(async move { valet.event_fan_out.run_until(until).await });
    let (valet, until) = valet_and_stop();
    let webhooks = tokio::spawn(async move {
        if let Some(delivery) = &valet.webhook_delivery {
            delivery.run_until(until).await;
        }
    });
    let (valet, until) = valet_and_stop();
    let store_notifications = tokio::spawn(async move { valet.store_notifications.poll_until(until).await });
    let (valet, until) = (app.valet.clone(), close.clone());
    let event_streams = tokio::spawn(async move { valet.event_streams.run_until(until).await });
    [
        ("sweeper", sweeper),
        ("keys of the identity provider", provider),
        ("fan-out", event_fan_out),
        ("webhooks", webhooks),
        ("queue of notifications", store_notifications),
        ("event streams", event_streams),
    ]
}
