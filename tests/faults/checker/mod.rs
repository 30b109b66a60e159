//! The checker: reads MongoDB (majority), lists and re-hashes the bucket, reads journal and logs, and verifies the
//! invariants I1 to I18. It asks the program nothing but what an invariant is about: the gallery.
//!
//! `evidence` gathers, everything else judges what was gathered. What is judged is what stands when nothing is under way:
//! after the load has stopped and the cluster has come to rest.

mod accounts;
mod answers;
mod bucket;
mod durability;
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

use self::{evidence::Evidence, timeline::Timelines};
use super::{cluster::Cluster, journal::Journal};

/// An invariant that does not hold, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// 1 to 18.
    pub invariant: u8,
    pub what: String,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub violations: Vec<Violation>,
    /// How much was looked at.
    pub ops: usize,
    pub images: usize,
    pub ready: usize,
    pub objects: usize,
    pub users: usize,
}

impl Report {
    fn add(&mut self, invariant: u8, what: impl Into<String>) {
        self.violations.push(Violation { invariant, what: what.into() });
    }

    /// Unless it holds.
    fn hold(&mut self, holds: bool, invariant: u8, what: impl FnOnce() -> String) {
        if !holds {
            self.add(invariant, what());
        }
    }

    /// The numbers of the invariants that do not hold.
    pub fn violated(&self) -> BTreeSet<u8> {
        self.violations.iter().map(|violation| violation.invariant).collect()
    }

    /// # Panics
    /// With all that does not hold.
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ops, images, ready, objects, users, .. } = self;
        let found = self.violations.len();
        writeln!(f, "{found} violations in {ops} calls, {images} images ({ready} ready), {objects} objects, {users} users")?;
        self.violations.iter().take(60).try_for_each(|violation| writeln!(f, "I{}: {}", violation.invariant, violation.what))
    }
}

/// What was seen in earlier looks at the same cluster.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The state of each image at the latest look that saw it.
    states: BTreeMap<String, String>,
    /// From look to look: which image, from what, to what.
    moves: Vec<(String, String, String)>,
    /// Images that were ready at some look.
    ready: BTreeSet<String>,
    /// Digests of ready images' objects, by key.
    digests: BTreeMap<String, String>,
    /// Users that had more than they may, at some look.
    over_quota: Vec<String>,
}

impl History {
    fn see(&mut self, id: String, state: String) {
        if state == "ready" {
            self.ready.insert(id.clone());
        }
        if let Some(before) = self.states.insert(id.clone(), state.clone())
            && before != state
        {
            self.moves.push((id, before, state));
        }
    }
}

/// A checker that remembers what it saw.
#[derive(Default)]
pub struct Checker {
    history: History,
}

impl Checker {
    /// A quick look while everything is under way: states for the history, and that nobody is over the quota.
    pub async fn sample(&mut self, cluster: &Cluster) {
        let (states, over_quota) = evidence::glance(cluster).await;
        states.into_iter().for_each(|(id, state)| self.history.see(id, state));
        self.history.over_quota.extend(over_quota);
    }

    /// Checks everything at rest. What is younger than `grace` may still be without an owner.
    pub async fn check(&mut self, cluster: &Cluster, journal: &Journal, grace: Duration) -> Report {
        let evidence = Evidence::gather(cluster, journal).await;
        let report = self.judge(&evidence, grace);
        self.remember(&evidence);
        report
    }

    /// What the evidence says of every invariant.
    pub fn judge(&self, evidence: &Evidence, grace: Duration) -> Report {
        let timelines = Timelines::of(&evidence.record);
        let mut report = Report {
            violations: Vec::new(),
            ops: evidence.record.ops.len(),
            images: evidence.images.len(),
            ready: evidence.ready().count(),
            objects: evidence.objects.len(),
            users: evidence.users.len(),
        };
        durability::judge(evidence, &timelines, &self.history, grace, &mut report);
        records::judge(evidence, &timelines, &self.history, grace, &mut report);
        bucket::judge(evidence, &timelines, grace, &mut report);
        accounts::judge(evidence, &self.history, &mut report);
        secrets::judge(evidence, &timelines, &mut report);
        answers::judge(evidence, &mut report);
        report
    }

    fn remember(&mut self, evidence: &Evidence) {
        evidence.images.iter().for_each(|image| self.history.see(image.id().to_owned(), image.state().to_owned()));
        for image in evidence.ready() {
            if let Some(object) = evidence.object(image.key()) {
                self.history.digests.entry(object.key.clone()).or_insert_with(|| object.sha256.clone());
            }
        }
    }
}

/// Checks a cluster that is at rest, once.
pub async fn check(cluster: &Cluster, journal: &Journal, grace: Duration) -> Report {
    Checker::default().check(cluster, journal, grace).await
}
