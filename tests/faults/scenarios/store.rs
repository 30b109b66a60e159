//! F7 to F12: a store that rejects calls, is slow, does not show new objects, breaks connections and loses answers, under load.

use std::time::Duration;

use super::{
    super::{
        cluster::Options,
        program::Settings,
        proxy::{Fault, Proxy},
        s3_faults::{Misbehavior, Operation, Rule, S3Faults},
    },
    Scenario, client_count, fault_duration,
};
use Operation::{DeleteObject, GetObject, HeadObject, PutObject};

#[tokio::test(flavor = "multi_thread")]
async fn f7_to_f12_faults_of_the_store_violate_no_invariant() {
    // Servers reach the store through `proxy` and `server_faults`, clients through `client_faults`.
    let server_faults = S3Faults::of_this_run().await;
    let proxy = Proxy::start(server_faults.address()).await;
    let client_faults = S3Faults::of_this_run().await;
    let endpoint = format!("http://{}", proxy.address());
    let change = move |_, settings: Settings| settings.with("S3_ENDPOINT", &endpoint);
    let options =
        Options { servers: 2, sweepers: 1, s3: Some(client_faults.endpoint()), change: Box::new(change), ..Options::default() };
    let mut scenario = Scenario::start(options, client_count()).await;

    let slow_down = |share| Rule::all(Misbehavior::error(503, "SlowDown")).share(share);
    // In an outage, calls of the probe must be answered 503 or 504.
    for (case, rule, is_outage) in [
        ("F7, half", slow_down(50), false),
        ("F7, all", slow_down(100), true),
        ("F8, 100 ms", Rule::all(Misbehavior::Delays(Duration::from_millis(100))), false),
        ("F8, 30 s", Rule::all(Misbehavior::Delays(Duration::from_secs(30))), true),
        ("F8, the body trickles", Rule::new(&[GetObject], Misbehavior::SlowsBody(20)), false),
        ("F8, the body breaks off", Rule::new(&[GetObject], Misbehavior::CutsBody(30)), true),
        ("F9", Rule::new(&[HeadObject], Misbehavior::error(404, "NoSuchKey")).share(50), false),
        ("F10, a wrong clock", Rule::all(Misbehavior::error(403, "RequestTimeTooSkewed")), true),
        ("F10, no credentials", Rule::all(Misbehavior::error(403, "InvalidAccessKeyId")), true),
        ("F10, no bucket", Rule::all(Misbehavior::error(404, "NoSuchBucket")).share(70), false),
        ("F11", Rule::new(&[DeleteObject], Misbehavior::LosesAnswer).share(70), false),
        ("any answer is lost", Rule::all(Misbehavior::LosesAnswer).share(50), false),
    ] {
        server_faults.add(rule);
        if is_outage {
            scenario.run_until_unavailable(case, fault_duration(2, 30)).await
        } else {
            scenario.run_during(case, fault_duration(2, 30)).await;
        }
        server_faults.heal();
        scenario.recover_in_long_form(case).await;
    }
    scenario.assert_recovered("the store's answers").await;
    for (case, fault, is_outage) in [
        ("F8, 1 KiB/s", Fault::Bandwidth(1024), false),
        ("F8, reset", Fault::Reset, true),
        ("F8, a black hole", Fault::BlackHole, true),
        ("F8, truncated", Fault::Truncate(100), true),
    ] {
        proxy.set(fault);
        if is_outage {
            scenario.run_until_unavailable(case, fault_duration(2, 30)).await
        } else {
            scenario.run_during(case, fault_duration(2, 30)).await;
        }
        proxy.heal();
        scenario.recover_in_long_form(case).await;
    }
    scenario.assert_recovered("connections to the store").await;
    client_faults.add(Rule::new(&[PutObject], Misbehavior::LosesAnswer).share(60));
    scenario.run_during("F12", fault_duration(4, 30)).await;
    client_faults.heal();
    scenario.assert_recovered("F12").await;
    scenario.end().await;
}
