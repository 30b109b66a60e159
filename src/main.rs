//! The program `valet`: its subcommands, nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_util::sync::CancellationToken;
use valet::{
    app::{self, App},
    config::{Config, Problems},
    domain::check,
    http,
    model::Email,
    telemetry,
};

/// glibc's allocator keeps what passwords' hashes and large answers once took, per thread; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Presigned-URL direct uploads: this server hands out narrow keys, clients talk to a private S3 bucket.
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
    /// Counts what each user, or one, has stored anew from the images, and repairs what drifted. Safe while servers run.
    Recount(RecountArguments),
    /// Sets an account's password and ends its sessions. Reads the password from standard input: a line, not shown where
    /// that is a terminal.
    Passwd {
        /// The account's email address.
        email: String,
    },
    /// Prints the OpenAPI document.
    Openapi,
}

#[cfg(feature = "dev")]
#[derive(clap::Args)]
struct DevArguments {
    /// Where the API listens.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3000")]
    bind: std::net::SocketAddr,
    /// Where the local S3 listens.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9000")]
    s3_bind: std::net::SocketAddr,
    /// Where all data is kept between runs.
    #[arg(long, value_name = "DIR", default_value = ".valet")]
    data_dir: std::path::PathBuf,
    /// Listen on all interfaces and sign for this machine's address in the local network, so that a phone can upload.
    #[arg(long)]
    lan: bool,
}

#[derive(clap::Args)]
struct CheckArguments {
    /// First set the bucket's CORS, public access block and rule for abandoned multiparts, where the store can.
    #[arg(long)]
    fix: bool,
    /// Pages of localhost may upload too: for development.
    #[arg(long)]
    loopback: bool,
}

#[derive(clap::Args)]
struct SweepArguments {
    /// Instead, compare bucket and database both ways and list what has no partner.
    #[arg(long, requires = "before")]
    orphans: bool,
    /// Judge only objects written before this time (RFC 3339): leave out what may still be on its way.
    #[arg(long, value_name = "TIME", requires = "orphans", value_parser = instant)]
    before: Option<OffsetDateTime>,
    /// Delete the orphaned objects. Records are never deleted.
    #[arg(long, requires = "orphans")]
    delete: bool,
}

#[derive(clap::Args)]
struct RecountArguments {
    /// One account instead of all.
    email: Option<String>,
}

fn instant(text: &str) -> Result<OffsetDateTime, &'static str> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "a time such as 2026-11-22T10:00:00Z is wanted")
}

/// An error whose Display is for the operator.
type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        #[cfg(feature = "dev")]
        Command::Dev(arguments) => dev(arguments).await,
        Command::Serve => serve().await,
        Command::Check(arguments) => check(arguments).await,
        Command::Sweep(arguments) => sweep(arguments).await,
        Command::Recount(arguments) => recount(arguments).await,
        Command::Passwd { email } => passwd(&email).await,
        Command::Openapi => {
            print!("{}", http::openapi::text());
            Ok(())
        }
    };
    telemetry::stop().await;
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("valet: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn settings() -> Result<Config, Problems> {
    let config = Config::read(&env)?;
    telemetry::start(config.log);
    Ok(config)
}

#[cfg(feature = "dev")]
async fn dev(arguments: DevArguments) -> Result<(), Failure> {
    use valet::dev::{Options, Stack};
    telemetry::start(valet::config::LogFormat::Text);
    let stop = on_signal()?;
    let options = Options { bind: arguments.bind, s3_bind: arguments.s3_bind, data_dir: arguments.data_dir, lan: arguments.lan };
    let stack = tokio::select! {
        stack = Stack::start(&options, &env) => stack?,
        () = stop.cancelled() => return Ok(()),
    };
    println!("{}", stack.banner());
    Ok(stack.run(stop).await?)
}

async fn serve() -> Result<(), Failure> {
    let config = settings()?;
    let stop = on_signal()?;
    let app = App::connect(&config).await?;
    app.valet.probe_objects().await.map_err(app::ConnectError::Objects)?;
    let listener =
        http::server::listen(config.bind).map_err(|error| format!("cannot listen on {} (BIND): {error}", config.bind))?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    app::serve(listener, app, &config, stop).await?;
    tracing::info!("stopped");
    Ok(())
}

async fn check(arguments: CheckArguments) -> Result<(), Failure> {
    let config = settings()?;
    let report = check::run(&config, check::Options { fix: arguments.fix, loopback: arguments.loopback }).await;
    println!("{report}");
    if report.is_sound() { Ok(()) } else { Err("promises of Valet's do not hold here".into()) }
}

async fn sweep(arguments: SweepArguments) -> Result<(), Failure> {
    let config = settings()?;
    let valet = App::connect(&config).await?.valet;
    match arguments.before {
        None => println!("{:?}", valet.sweep().await?),
        Some(before) => println!("{}", valet.find_orphans(before, arguments.delete).await?),
    }
    Ok(())
}

async fn passwd(email: &str) -> Result<(), Failure> {
    let config = settings()?;
    let password = new_password()?;
    App::connect(&config).await?.valet.set_password(email, password.expose_secret(), time::OffsetDateTime::now_utc()).await?;
    println!("The password is set and all sessions are ended; access tokens die within 30 seconds.");
    Ok(())
}

fn new_password() -> Result<SecretString, Failure> {
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\r', '\n']).into());
    }
    let password = rpassword::prompt_password("New password: ")?;
    if rpassword::prompt_password("The same again: ")? != password {
        return Err("the two are not the same; nothing was changed".into());
    }
    Ok(password.into())
}

async fn recount(arguments: RecountArguments) -> Result<(), Failure> {
    let config = settings()?;
    let email = arguments.email.as_deref().map(|text| Email::parse(text).map_err(|_| "this is not an email")).transpose()?;
    let valet = App::connect(&config).await?.valet;
    let done = valet.recount(email.as_ref(), |repair| println!("{repair}")).await?;
    println!("{done}");
    if done.failed == 0 { Ok(()) } else { Err("some users could not be recounted: run it again".into()) }
}

/// Cancelled by the first SIGINT or SIGTERM; the second ends the process at once.
fn on_signal() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    #[cfg(unix)]
    let mut signals = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    tokio::spawn(async move {
        for again in [false, true] {
            #[cfg(unix)]
            tokio::select! {
                _ = signals.0.recv() => {}
                _ = signals.1.recv() => {}
            }
            #[cfg(not(unix))]
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            if again {
                std::process::exit(130);
            }
            signalled.cancel();
        }
    });
    Ok(stop)
}
