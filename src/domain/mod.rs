//! The use cases. Nothing here names poem, mongodb or aws.
