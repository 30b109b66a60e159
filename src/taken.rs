//! The command `valet taken`: reads time, camera and, if the settings keep it, position from the files of images that an
//! earlier version made ready.

use std::num::NonZeroU32;

use valet::{
    config::{Config, Problems},
    state::AppState,
};

use super::{Failure, output, signals::stop_on_signal};

#[derive(clap::Args)]
pub struct TakenArguments {
    /// Read at most so many images a second.
    #[arg(long, value_name = "IMAGES_PER_SECOND", default_value = "20")]
    rate: NonZeroU32,
}

/// Runs the command.
pub async fn run(arguments: TakenArguments, settings: fn() -> Result<Config, Problems>) -> Result<(), Failure> {
    let config = settings()?;
    let stop = stop_on_signal()?;
    let backfill = async {
        let valet = AppState::connect_pair(&config).await?.valet;
        Ok::<_, Failure>(valet.capture_backfill.run(arguments.rate).await?)
    };
    let done = stop
        .run_until_cancelled(backfill)
        .await
        .ok_or("interrupted; the images that were read are recorded: run it again for the others")??;
    output::print_line(done)?;
    if done.failed == 0 { Ok(()) } else { Err("some images could not be read: run it again".into()) }
}
