//! F2, F3: one mongod whose answers are lost, that stops, or that is not reached.

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
    Scenario, crowd, lasting,
};

/// What a process takes: resident memory in MiB, and its tasks.
async fn footprint(server: &Server, admin: &str) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches("kB").trim().parse().unwrap();
    let metrics = reqwest::get(format!("http://{admin}/metrics")).await.unwrap().text().await.unwrap();
    let tasks = metrics.lines().find_map(|line| line.strip_prefix("valet_tokio_alive_tasks ")).unwrap();
    (resident / 1024, tasks.parse().unwrap())
}

/// The commands that write, as OP_MSG has them: the first element of a document, by its type and name.
const WRITES: [&[u8]; 4] = [b"\x02insert\0", b"\x02update\0", b"\x02findAndModify\0", b"\x10commitTransaction\0"];

#[tokio::test(flavor = "multi_thread")]
async fn f2_f3_a_database_that_does_not_answer() {
    let mongod = Mongod::start(MongodOptions::new(scratch_dir().join(uuid::Uuid::new_v4().to_string()))).await.unwrap();
    let upstream = mongod.uri();
    let upstream = upstream.strip_prefix("mongodb://").unwrap().split('/').next().unwrap().to_owned();
    let proxy = Proxy::start(upstream.parse().unwrap()).await;
    let uri = format!("mongodb://{}/?directConnection=true", proxy.address());
    let admins: Vec<_> = (0..2).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let of_server = admins.clone();
    let change = move |number: usize, settings: Settings| {
        let settings = settings.but("MONGODB_URI", &uri);
        of_server.get(number).map_or(settings.clone(), |admin| settings.but("ADMIN_BIND", admin))
    };
    let options = Options { servers: 2, mongodb: Some(mongod.uri()), change: Box::new(change), ..Options::default() };
    let mut scenario = Scenario::start(options, crowd()).await;

    // F2: what was asked is done, and nobody is told.
    proxy.set(Fault::CutBeforeAnswer(Which::holding(&WRITES).at_most(40)));
    scenario.during("F2", lasting(2, 20)).await;
    proxy.set(Fault::CutAfterRequest(Which::holding(&WRITES).at_most(40)));
    scenario.during("F2", lasting(2, 20)).await;
    proxy.heal();
    assert!(proxy.counts().cut() > 10, "{:?}", proxy.counts());
    scenario.recovered("F2").await;

    // F3, twice: the connections are there and nothing comes.
    for way in ["a black hole", "SIGSTOP"] {
        let what = format!("F3, {way}");
        let signal = |name: &str| {
            let kill = std::process::Command::new("kill").args([name, &mongod.pid().to_string()]).status();
            assert!(kill.unwrap().success());
        };
        let half = lasting(6, 30);
        if way == "SIGSTOP" {
            signal("-STOP")
        } else {
            proxy.set(Fault::BlackHole)
        }
        scenario.outage(&what, half).await;
        let early = footprint(&scenario.cluster.servers[0], &admins[0]).await;
        scenario.outage(&what, half).await;
        let late = footprint(&scenario.cluster.servers[0], &admins[0]).await;
        println!("{what}: {early:?} MiB and tasks, later {late:?}");
        assert!(late.0 < early.0 + early.0 / 4 + 64 && late.1 < early.1 + early.1 / 4 + 100, "{what}: {early:?}, {late:?}");
        if way == "SIGSTOP" {
            signal("-CONT")
        } else {
            proxy.heal()
        }
        scenario.recovered(&what).await;
    }

    for (what, fault, out) in [
        ("F3, reset", Fault::Reset, true),
        ("F3, refused", Fault::Refuse, true),
        ("F8, a slow database", Fault::Latency(Duration::from_millis(30)), false),
    ] {
        proxy.set(fault);
        if out {
            scenario.outage(what, lasting(2, 20)).await
        } else {
            scenario.during(what, lasting(2, 20)).await;
        }
        proxy.heal();
        scenario.breathes(what).await;
    }
    scenario.recovered("the way to the database").await;
    scenario.end().await;
    mongod.stop().await.unwrap();
}
