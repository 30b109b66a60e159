//! The command `valet worker`: makes previews, decoding each image in a child process (`valet decode`).

use std::num::NonZeroU32;

use tokio_util::sync::CancellationToken;
use valet::{
    config::{Config, PreviewWorker, Problems},
    server,
    state::AppState,
};

use super::{Failure, output, signals::stop_on_signal};

#[derive(clap::Args)]
pub struct WorkerArguments {
    /// Make the previews that are due, then exit.
    #[arg(long, conflicts_with = "backfill")]
    once: bool,
    /// Also make the previews of images that were ready before `PREVIEWS=worker` was set: at most so many a second.
    #[arg(long, value_name = "IMAGES_PER_SECOND")]
    backfill: Option<NonZeroU32>,
}

/// Runs the command.
pub async fn run(arguments: WorkerArguments, settings: fn() -> Result<Config, Problems>) -> Result<(), Failure> {
    let config = settings()?;
    let worker = config.previews.worker().ok_or("set PREVIEWS to worker, here and for the servers")?;
    check_heif_command(worker)?;
    let stop = stop_on_signal()?;
    if arguments.once {
        return stop
            .run_until_cancelled(render_once(&config))
            .await
            .unwrap_or_else(|| Err("interrupted; run it again for the images that are still due".into()));
    }
    let Some(app) = stop.run_until_cancelled(AppState::connect_pair(&config)).await else { return Ok(()) };
    let app = app?;
    let backfill = async {
        if let Some(rate) = arguments.backfill {
            queue_earlier_images(&app, rate, &stop).await;
        }
    };
    let (worked, ()) = tokio::join!(server::work(app.clone(), &config, stop.clone()), backfill);
    Ok(worked?)
}

/// Makes the previews that are due.
async fn render_once(config: &Config) -> Result<(), Failure> {
    let valet = AppState::connect_pair(config).await?.valet;
    let renderer = valet.preview_worker.renderer()?;
    let images = valet.preview_worker.render_all_due(&renderer).await?;
    Ok(output::print_line(format_args!("{images} images done"))?)
}

/// Checks that the command for HEIC and AVIF exists: without it, each of these images would fail for good.
fn check_heif_command(worker: &PreviewWorker) -> Result<(), Failure> {
    match &worker.heif_command {
        Some(command) if !command.is_file() => Err("PREVIEW_HEIF_COMMAND names a file that does not exist here".into()),
        _ => Ok(()),
    }
}

/// Queues the images that were ready before `PREVIEWS=worker` was set, `rate` a second, until all are queued or the worker stops.
async fn queue_earlier_images(app: &AppState, rate: NonZeroU32, stop: &CancellationToken) {
    tokio::select! {
        queued = app.valet.preview_worker.backfill(rate) => match queued {
            Ok(images) => tracing::info!(images, "queued all earlier images for their previews"),
            Err(error) => tracing::error!(%error, "failed to queue all earlier images; start the backfill again"),
        },
        () = stop.cancelled() => {}
    }
}
