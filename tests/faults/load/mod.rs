//! The load: many clients of several users, each at its own pace, by the documented rules of clients; every call is in the
//! journal. What they do follows from the seed and from what they are told.

use std::{sync::Arc, time::Duration};

use super::{journal::Journal, world::World};

/// How much of it there is.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    pub clients: usize,
    pub users: usize,
    pub seed: u64,
    /// How long a client repeats a call that is not answered for good.
    pub patience: Duration,
}

impl Default for Profile {
    fn default() -> Self {
        Self { clients: 50, users: 12, seed: 1, patience: Duration::from_secs(60) }
    }
}

/// Clients at work.
pub struct Load {}

impl Load {
    pub fn start(_world: &World, _journal: &Arc<Journal>, _profile: Profile) -> Self {
        Self {}
    }

    /// Lets every client finish what it is at.
    pub async fn stop(self) {}
}
