//! The ratios of a run: their bars, a baseline of an earlier run, and the table at the end.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, macros::format_description};

/// Path of the baseline.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/baseline.json");
/// Change for the worse, as a share of the baseline, at which the report warns.
const TOLERANCE: f64 = 0.1;

/// Wanted value of a ratio, and the direction in which a ratio is better.
#[derive(Debug, Clone, Copy)]
pub enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

/// Ratios of an earlier run.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline {
    machine: String,
    date: String,
    ratios: BTreeMap<String, f64>,
}

/// Collects the ratios of a run.
#[derive(Debug, Default)]
pub struct Report {
    ratios: Vec<(&'static str, f64, Bar)>,
}

impl Report {
    /// Prints a ratio, and adds it to the table.
    pub fn ratio(&mut self, name: &'static str, value: f64, bar: Bar) {
        println!("  {name}: {value:.2}");
        self.ratios.push((name, value, bar));
    }

    /// Prints the table. With `BENCH_BASELINE=write`, the run becomes the baseline of later ones.
    pub fn end(self) {
        let before: Baseline = std::fs::read(BASELINE).map_or_else(
            |_| Baseline::default(),
            |bytes| serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{BASELINE}: {error}")),
        );
        let now = Baseline {
            machine: machine(),
            date: OffsetDateTime::now_utc().format(format_description!("[year]-[month]-[day]")).unwrap(),
            ratios: self.ratios.iter().map(|(name, value, _)| ((*name).to_owned(), *value)).collect(),
        };
        println!("\n{}, {}; baseline: {}, {}", now.machine, now.date, before.machine, before.date);
        println!("| ratio | now | bar | baseline |\n|---|---|---|---|");
        let mut worse = Vec::new();
        for (name, value, bar) in &self.ratios {
            let (bound, is_met) = match bar {
                Bar::AtLeast(bar) => (format!("≥ {bar}"), value >= bar),
                Bar::AtMost(bar) => (format!("≤ {bar}"), value <= bar),
            };
            let known = before.ratios.get(*name);
            println!(
                "| {name} | {value:.2}{} | {bound} | {} |",
                if is_met { "" } else { " (missed)" },
                known.map_or_else(|| "none".to_owned(), |known| format!("{known:.2}"))
            );
            let change = known.map_or(0.0, |known| match bar {
                Bar::AtLeast(_) => 1.0 - value / known,
                Bar::AtMost(_) => value / known - 1.0,
            });
            if change > TOLERANCE {
                worse.push(format!("{name} is {:.0} % worse than the baseline", change * 100.0));
            }
        }
        for line in worse {
            println!("warning: {line}");
        }
        if std::env::var("BENCH_BASELINE").is_ok_and(|value| value == "write") {
            let text = serde_json::to_string_pretty(&now).unwrap();
            std::fs::write(Path::new(BASELINE), text + "\n").unwrap();
        }
    }
}

/// Returns the processor's model and the number of cores.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model.to_owned()));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{} ({cores} cores)", model.as_deref().unwrap_or(std::env::consts::ARCH))
}
