//! The program `valet`: its subcommands, nothing else.

#[cfg(feature = "worker")]
mod decode;
mod keys;
mod output;
mod passwd;
mod signals;
mod taken;
mod webhook_commands;
mod webhook_listener;
#[cfg(feature = "worker")]
mod worker;

use clap::{Parser, Subcommand};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use valet::{
    config::{self, Config, Problems},
    domain::{
        Valet,
        deployment::{Pair, PairError, RestoredSide, Sample},
        doctor,
        orphans::Consent,
    },
    http,
    model::{DeploymentId, Email},
    server,
    state::AppState,
    telemetry,
};

use self::signals::stop_on_signal;

/// Allocator. glibc's keeps, for each thread, the memory that password hashes and large responses once took; mimalloc returns it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Presigned-URL direct uploads: this server signs, and clients upload to a private S3 bucket.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything on one machine, for development: API, Swagger UI, a local S3 and a local MongoDB.
    #[cfg(feature = "dev")]
    Dev(DevArguments),
    /// The production server; all settings from the environment.
    Serve,
    /// Tries the configured MongoDB and bucket, and prints what holds and what does not.
    Check(CheckArguments),
    /// One sweep, then exit: settles abandoned uploads and deletes what is due. The server does this by itself.
    Sweep(SweepArguments),
    /// Recomputes the usage of all users, or of one, from the images, and repairs differences. Safe while servers run.
    Recount(RecountArguments),
    /// Reads from the files of images that an earlier version made ready when and with which camera they were taken. Safe while
    /// servers run, and to repeat.
    Taken(taken::TakenArguments),
    /// Sets an account's password and ends its sessions. Reads the password from standard input: a line, not shown where
    /// that is a terminal.
    Passwd {
        /// The account's email address.
        email: String,
    },
    /// Makes the configured database the owner of the configured bucket, after a restore or a move. Shows what each belongs to,
    /// and asks.
    Join {
        /// Join without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Creates, lists and revokes service keys, with which an app's backend calls `/api/admin`.
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Webhook endpoints: adds, lists and tests them. Needs `WEBHOOK_SECRET`.
    #[command(subcommand)]
    Webhook(webhook_commands::WebhookCommand),
    /// Makes previews of the images that become ready, with `PREVIEWS=worker`; any number may run.
    #[cfg(feature = "worker")]
    Worker(worker::WorkerArguments),
    /// Decodes one image: a worker starts it as a child.
    #[cfg(feature = "worker")]
    #[command(hide = true)]
    Decode(decode::DecodeArguments),
    /// Prints the OpenAPI document.
    Openapi,
}

#[cfg(feature = "dev")]
#[derive(clap::Args)]
struct DevArguments {
    /// Address of the API.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3000")]
    bind: std::net::SocketAddr,
    /// Address of the local S3.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9000")]
    s3_bind: std::net::SocketAddr,
    /// Folder of all data, kept between runs.
    #[arg(long, value_name = "DIR", default_value = ".valet")]
    data_dir: std::path::PathBuf,
    /// Listen on all interfaces and sign for this machine's address in the local network, so that a phone can upload.
    #[arg(long)]
    lan: bool,
    /// Make the database the owner of the bucket, even if one of them was paired with another: see `valet join`.
    #[arg(long)]
    join: bool,
}

#[derive(clap::Args)]
struct CheckArguments {
    /// First set the bucket's CORS, public access block, rule for abandoned multiparts and notifications, where the store can.
    #[arg(long)]
    fix: bool,
    /// Pages of localhost may upload too: for development.
    #[arg(long)]
    loopback: bool,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct SweepArguments {
    /// Compare bucket and database in both directions instead, and list objects and records without a counterpart.
    #[arg(long, requires = "before")]
    orphans: bool,
    /// Judge only objects written before this time (RFC 3339): leave out what may still be on its way.
    #[arg(long, value_name = "TIME", requires = "orphans", value_parser = instant)]
    before: Option<OffsetDateTime>,
    /// Delete the orphaned objects, after showing them and asking for their number. Records are never deleted.
    #[arg(long, requires = "orphans")]
    delete: bool,
    /// Delete without asking; refused where more than a tenth of the objects would go.
    #[arg(long, requires = "delete")]
    yes: bool,
    /// Delete without asking, if this is the number of orphans: also more than a tenth of the objects.
    #[arg(long, value_name = "NUMBER", requires = "delete", conflicts_with = "yes")]
    expect: Option<u64>,
}

#[derive(clap::Args)]
struct RecountArguments {
    /// One account instead of all.
    email: Option<String>,
}

/// Parses a time in RFC 3339.
fn instant(text: &str) -> Result<OffsetDateTime, &'static str> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "a time such as 2026-11-22T10:00:00Z is wanted")
}

