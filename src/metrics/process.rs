//! The process as the system sees it, under the names that every Prometheus client uses
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). On Linux; elsewhere there is nothing.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Ticks of the clock in which the kernel counts a process's time: the same on every platform of ours.
const TICKS: f64 = 100.0;

/// Reads the system at each scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let mut add = |name: &str, help: &str, unit: Option<&Unit>, metric: &dyn Encoded| metric.to(&mut to, name, help, unit);
        if let Some(Stat { cpu, started, threads }) = Stat::read() {
            add("process_cpu", "Time on processors", Some(&Unit::Seconds), &ConstCounter::new(cpu))?;
            add("process_start_time", "Unix time of the start", Some(&Unit::Seconds), &ConstGauge::new(started))?;
            add("process_threads", "Threads of the system", None, &ConstGauge::new(threads))?;
        }
        if let Some(bytes) = resident_bytes() {
            add("process_resident_memory", "Memory in use", Some(&Unit::Bytes), &ConstGauge::new(bytes))?;
        }
        // One of them reads the folder.
        if let Ok(open) = fs::read_dir("/proc/self/fd").map(|open| open.count().saturating_sub(1)) {
            add("process_open_fds", "Open files and connections", None, &ConstGauge::new(integer(open as u64)))?;
        }
        if let Some(most) = most_files() {
            add("process_max_fds", "The most that may be open", None, &ConstGauge::new(most))?;
        }
        Ok(())
    }
}

/// A metric that is made for one scrape.
trait Encoded {
    fn to(&self, to: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>) -> fmt::Result;
}

impl<M: EncodeMetric> Encoded for M {
    fn to(&self, to: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>) -> fmt::Result {
        self.encode(to.encode_descriptor(name, help, unit, self.metric_type())?)
    }
}

/// Values of `/proc/self/stat` (proc(5)).
struct Stat {
    cpu: f64,
    started: f64,
    threads: i64,
}

impl Stat {
    fn read() -> Option<Self> {
        let (stat, system) = (fs::read_to_string("/proc/self/stat").ok()?, fs::read_to_string("/proc/stat").ok()?);
        let booted: f64 = line(&system, "btime")?.trim().parse().ok()?;
        // The second field is the program's name, in brackets and with any byte in it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu: (field(14)? + field(15)?) / TICKS,
            started: booted + field(22)? / TICKS,
            threads: fields.get(20 - 3)?.parse().ok()?,
        })
    }
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes: u64 = line(&status, "VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(integer(kilobytes * 1024))
}

fn most_files() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    line(&limits, "Max open files")?.split_whitespace().next()?.parse().ok()
}

/// Returns the rest of the line that begins so.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
