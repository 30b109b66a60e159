//! The connections to S3 that are kept for the next call.
//!
//! A firewall or a balancer that forgets connections, or a machine that is gone, leaves a pool of them that look well and say nothing:
//! each costs a call its attempt, one after the other. So the first that says nothing for as long as an attempt may take ends the whole
//! pool, and the next attempt has a connection of its own. Calls that are under way keep theirs.

use std::{
    sync::{Arc, PoisonError, RwLock},
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

use super::{ATTEMPT, roots::Expected, trust::Trust};

/// A call that was given up after this was given up for silence: [`ATTEMPT`], but for what timers differ.
const SILENT: Duration = ATTEMPT.saturating_sub(Duration::from_millis(200));

/// An HTTP client whose connections can be given up.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    current: Arc<RwLock<Generation>>,
    trust: Trust,
}

#[derive(Debug, Clone)]
struct Generation {
    number: u64,
    client: SharedHttpClient,
}

impl Pool {
    pub(super) fn new(trust: Trust) -> Self {
        let first = Generation { number: 0, client: trust.sdk_client() };
        Self { current: Arc::new(RwLock::new(first)), trust }
    }

    fn current(&self) -> Generation {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives up the connections of a generation, unless that was done.
    fn renew(&self, number: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.number == number {
            tracing::warn!("S3 says nothing: its connections are given up");
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

#[derive(Debug)]
struct Connector {
    connector: SharedHttpConnector,
    pool: Pool,
    number: u64,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let waiting = Waiting { pool: self.pool.clone(), number: self.number, since: Instant::now(), answered: false };
        let expected = Expected::of(&request);
        let answer = self.connector.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            waiting.done(answer.is_ok());
            expected.read(answer?).await
        })
    }
}

/// A call that has no answer yet; who gives it up drops this.
struct Waiting {
    pool: Pool,
    number: u64,
    since: Instant,
    answered: bool,
}

impl Waiting {
    fn done(mut self, answered: bool) {
        self.answered = answered;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered && self.since.elapsed() >= SILENT {
            self.pool.renew(self.number);
        }
    }
}