/// An error whose Display is for the operator.
type Failure = Box<dyn std::error::Error>;

fn main() {
    let command = Arguments::parse().command;
    // Before the tokio runtime starts: the decoder must not have the runtime's threads.
    #[cfg(feature = "worker")]
    if let Command::Decode(arguments) = &command {
        return decode::run(arguments);
    }
    run(command);
}

/// Runs a command, and ends the process with its status.
#[tokio::main]
async fn run(command: Command) {
    let result = match command {
        #[cfg(feature = "dev")]
        Command::Dev(arguments) => dev(arguments).await,
        Command::Serve => serve().await,
        Command::Check(arguments) => check(arguments).await,
        Command::Sweep(arguments) => sweep(arguments).await,
        Command::Recount(arguments) => recount(arguments).await,
        Command::Taken(arguments) => taken::run(arguments, settings).await,
        Command::Passwd { email } => passwd::run(&email).await,
        Command::Join { yes } => join(yes).await,
        Command::Key(command) => keys::run(command, settings).await,
        Command::Webhook(command) => webhook_commands::run(command).await,
        #[cfg(feature = "worker")]
        Command::Worker(arguments) => worker::run(arguments, settings).await,
        #[cfg(feature = "worker")]
        // `main()` has run it already.
        Command::Decode(_) => Ok(()),
        Command::Openapi => output::print_text(&http::openapi::text()).map_err(Failure::from),
    };
    telemetry::stop().await;
    // Returning would drop the runtime while the driver still ends its sessions in a task, which then panics on the
    // closed channel of its connection pool: the command has succeeded and prints a panic.
    std::process::exit(match result {
        Ok(()) => 0,
        Err(failure) => {
            output::print_error(failure);
            1
        }
    })
}

/// Reads a variable of the environment. Bytes that are not UTF-8 become U+FFFD, which [`Config::read`] rejects, naming the
/// variable.
fn env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Reads the settings and starts the logs.
fn settings() -> Result<Config, Problems> {
    let config = Config::read(&env)?;
    telemetry::start(config.log);
    warn_of_unknown_settings();
    Ok(config)
}

/// Logs variables of the environment that resemble settings.
fn warn_of_unknown_settings() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, meant) in config::misspelled_settings(names) {
        let meant = meant.unwrap_or_else(|| "-".to_owned());
        tracing::warn!(name, meant, "a variable that looks like a setting is not one, and is not read");
    }
}

/// Starts the local stack and serves until a signal.
#[cfg(feature = "dev")]
async fn dev(arguments: DevArguments) -> Result<(), Failure> {
    use valet::dev::{Stack, StackOptions};
    telemetry::start(valet::config::LogFormat::Text);
    let stop = stop_on_signal()?;
    let DevArguments { bind, s3_bind, data_dir, lan, join } = arguments;
    let options = StackOptions { bind, s3_bind, data_dir, lan, join };
    let stack = tokio::select! {
        stack = Stack::start(&options, &env) => stack?,
        () = stop.cancelled() => return Ok(()),
    };
    warn_of_unknown_settings();
    output::print_line(stack.banner())?;
    Ok(stack.run(stop).await?)
}

