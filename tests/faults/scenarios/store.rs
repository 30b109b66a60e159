//! F7, F8, F10, F11, F12: a store that refuses, is slow, breaks off and loses its answers.

use std::time::Duration;

use super::{
    super::{
        cluster::Options,
        program::Settings,
        proxy::{Fault, Proxy},
        s3_faults::{Misbehavior, Operation, Rule, S3Faults},
    },
    Scenario, crowd, lasting,
};
use Operation::{DeleteObject, GetObject, HeadObject, PutObject};

#[tokio::test(flavor = "multi_thread")]
async fn f7_f8_f10_f11_f12_a_store_that_goes_wrong() {
    // The servers' way is through both; the clients' through one of their own.
    let faults = S3Faults::of_this_run().await;
    let proxy = Proxy::start(faults.address()).await;
    let clients = S3Faults::of_this_run().await;
    let endpoint = format!("http://{}", proxy.address());
    let change = move |_, settings: Settings| settings.but("S3_ENDPOINT", &endpoint);
    let options =
        Options { servers: 2, sweepers: 1, s3: Some(clients.endpoint()), change: Box::new(change), ..Options::default() };
    let mut scenario = Scenario::start(options, crowd()).await;

    let slow_down = |share| Rule::all(Misbehavior::error(503, "SlowDown")).share(share);
    for (what, rule, out) in [
        ("F7, half", slow_down(50), false),
        ("F7, all", slow_down(100), true),
        ("F8, 100 ms", Rule::all(Misbehavior::Waits(Duration::from_millis(100))), false),
        ("F8, 30 s", Rule::all(Misbehavior::Waits(Duration::from_secs(30))), true),
        ("F8, the body trickles", Rule::new(&[GetObject], Misbehavior::Trickles(20)), false),
        ("F8, the body breaks off", Rule::new(&[GetObject], Misbehavior::BreaksOff(30)), true),
        ("F9", Rule::new(&[HeadObject], Misbehavior::error(404, "NoSuchKey")).share(50), false),
        ("F10, a wrong clock", Rule::all(Misbehavior::error(403, "RequestTimeTooSkewed")), true),
        ("F10, no credentials", Rule::all(Misbehavior::error(403, "InvalidAccessKeyId")), true),
        ("F10, no bucket", Rule::all(Misbehavior::error(404, "NoSuchBucket")).share(70), false),
        ("F11", Rule::new(&[DeleteObject], Misbehavior::LosesAnswer).share(70), false),
        ("any answer is lost", Rule::all(Misbehavior::LosesAnswer).share(50), false),
    ] {
        faults.add(rule);
        if out {
            scenario.outage(what, lasting(2, 30)).await
        } else {
            scenario.during(what, lasting(2, 30)).await;
        }
        faults.heal();
        scenario.breathes(what).await;
    }
    scenario.recovered("the store's answers").await;
    for (what, fault, out) in [
        ("F8, 1 KiB/s", Fault::Bandwidth(1024), false),
        ("F8, reset", Fault::Reset, true),
        ("F8, a black hole", Fault::BlackHole, true),
        ("F8, truncated", Fault::Truncate(100), true),
    ] {
        proxy.set(fault);
        if out {
            scenario.outage(what, lasting(2, 30)).await
        } else {
            scenario.during(what, lasting(2, 30)).await;
        }
        proxy.heal();
        scenario.breathes(what).await;
    }
    scenario.recovered("the way to the store").await;
    clients.add(Rule::new(&[PutObject], Misbehavior::LosesAnswer).share(60));
    scenario.during("F12", lasting(4, 30)).await;
    clients.heal();
    scenario.recovered("F12").await;
    scenario.end().await;
}
