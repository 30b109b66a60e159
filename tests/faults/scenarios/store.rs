//! F7 to F12: a store that rejects calls, is slow, does not show new objects, breaks connections and loses answers, under load.

use std::time::Duration;

use super::{
    super::{
        cluster::Options,
        program::Settings,
        proxy::{Fault, Proxy},
        s3_faults::{Misbehavior, Operation, Rule, S3Faults},
    },
    Effect::{Errors, Outage},
    Scenario, client_count, fault_duration,
};
use Operation::{DeleteObject, GetObject, HeadObject, PutObject};

/// A cluster under load, whose servers reach the store through `proxy` and `server_faults`, and whose clients reach it through
/// `client_faults`.
struct StoreScenario {
    scenario: Scenario,
    server_faults: S3Faults,
    proxy: Proxy,
    client_faults: S3Faults,
}

impl StoreScenario {
    async fn start() -> Self {
        let server_faults = S3Faults::of_this_run().await;
        let proxy = Proxy::start(server_faults.address()).await;
        let client_faults = S3Faults::of_this_run().await;
        let endpoint = format!("http://{}", proxy.address());
        let change = move |_, settings: Settings| settings.with("S3_ENDPOINT", &endpoint);
        let options = Options {
            servers: 2,
            sweepers: 1,
            s3: Some(client_faults.endpoint()),
            change: Box::new(change),
            ..Options::default()
        };
        let scenario = Scenario::start(options, client_count()).await;
        Self { scenario, server_faults, proxy, client_faults }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f7_to_f11_wrong_answers_of_the_store_violate_no_invariant() {
    let mut store = StoreScenario::start().await;
    let slow_down = |share| Rule::all(Misbehavior::error(503, "SlowDown")).share(share);
    for (case, rule, effect) in [
        ("F7, half", slow_down(50), Errors),
        ("F7, all", slow_down(100), Outage),
        ("F8, 100 ms", Rule::all(Misbehavior::Delays(Duration::from_millis(100))), Errors),
        ("F8, 30 s", Rule::all(Misbehavior::Delays(Duration::from_secs(30))), Outage),
        ("F8, the body trickles", Rule::new(&[GetObject], Misbehavior::SlowsBody(20)), Errors),
        ("F8, the body breaks off", Rule::new(&[GetObject], Misbehavior::CutsBody(30)), Outage),
        ("F9", Rule::new(&[HeadObject], Misbehavior::error(404, "NoSuchKey")).share(50), Errors),
        ("F10, a wrong clock", Rule::all(Misbehavior::error(403, "RequestTimeTooSkewed")), Outage),
        ("F10, no credentials", Rule::all(Misbehavior::error(403, "InvalidAccessKeyId")), Outage),
        ("F10, no bucket", Rule::all(Misbehavior::error(404, "NoSuchBucket")).share(70), Errors),
        ("F11", Rule::new(&[DeleteObject], Misbehavior::LosesAnswer).share(70), Errors),
        ("any answer is lost", Rule::all(Misbehavior::LosesAnswer).share(50), Errors),
    ] {
        store.server_faults.add(rule);
        store.scenario.run_until_effect(case, effect, fault_duration(2, 30)).await;
        store.server_faults.heal();
        store.scenario.recover_in_long_form(case).await;
    }
    store.scenario.assert_recovered("the store's answers").await;
    store.scenario.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f8_f12_broken_connections_to_the_store_violate_no_invariant() {
    let mut store = StoreScenario::start().await;
    for (case, fault, effect) in [
        ("F8, 1 KiB/s", Fault::Bandwidth(1024), Errors),
        ("F8, reset", Fault::Reset, Outage),
        ("F8, a black hole", Fault::BlackHole, Outage),
        ("F8, truncated", Fault::Truncate(100), Outage),
    ] {
        store.proxy.set(fault);
        store.scenario.run_until_effect(case, effect, fault_duration(2, 30)).await;
        store.proxy.heal();
        store.scenario.recover_in_long_form(case).await;
    }
    store.scenario.assert_recovered("connections to the store").await;
    store.client_faults.add(Rule::new(&[PutObject], Misbehavior::LosesAnswer).share(60));
    store.scenario.run_during("F12", fault_duration(4, 30)).await;
    store.client_faults.heal();
    store.scenario.assert_recovered("F12").await;
    store.scenario.end().await;
}
