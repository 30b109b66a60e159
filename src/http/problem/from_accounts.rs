//! Maps the errors of accounts and passwords to problems.

use super::{Code, Problem};
use crate::domain::{
    account_deletion::DeleteAccountError,
    accounts::{ChangePasswordError, LogInError, SignUpError, WeakPassword},
};

/// Detail of a sign-up with an unknown outcome.
const UNKNOWN_SIGN_UP: &str = "The account may have been created. Sign in after a moment; if that is refused, sign up again.";

impl From<SignUpError> for Problem {
    fn from(error: SignUpError) -> Self {
        match error {
            SignUpError::InvalidEmail(_) => Self::new(Code::InvalidEmail, "Send an email address of the form name@example.com.")
                .field("email", "must be an email address of the form name@example.com"),
            SignUpError::WeakPassword(weakness) => weak_password("password", weakness),
            SignUpError::EmailTaken => Self::new(
                Code::EmailTaken,
                "Sign in instead, also if this repeats a sign-up that got no answer, or sign up with another address.",
            ),
            SignUpError::NoLocalAccount(error) => error.into(),
            SignUpError::Closed => {
                Self::new(Code::SignupClosed, "Sign in with an existing account, or ask the operator for one.")
            }
            SignUpError::Throttled(error) => error.into(),
            SignUpError::Overloaded(error) => error.into(),
            SignUpError::Store(error) => match Self::from(error) {
                problem if matches!(problem.code, Code::Unavailable | Code::Timeout) => {
                    Self { detail: UNKNOWN_SIGN_UP.to_owned(), ..problem }
                }
                problem => problem,
            },
        }
    }
}

impl From<LogInError> for Problem {
    fn from(error: LogInError) -> Self {
        match error {
            LogInError::InvalidCredentials => Self::new(Code::InvalidCredentials, "Check both and try again."),
            LogInError::Suspended => Self::account_suspended(),
            LogInError::NoLocalAccount(error) => error.into(),
            LogInError::Throttled(error) => error.into(),
            LogInError::Overloaded(error) => error.into(),
            LogInError::Store(error) => error.into(),
        }
    }
}

impl From<DeleteAccountError> for Problem {
    fn from(error: DeleteAccountError) -> Self {
        match error {
            DeleteAccountError::NoPassword => {
                Self::new(Code::InvalidRequest, "Send the account's password.").field("password", "is required")
            }
            DeleteAccountError::Password(error) => error.into(),
            DeleteAccountError::TokenTooOld => Self::new(
                Code::TokenTooOld,
                "Sign in again at the identity provider, and send the new token within five minutes.",
            ),
            DeleteAccountError::NoAccount => Self::session_ended(),
        }
    }
}

impl From<ChangePasswordError> for Problem {
    fn from(error: ChangePasswordError) -> Self {
        match error {
            ChangePasswordError::Current(LogInError::InvalidCredentials) => {
                Self::new(Code::InvalidCredentials, "The current password is incorrect.")
            }
            ChangePasswordError::Current(error) => error.into(),
            ChangePasswordError::WeakPassword(weakness) => weak_password("newPassword", weakness),
            ChangePasswordError::NoAccount => Self::session_ended(),
        }
    }
}

/// Returns the problem of a password that a rule forbids.
fn weak_password(field: &str, WeakPassword(rule): WeakPassword) -> Problem {
    Problem::new(Code::WeakPassword, format!("The password {rule}.")).field(field, rule)
}
