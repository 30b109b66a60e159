//! The use cases. Nothing here names poem, mongodb or aws.

pub mod content;
