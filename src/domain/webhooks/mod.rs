//! Webhooks. Pure rules: signatures, times of attempts, and addresses that an attempt may connect to. Deliveries are made by
//! [`delivery`], and endpoints are administered by [`endpoints`].

pub mod addresses;
pub mod delivery;
pub mod endpoints;
pub(super) mod known_endpoints;
pub mod schedule;
pub mod signature;
