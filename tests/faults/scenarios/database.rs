//! F2, F3 and a slow database: one mongod that loses answers, hangs, is unreachable or slow, under load.

use std::time::Duration;

use valet::dev::mongod::{Mongod, MongodOptions};

use super::{
    super::{
        cluster::{Options, Server, free_port},
        program::Settings,
        proxy::{Fault, Proxy, RequestFilter},
        servers::scratch_dir,
    },
    Effect, Scenario, client_count, fault_duration,
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

/// A way in which the database hangs: its connections stay open, and no bytes arrive.
#[derive(Debug, Clone, Copy)]
enum Hang {
    /// The proxy discards all bytes.
    BlackHole,
    /// The process of mongod is stopped by SIGSTOP.
    StoppedProcess,
}

/// A fault of the connections to the database.
struct ConnectionFault {
    name: &'static str,
    fault: Fault,
    effect: Effect,
}

/// A cluster under load whose servers reach their only mongod through a proxy.
struct ProxiedDatabase {
    mongod: Mongod,
    proxy: Proxy,
    /// Admin addresses of the servers.
    admins: Vec<String>,
    scenario: Scenario,
}

impl ProxiedDatabase {
    /// Starts mongod, the proxy, and a cluster under load.
    async fn start() -> Self {
        let mongod = Mongod::start(MongodOptions::new(scratch_dir().join(uuid::Uuid::new_v4().to_string()))).await.unwrap();
        let upstream = mongod.uri();
        let upstream = upstream.strip_prefix("mongodb://").unwrap().split('/').next().unwrap().to_owned();
        let proxy = Proxy::start(upstream.parse().unwrap()).await;
        let uri = format!("mongodb://{}/?directConnection=true", proxy.address());
        let admins: Vec<_> = (0..2).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let admins_by_server = admins.clone();
        let change = move |number: usize, settings: Settings| {
            let settings = settings.with("MONGODB_URI", &uri);
            admins_by_server.get(number).map_or(settings.clone(), |admin| settings.with("ADMIN_BIND", admin))
        };
        let options = Options { servers: 2, mongodb: Some(mongod.uri()), change: Box::new(change), ..Options::default() };
        let scenario = Scenario::start(options, client_count()).await;
        Self { mongod, proxy, admins, scenario }
    }

    /// F2: the database executes writes, but the answers are lost, for at most 40 writes in each of two ways.
    async fn lose_answers(&mut self) {
        self.proxy.set(Fault::CutBeforeAnswer(RequestFilter::containing(&WRITES).at_most(40)));
        self.scenario.run_during("F2", fault_duration(2, 20)).await;
        self.proxy.set(Fault::CutAfterRequest(RequestFilter::containing(&WRITES).at_most(40)));
        self.scenario.run_during("F2", fault_duration(2, 20)).await;
        self.proxy.heal();
        assert!(self.proxy.counts().cut() > 10, "{:?}", self.proxy.counts());
        self.scenario.assert_recovered("F2").await;
    }

    /// Sends a signal to mongod.
    fn signal(&self, name: &str) {
        let kill = std::process::Command::new("kill").args([name, &self.mongod.pid().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// F3: the database hangs. Memory and tasks of a server may not grow meanwhile.
    async fn hang(&mut self, hang: Hang) {
        let case = format!("F3, {hang:?}");
        match hang {
            Hang::BlackHole => self.proxy.set(Fault::BlackHole),
            Hang::StoppedProcess => self.signal("-STOP"),
        }
        let half = fault_duration(6, 30);
        self.scenario.run_until_unavailable(&case, half).await;
        let early = footprint(&self.scenario.cluster.servers[0], &self.admins[0]).await;
        self.scenario.run_until_unavailable(&case, half).await;
        let late = footprint(&self.scenario.cluster.servers[0], &self.admins[0]).await;
        println!("{case}: {early:?} MiB and tasks, later {late:?}");
        // The load varies: up to a quarter and 64 MiB, or a quarter and 100 tasks, do not count as growth.
        assert!(late.0 < early.0 + early.0 / 4 + 64 && late.1 < early.1 + early.1 / 4 + 100, "{case}: {early:?}, {late:?}");
        match hang {
            Hang::BlackHole => self.proxy.heal(),
            Hang::StoppedProcess => self.signal("-CONT"),
        }
        self.scenario.assert_recovered(&case).await;
    }

    /// Injects a fault of the connections for a time, and removes it.
    async fn disturb_connections(&mut self, ConnectionFault { name, fault, effect }: ConnectionFault) {
        self.proxy.set(fault);
        self.scenario.run_until_effect(name, effect, fault_duration(2, 20)).await;
        self.proxy.heal();
        self.scenario.recover_in_long_form(name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_f3_faults_of_the_database_violate_no_invariant() {
    let mut database = ProxiedDatabase::start().await;
    database.lose_answers().await;
    for hang in [Hang::BlackHole, Hang::StoppedProcess] {
        database.hang(hang).await;
    }
    for fault in [
        ConnectionFault { name: "F3, reset", fault: Fault::Reset, effect: Effect::Outage },
        ConnectionFault { name: "F3, refused", fault: Fault::Refuse, effect: Effect::Outage },
        ConnectionFault { name: "a slow database", fault: Fault::Latency(Duration::from_millis(30)), effect: Effect::Errors },
    ] {
        database.disturb_connections(fault).await;
    }
    database.scenario.assert_recovered("connections to the database").await;
    database.scenario.end().await;
    database.mongod.stop().await.unwrap();
}
