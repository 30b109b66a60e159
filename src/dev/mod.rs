//! The local stack for development and tests, never for production: an S3 server inside the process, a mongod as a child process,
//! and the application in front of them.

mod environment;
pub mod mongod;
pub mod s3;
mod stack;

pub use stack::{DevError, Stack, StackOptions};
