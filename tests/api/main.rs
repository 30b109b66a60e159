//! The one integration test binary: every test drives real servers from outside.

#[cfg(feature = "dev")]
mod local_s3;