/// Serves the API until a signal.
async fn serve() -> Result<(), Failure> {
    let config = settings()?;
    let stop = stop_on_signal()?;
    let Some(app) = stop.run_until_cancelled(AppState::connect_pair(&config)).await else { return Ok(()) };
    let app = app?;
    let listener =
        http::server::listen(config.bind).map_err(|error| format!("cannot listen on {} (BIND): {error}", config.bind))?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    server::serve(listener, app, &config, stop).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Prints the report of the checks; fails if a check failed.
async fn check(arguments: CheckArguments) -> Result<(), Failure> {
    let config = match settings() {
        Err(problems) if arguments.json => {
            output::print_line(doctor::unreadable(&problems).to_json())?;
            return Err(problems.into());
        }
        config => config?,
    };
    let stop = stop_on_signal()?;
    let options = doctor::Options { fix: arguments.fix, loopback: arguments.loopback };
    let report = doctor::run_until(&config, options, stop.cancelled()).await;
    if arguments.json {
        output::print_line(report.to_json())?;
    } else {
        output::print_line(&report)?;
    }
    match report.cut_short {
        Some(why) => Err(why.into()),
        None if report.is_sound() => Ok(()),
        None => Err("some checks failed".into()),
    }
}

/// Sweeps once, or lists or deletes the orphans (`--orphans`).
async fn sweep(arguments: SweepArguments) -> Result<(), Failure> {
    let config = settings()?;
    let valet = AppState::connect_pair(&config).await?.valet;
    match arguments.before {
        None => output::print_line(format_args!("{:?}", valet.sweeper.sweep().await?))?,
        Some(before) if arguments.delete => delete_orphans(&valet, before, &arguments).await?,
        Some(before) => output::print_line(valet.orphans.find(before, &mut |_| {}).await?)?,
    }
    Ok(())
}

/// Shows every orphan, then deletes them if the operator consents.
async fn delete_orphans(valet: &Valet, before: OffsetDateTime, arguments: &SweepArguments) -> Result<(), Failure> {
    // Fails before the orphans are listed, not after the operator has confirmed their deletion.
    valet.orphans.verify_pair_for_deletion().await?;
    let mut lines = output::LinePrinter::default();
    let found = valet.orphans.find(before, &mut |orphan| lines.print(orphan)).await?;
    lines.end()?;
    output::print_line(found.counts())?;
    if found.number() == 0 {
        return Ok(());
    }
    let consent = match arguments.expect {
        Some(number) => Consent::Number(number),
        None if arguments.yes => Consent::Given,
        None => {
            let answer = prompt(
                "All versions of these objects are deleted for good, and these uploads aborted. Type their number to go on:",
            )?;
            Consent::Number(answer.parse().map_err(|_| "nothing was deleted: that is not a number")?)
        }
    };
    let deleted = valet.orphans.delete(before, &found, consent).await?;
    output::print_line(format_args!("{} objects and uploads deleted, {} failed", deleted.deleted, deleted.failed))?;
    if deleted.new > 0 {
        output::print_line(format_args!(
            "{} objects have lost their record since and are left: run it again to see them",
            deleted.new
        ))?;
    }
    if deleted.failed == 0 { Ok(()) } else { Err("some orphans could not be deleted: run it again".into()) }
}

/// Shows to which deployments database and bucket belong, asks unless `yes`, and joins the two.
async fn join(yes: bool) -> Result<(), Failure> {
    let config = settings()?;
    let valet = AppState::open(&config).await?.valet;
    let pair = match valet.deployment.read_pair().await {
        Err(error @ PairError::Damaged { .. }) => {
            output::print_line(error)?;
            None
        }
        pair => Some(pair?),
    };
    if let Some(pair) = pair {
        let text = |id: Option<DeploymentId>| id.map_or_else(|| "none yet".to_owned(), |id| id.to_string());
        output::print_line(format_args!("deployment of the database {}: {}", config.mongo.database, text(pair.database)))?;
        output::print_line(format_args!("deployment of the bucket {}: {}", config.s3.bucket, text(pair.bucket)))?;
    }
    let sample = match valet.deployment.read_sample().await? {
        Sample::Empty => "the bucket has no images",
        Sample::Known => "the database knows images that are in the bucket",
        Sample::Unknown => "the database has no record of the images in the bucket: they will count as orphans",
        Sample::Crowded => "the bucket has many objects of other programs; none of Valet's was found among the first",
    };
    output::print_line(sample)?;
    match pair.and_then(Pair::restored_side) {
        Some(RestoredSide::Database) => {
            output::print_line("the database was restored from a backup: objects of later uploads have no record")?
        }
        Some(RestoredSide::Bucket) => {
            output::print_line("the bucket was restored from a backup: records of later uploads have no object")?
        }
        None if pair.is_some_and(|pair| pair.bucket.is_some() && pair.bucket == pair.database) => {
            return Ok(output::print_line("they belong together already")?);
        }
        None => {}
    }
    if !yes
        && prompt(
            "Type yes to make this database the owner of this bucket; servers of every other one stop sweeping within a minute, and \
             are refused from their next start on:",
        )? != "yes"
    {
        return Err("nothing was changed".into());
    }
    Ok(output::print_line(format_args!("joined as deployment {}", valet.deployment.join_pair().await?))?)
}

/// Prints a question at the terminal. Returns the answer without the white space around it.
fn prompt(question: &str) -> Result<String, Failure> {
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() {
        return Err("nothing was changed: standard input is not a terminal; see --help for options that answer in advance".into());
    }
    output::print_line(question)?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Recomputes the usage of one user or of all, and prints each repair.
async fn recount(arguments: RecountArguments) -> Result<(), Failure> {
    let config = settings()?;
    let email = arguments.email.as_deref().map(|text| Email::parse(text).map_err(|_| "this is not an email")).transpose()?;
    let valet = AppState::connect_pair(&config).await?.valet;
    let mut lines = output::LinePrinter::default();
    let done = valet.recount.run(email.as_ref(), |repair| lines.print(repair)).await?;
    lines.end()?;
    output::print_line(done)?;
    if done.failed == 0 { Ok(()) } else { Err("some users could not be recounted: run it again".into()) }
}
