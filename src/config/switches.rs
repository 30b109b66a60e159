//! Settings that enable optional features: sign-up, Uppy's operations, and Swagger UI with the OpenAPI document. [`Events`] states
//! whether changes write events.

use super::reader::Reader;

/// Optional features, each `on` or `off`; on by default.
#[derive(Debug, Clone, Copy)]
pub struct Switches {
    /// `SIGNUP`: creating local accounts. Existing ones can log in either way.
    pub signup: bool,
    /// `UPPY`: the calls of an unmodified `@uppy/aws-s3`.
    pub uppy: bool,
    /// `DOCS`: Swagger UI and the OpenAPI document.
    pub docs: bool,
}

/// Whether the changes of images and accounts write events. `WEBHOOK_SECRET` turns them on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// No events are written.
    Off,
    /// Each change writes an event, which is fanned out to the endpoints.
    On,
}

impl Events {
    /// Returns whether changes write events.
    #[must_use]
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

impl Reader<'_> {
    /// Reads the switches. `has_local_accounts`: whether `SIGNUP` has an effect.
    pub(super) fn switches(&mut self, has_local_accounts: bool) -> Switches {
        if !has_local_accounts && self.text("SIGNUP").is_some() {
            self.problems.push("SIGNUP has no effect while LOCAL_ACCOUNTS is off: remove it".to_owned());
        }
        Switches { signup: self.flag("SIGNUP", true), uppy: self.flag("UPPY", true), docs: self.flag("DOCS", true) }
    }
}
