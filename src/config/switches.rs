//! Optional features: sign-up, Uppy's operations, Swagger UI with the document.

use super::reader::Reader;

/// Each `on` or `off`; on by default.
#[derive(Debug, Clone, Copy)]
pub struct Switches {
    /// `SIGNUP`: making accounts of this service's own. Those that there are can log in either way.
    pub signup: bool,
    /// `UPPY`: the calls of an unmodified `@uppy/aws-s3`.
    pub uppy: bool,
    /// `DOCS`: Swagger UI and the OpenAPI document.
    pub docs: bool,
}

impl Reader<'_> {
    /// `has_local_accounts`: whether there is a sign-up to be switched.
    pub(super) fn switches(&mut self, has_local_accounts: bool) -> Switches {
        if !has_local_accounts && self.text("SIGNUP").is_some() {
            self.problems.push("SIGNUP has no effect while LOCAL_ACCOUNTS is off: leave it out".to_owned());
        }
        Switches { signup: self.flag("SIGNUP", true), uppy: self.flag("UPPY", true), docs: self.flag("DOCS", true) }
    }
}
