//! What a store that cannot have an upload is to a client.

use super::{Code, Problem};
use crate::domain::finalize::{Declares, Unfit};

impl From<Unfit> for Problem {
    fn from(error: Unfit) -> Self {
        match error {
            Unfit::NotSupported(Declares::Nothing) => Self::new(
                Code::NotSupportedByStore,
                "The storage behind this server would let others' bytes in through this kind of upload. Declare the file's SHA-256 \
                 and send it in one PUT: POST to /api/images/upload.",
            ),
            Unfit::NotSupported(Declares::Digest) => Self::new(
                Code::NotSupportedByStore,
                "The storage behind this server obeys headers that no URL signs, by which an upload could be published or replaced. \
                 Nothing can be uploaded until its operator has mended that: `valet check` says how.",
            ),
            Unfit::Store(error) => error.into(),
        }
    }
}
