//! The checker: reads MongoDB (majority), lists and re-hashes the bucket, reads journal and logs, and verifies the invariants I1
//! to I20. The only answers of the program that it relies on are galleries, because an invariant is about them.
//!
//! `evidence` gathers, `timeline` orders the journal by image, account and session, `health_cycle` uses the cluster after a check.
//! Each other module checks the invariants in its header. The invariants hold when no work is in progress: after the load has
//! stopped and the cluster has converged.

mod accounts;
mod answers;
mod bucket;
mod durability;
mod events;
pub mod evidence;
pub mod health_cycle;
mod records;
mod secrets;
pub mod timeline;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

pub use self::events::is_success;
use self::{evidence::Evidence, timeline::Timelines};
use super::{cluster::Cluster, journal::Journal};

/// A violation of an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Number of the invariant, from 1 to 20.
    pub invariant: u8,
    /// Description for the report.
    pub finding: String,
}

/// Result of a check.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub violations: Vec<Violation>,
    /// Number of calls in the journal.
    pub ops: usize,
    pub images: usize,
    pub ready: usize,
    pub objects: usize,
    pub users: usize,
}

impl Report {
    /// Adds a violation.
    fn add(&mut self, invariant: u8, finding: impl Into<String>) {
        self.violations.push(Violation { invariant, finding: finding.into() });
    }

    /// Adds a violation unless `holds`.
    fn require(&mut self, holds: bool, invariant: u8, finding: impl FnOnce() -> String) {
        if !holds {
            self.add(invariant, finding());
        }
    }

    /// Returns the numbers of the violated invariants.
    pub fn violated(&self) -> BTreeSet<u8> {
        self.violations.iter().map(|violation| violation.invariant).collect()
    }

    /// Asserts that there are no violations.
    ///
    /// # Panics
    ///
    /// If an invariant is violated; the message is the report.
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ops, images, ready, objects, users, .. } = self;
        let found = self.violations.len();
        writeln!(f, "{found} violations in {ops} calls, {images} images ({ready} ready), {objects} objects, {users} users")?;
        // A broken invariant can have thousands of violations.
        self.violations.iter().take(60).try_for_each(|violation| writeln!(f, "I{}: {}", violation.invariant, violation.finding))
    }
}

/// Observations from earlier samples of the same cluster.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// State of each image in the latest sample that contained it.
    states: BTreeMap<String, String>,
    /// Transitions between samples: image, old state, new state.
    transitions: Vec<(String, String, String)>,
    /// Images that were ready in some sample.
    ready: BTreeSet<String>,
    /// Digests of ready images' objects, by key.
    digests: BTreeMap<String, String>,
    /// Users that were above their quota in some sample.
    over_quota: Vec<String>,
}

impl History {
    /// Records the state of an image, and the transition from its state in the sample before.
    fn observe(&mut self, id: String, state: String) {
        if state == "ready" {
            self.ready.insert(id.clone());
        }
        if let Some(before) = self.states.insert(id.clone(), state.clone())
            && before != state
        {
            self.transitions.push((id, before, state));
        }
    }
}

/// A checker that keeps its observations between samples.
#[derive(Default)]
pub struct Checker {
    history: History,
}

impl Checker {
    /// Takes a quick sample while work is in progress: records states, and users above their quota.
    pub async fn sample(&mut self, cluster: &Cluster) {
        let (states, over_quota) = evidence::sample_states(cluster).await;
        states.into_iter().for_each(|(id, state)| self.history.observe(id, state));
        self.history.over_quota.extend(over_quota);
    }

    /// Checks a quiescent cluster, and records its states and digests. Objects younger than `grace` may lack an owner.
    pub async fn check(&mut self, cluster: &Cluster, journal: &Journal, grace: Duration) -> Report {
        let evidence = Evidence::collect(cluster, journal).await;
        let report = self.check_evidence(&evidence, grace);
        self.remember(&evidence);
        report
    }

    /// Checks every invariant in the evidence.
    pub fn check_evidence(&self, evidence: &Evidence, grace: Duration) -> Report {
        let timelines = Timelines::of(&evidence.record);
        let mut report = Report {
            violations: Vec::new(),
            ops: evidence.record.ops.len(),
            images: evidence.images.len(),
            ready: evidence.ready().count(),
            objects: evidence.objects.len(),
            users: evidence.users.len(),
        };
        durability::check(evidence, &timelines, &self.history, grace, &mut report);
        records::check(evidence, &timelines, &self.history, grace, &mut report);
        bucket::check(evidence, &timelines, grace, &mut report);
        accounts::check(evidence, &self.history, &mut report);
        secrets::check(evidence, &timelines, &mut report);
        answers::check(evidence, &mut report);
        events::check(evidence, &timelines, &mut report);
        report
    }

    /// Records states, and the digests of ready images.
    fn remember(&mut self, evidence: &Evidence) {
        evidence.images.iter().for_each(|image| self.history.observe(image.id().to_owned(), image.state().to_owned()));
        for image in evidence.ready() {
            if let Some(object) = evidence.object(image.key()) {
                self.history.digests.entry(object.key.clone()).or_insert_with(|| object.sha256.clone());
            }
        }
    }
}

/// Checks a quiescent cluster once, without earlier samples.
pub async fn check(cluster: &Cluster, journal: &Journal, grace: Duration) -> Report {
    Checker::default().check(cluster, journal, grace).await
}
