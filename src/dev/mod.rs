//! The local parts for development and tests: never for production.

pub mod mongod;
pub mod s3;
