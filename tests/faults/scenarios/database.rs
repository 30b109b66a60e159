//! F2, F3: one mongod that loses answers, stops, or is unreachable, under load.

use std::time::Duration;

use valet::dev::mongod::{Mongod, MongodOptions};

use super::{
    super::{
        cluster::{Options, Server},
        program::Settings,
        proxy::{Fault, Proxy, Which},
        replica_set::free_port,
        servers::scratch_dir,
    },
    Scenario, client_count, fault_duration,
};

/// Returns resident memory in MiB and the number of tasks of a server process.
async fn footprint(server: &Server, admin: &str) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches("kB").trim().parse().unwrap();
    let metrics = reqwest::get(format!("http://{admin}/metrics")).await.unwrap().text().await.unwrap();
    let tasks = metrics.lines().find_map(|line| line.strip_prefix("valet_tokio_alive_tasks ")).unwrap();
    (resident / 1024, tasks.parse().unwrap())
}

/// Write commands in OP_MSG: the first element of a document, by type and name.
const WRITES: [&[u8]; 4] = [b"\x02insert\0", b"\x02update\0", b"\x02findAndModify\0", b"\x10commitTransaction\0"];

#[tokio::test(flavor = "multi_thread")]
async fn f2_f3_unresponsive_database() {
    let mongod = Mongod::start(MongodOptions::new(scratch_dir().join(uuid::Uuid::new_v4().to_string()))).await.unwrap();
    let upstream = mongod.uri();
    let upstream = upstream.strip_prefix("mongodb://").unwrap().split('/').next().unwrap().to_owned();
    let proxy = Proxy::start(upstream.parse().unwrap()).await;
    let uri = format!("mongodb://{}/?directConnection=true", proxy.address());
    let admins: Vec<_> = (0..2).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let of_server = admins.clone();
    let change = move |number: usize, settings: Settings| {
        let settings = settings.with("MONGODB_URI", &uri);
        of_server.get(number).map_or(settings.clone(), |admin| settings.with("ADMIN_BIND", admin))
    };
    let options = Options { servers: 2, mongodb: Some(mongod.uri()), change: Box::new(change), ..Options::default() };
    let mut scenario = Scenario::start(options, client_count()).await;

    // F2: the write is executed, but its answer is lost.
    proxy.set(Fault::CutBeforeAnswer(Which::holding(&WRITES).at_most(40)));
    scenario.run_during("F2", fault_duration(2, 20)).await;
    proxy.set(Fault::CutAfterRequest(Which::holding(&WRITES).at_most(40)));
    scenario.run_during("F2", fault_duration(2, 20)).await;
    proxy.heal();
    assert!(proxy.counts().cut() > 10, "{:?}", proxy.counts());
    scenario.assert_recovered("F2").await;

    // F3, in two ways: the connections stay open and no bytes arrive.
    for way in ["a black hole", "SIGSTOP"] {
        let what = format!("F3, {way}");
        let signal = |name: &str| {
            let kill = std::process::Command::new("kill").args([name, &mongod.pid().to_string()]).status();
            assert!(kill.unwrap().success());
        };
        let half = fault_duration(6, 30);
        if way == "SIGSTOP" {
            signal("-STOP")
        } else {
            proxy.set(Fault::BlackHole)
        }
        scenario.run_until_refused(&what, half).await;
        let early = footprint(&scenario.cluster.servers[0], &admins[0]).await;
        scenario.run_until_refused(&what, half).await;
        let late = footprint(&scenario.cluster.servers[0], &admins[0]).await;
        println!("{what}: {early:?} MiB and tasks, later {late:?}");
        assert!(late.0 < early.0 + early.0 / 4 + 64 && late.1 < early.1 + early.1 / 4 + 100, "{what}: {early:?}, {late:?}");
        if way == "SIGSTOP" {
            signal("-CONT")
        } else {
            proxy.heal()
        }
        scenario.assert_recovered(&what).await;
    }

    for (what, fault, out) in [
        ("F3, reset", Fault::Reset, true),
        ("F3, refused", Fault::Refuse, true),
        ("F8, a slow database", Fault::Latency(Duration::from_millis(30)), false),
    ] {
        proxy.set(fault);
        if out {
            scenario.run_until_refused(what, fault_duration(2, 20)).await
        } else {
            scenario.run_during(what, fault_duration(2, 20)).await;
        }
        proxy.heal();
        scenario.recover_in_long_form(what).await;
    }
    scenario.assert_recovered("connections to the database").await;
    scenario.end().await;
    mongod.stop().await.unwrap();
}
