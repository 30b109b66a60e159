//! Metrics of the process, read from `/proc` on Linux, under the names that every Prometheus client uses
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). On other systems these metrics are absent.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Clock ticks per second in which the kernel counts a process's time; the same on every supported platform.
const TICKS_PER_SECOND: f64 = 100.0;

/// A collector that reads the system at each scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let mut add =
            |name: &str, help: &str, unit: Option<&Unit>, metric: &dyn DynMetric| metric.encode_into(&mut to, name, help, unit);
        if let Some(Stat { cpu, started, threads }) = Stat::read() {
            add("process_cpu", "CPU time", Some(&Unit::Seconds), &ConstCounter::new(cpu))?;
            add("process_start_time", "Unix time at which the process started", Some(&Unit::Seconds), &ConstGauge::new(started))?;
            add("process_threads", "Operating system threads", None, &ConstGauge::new(threads))?;
        }
        if let Some(bytes) = resident_bytes() {
            add("process_resident_memory", "Resident memory", Some(&Unit::Bytes), &ConstGauge::new(bytes))?;
        }
        // One of the descriptors is that of the directory that is being read.
        if let Ok(open) = fs::read_dir("/proc/self/fd").map(|open| open.count().saturating_sub(1)) {
            add("process_open_fds", "Open file descriptors", None, &ConstGauge::new(to_i64(open as u64)))?;
        }
        if let Some(max) = max_open_files() {
            add("process_max_fds", "Maximum number of open file descriptors", None, &ConstGauge::new(max))?;
        }
        Ok(())
    }
}

/// A metric of one scrape, which encodes its descriptor and its value.
trait DynMetric {
    fn encode_into(&self, to: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>) -> fmt::Result;
}

impl<M: EncodeMetric> DynMetric for M {
    fn encode_into(&self, to: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>) -> fmt::Result {
        self.encode(to.encode_descriptor(name, help, unit, self.metric_type())?)
    }
}

/// Values of `/proc/self/stat` (proc(5)).
struct Stat {
    /// CPU time in seconds, in user and kernel mode.
    cpu: f64,
    /// Unix time in seconds.
    started: f64,
    threads: i64,
}

impl Stat {
    /// Reads the values; `None` without `/proc`.
    fn read() -> Option<Self> {
        let (stat, system) = (fs::read_to_string("/proc/self/stat").ok()?, fs::read_to_string("/proc/stat").ok()?);
        let booted: f64 = rest_of_line(&system, "btime")?.trim().parse().ok()?;
        // The second field is the program's name, in brackets; it may contain any byte.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // proc(5) numbers the fields from 1; the first one after the name is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            started: booted + field(22)? / TICKS_PER_SECOND,
            threads: fields.get(20 - 3)?.parse().ok()?,
        })
    }
}

/// Returns the resident memory in bytes.
fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes: u64 = rest_of_line(&status, "VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(to_i64(kilobytes * 1024))
}

/// Returns the soft limit of open files; `None` if it is unlimited.
fn max_open_files() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    rest_of_line(&limits, "Max open files")?.split_whitespace().next()?.parse().ok()
}

/// Returns the rest of the line that begins with `name`.
fn rest_of_line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
