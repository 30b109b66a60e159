//! An interceptor that counts every call to S3 for [`crate::store::failpoint`]. Not part of a production build.

use aws_sdk_s3::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::FinalizerInterceptorContextRef},
    error::BoxError,
};

use crate::store::failpoint;

/// Counts calls when they end.
#[derive(Debug)]
pub(super) struct FailpointInterceptor;

impl Intercept for FailpointInterceptor {
    fn name(&self) -> &'static str {
        "failpoint"
    }

    fn read_after_execution(
        &self,
        _: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        failpoint::count_call();
        Ok(())
    }
}
