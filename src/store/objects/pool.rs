//! The pool of connections to S3.
//!
//! A firewall or a load balancer that drops connections silently, or a machine that is down, leaves a pool of connections that
//! look usable and never respond. A call would try these connections one after the other. So the whole pool is discarded when one
//! connection has not responded for as long as an attempt may take, and the next attempt opens a new connection. Calls in progress
//! keep their connections.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_s3::{
    config::{ConfigBag, RuntimeComponents},
    error::BoxError,
};
use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector},
    orchestrator::HttpRequest,
    runtime_components::RuntimeComponentsBuilder,
};
use parking_lot::RwLock;

use super::{ATTEMPT_DEADLINE, tls_trust::TlsTrust, xml_roots::ExpectedResponse};

/// Age from which a cancelled call counts as timed out: [`ATTEMPT_DEADLINE`], less the tolerance of timers.
const MIN_SILENCE: Duration = ATTEMPT_DEADLINE.saturating_sub(Duration::from_millis(200));

/// An HTTP client whose pool can be replaced.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    current: Arc<RwLock<Generation>>,
    trust: TlsTrust,
}

/// A pool, with the number of pools before it.
#[derive(Debug, Clone)]
struct Generation {
    number: u64,
    client: SharedHttpClient,
}

impl Pool {
    pub(super) fn new(trust: TlsTrust) -> Self {
        let first = Generation { number: 0, client: trust.sdk_client() };
        Self { current: Arc::new(RwLock::new(first)), trust }
    }

    /// Returns the current pool.
    fn current(&self) -> Generation {
        self.current.read().clone()
    }

    /// Replaces the pool with this number, unless it was replaced already.
    fn renew(&self, number: u64) {
        let mut current = self.current.write();
        if current.number == number {
            tracing::warn!("no response from S3; replacing the connection pool");
            *current = Generation { number: number + 1, client: self.trust.sdk_client() };
        }
    }
}

impl HttpClient for Pool {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let Generation { number, client } = self.current();
        let connector = client.http_connector(settings, components);
        SharedHttpConnector::new(Connector { connector, pool: self.clone(), number })
    }

    fn validate_base_client_config(&self, components: &RuntimeComponentsBuilder, config: &ConfigBag) -> Result<(), BoxError> {
        self.current().client.validate_base_client_config(components, config)
    }
}

/// A connector of one pool, whose unanswered calls discard the pool.
#[derive(Debug)]
struct Connector {
    connector: SharedHttpConnector,
    pool: Pool,
    number: u64,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let unanswered = UnansweredCall { pool: self.pool.clone(), number: self.number, since: Instant::now(), answered: false };
        let expected = ExpectedResponse::for_request(&request);
        let answer = self.connector.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            unanswered.end(answer.is_ok());
            expected.repair(answer?).await
        })
    }
}

/// A call without a response yet. Cancelling the call drops this.
struct UnansweredCall {
    pool: Pool,
    number: u64,
    since: Instant,
    answered: bool,
}

impl UnansweredCall {
    /// Ends the wait, with a response or an error.
    fn end(mut self, answered: bool) {
        self.answered = answered;
    }
}

impl Drop for UnansweredCall {
    fn drop(&mut self) {
        if !self.answered && self.since.elapsed() >= MIN_SILENCE {
            self.pool.renew(self.number);
        }
    }
}
