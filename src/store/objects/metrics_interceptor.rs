//! An interceptor that measures every call to S3 for [`crate::metrics`], and records its span. The trace context is not sent to
//! S3: some servers reject a signed trace header, and no server uses an unsigned one.

use std::time::Instant;

use aws_sdk_s3::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeSerializationInterceptorContextRef, FinalizerInterceptorContextRef},
    },
    error::BoxError,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use parking_lot::Mutex;

use crate::{metrics::METRICS, telemetry::spans};

/// Measures calls, and ends their spans.
#[derive(Debug)]
pub(super) struct MetricsInterceptor;

/// The beginning of a call, in the call's own state.
#[derive(Debug)]
struct CallStart {
    at: Instant,
    /// Ended with the call; dropping it marks the call as cancelled.
    span: Mutex<Option<spans::ClientSpan>>,
}

impl Storable for CallStart {
    type Storer = StoreReplace<Self>;
}

impl Intercept for MetricsInterceptor {
    fn name(&self) -> &'static str {
        "metrics"
    }

    // The operation's name is not known earlier.
    fn read_before_serialization(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let span = bag.load::<Metadata>().map(|call| spans::ClientSpan::s3(call.name()));
        bag.interceptor_state().store_put(CallStart { at: Instant::now(), span: Mutex::new(span) });
        Ok(())
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let status = response.map(|response| response.status().as_u16());
        if let Some((start, call)) = bag.load::<CallStart>().zip(bag.load::<Metadata>()) {
            METRICS.record_s3_call(call.name(), status, start.at.elapsed());
            if let Some(span) = start.span.lock().take() {
                let failed = context.output_or_error().is_some_and(|done| done.is_err());
                let status_text = status.map_or_else(|| "no_answer".to_owned(), |status| status.to_string());
                let id = response.and_then(|response| response.headers().get("x-amz-request-id"));
                span.end_s3(status, id, failed.then_some(status_text.as_str()));
            }
        }
        Ok(())
    }
}
