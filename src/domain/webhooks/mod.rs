//! Webhooks. [`delivery`] makes the deliveries, [`endpoints`] administers the endpoints, `known_endpoints` caches them. The rules
//! do no I/O: [`signature`] signs messages, [`schedule`] has the times of attempts, [`addresses`] the addresses that an attempt
//! may connect to.

pub mod addresses;
pub mod delivery;
pub mod endpoints;
pub(super) mod known_endpoints;
pub mod schedule;
pub mod signature;
