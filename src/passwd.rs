//! The command `valet passwd`, which reads a password from standard input.

use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;
use valet::state::AppState;

use crate::{Failure, output, settings};

/// Sets the password of an account, and ends its sessions.
pub async fn run(email: &str) -> Result<(), Failure> {
    let config = settings()?;
    let password = new_password()?;
    AppState::open(&config)
        .await?
        .valet
        .accounts
        .set_password(email, password.expose_secret(), OffsetDateTime::now_utc())
        .await?;
    Ok(output::print_line("The password is set and all sessions are ended; access tokens are rejected within 30 seconds.")?)
}

/// Reads the password: at a terminal twice, without showing it; otherwise one line of standard input.
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
