//! The ratios of a run: their bounds, the baseline in `benches/baseline.json`, the table at the end, and its warnings. The
//! benchmarks `signer` and `flat` use this file, too; its tests are in the test binary `benches`.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, macros::format_description};

/// Path of the baseline.
pub const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/baseline.json");
/// Change for the worse, as a share of the baseline, at which the report warns.
const TOLERANCE: f64 = 0.1;

/// Wanted value of a ratio, and the direction in which a ratio is better.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// More is better.
    AtLeast(f64),
    /// Less is better.
    AtMost(f64),
    /// Less is better, and there is no bound.
    Low,
}

impl Bound {
    /// Returns whether a value meets the bound. A value that is not a number does not.
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Low => value.is_finite(),
        }
    }

    /// Returns the bound as the table shows it.
    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {bound}"),
            Self::AtMost(bound) => format!("≤ {bound}"),
            Self::Low => "low".to_owned(),
        }
    }

    /// Returns the share of the baseline by which a value is worse; negative if it is better.
    fn loss(self, value: f64, baseline: f64) -> f64 {
        match self {
            Self::AtLeast(_) => 1.0 - value / baseline,
            Self::AtMost(_) | Self::Low => value / baseline - 1.0,
        }
    }
}

/// A ratio of an earlier run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    pub value: f64,
    /// Date of the run, `YYYY-MM-DD`.
    pub date: String,
    /// The processor's model and the number of cores.
    pub machine: String,
}

/// Ratios of earlier runs, by name. A run of a part of a benchmark replaces only its own ratios.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Baseline(pub BTreeMap<String, Measured>);

/// Collects the ratios of a run.
#[derive(Debug, Default)]
pub struct Report {
    ratios: Vec<(String, f64, Bound)>,
}

impl Report {
    /// Prints a ratio, and adds it to the table.
    pub fn ratio(&mut self, name: &str, value: f64, bound: Bound) {
        println!("  {name}: {value:.2}");
        self.ratios.push((name.to_owned(), value, bound));
    }

    /// Prints the table and the warnings. With `BENCH_BASELINE=write`, the ratios become the baseline of later runs.
    pub fn end(self) {
        let mut baseline = read_baseline();
        let date = OffsetDateTime::now_utc().format(format_description!("[year]-[month]-[day]")).unwrap();
        let machine = machine();
        println!("\n{machine}, {date}\n{}", self.table(&baseline));
        for warning in self.warnings(&baseline) {
            println!("warning: {warning}");
        }
        if std::env::var("BENCH_BASELINE").is_ok_and(|value| value == "write") {
            self.update(&mut baseline, &date, &machine);
            let text = serde_json::to_string_pretty(&baseline).unwrap();
            std::fs::write(Path::new(BASELINE), text + "\n").unwrap();
        }
    }

    /// Returns the ratios beside their bounds and the baseline, as a Markdown table.
    pub fn table(&self, baseline: &Baseline) -> String {
        let mut table = "| ratio | now | bound | baseline |\n|---|---|---|---|".to_owned();
        for (name, value, bound) in &self.ratios {
            let missed = if bound.is_met(*value) { "" } else { " (missed)" };
            let before = baseline.0.get(name);
            let before = before.map_or_else(|| "none".to_owned(), |it| format!("{:.2} ({}, {})", it.value, it.date, it.machine));
            let _ = write!(table, "\n| {name} | {value:.2}{missed} | {} | {before} |", bound.text());
        }
        table
    }

    /// Returns a warning for each ratio that is a tenth worse than its baseline, or that was not measured.
    pub fn warnings(&self, baseline: &Baseline) -> Vec<String> {
        let warning = |(name, value, bound): &(String, f64, Bound)| {
            if !value.is_finite() {
                return Some(format!("{name} was not measured"));
            }
            let before = baseline.0.get(name)?;
            let loss = bound.loss(*value, before.value);
            (loss >= TOLERANCE).then(|| format!("{name} is {:.0} % worse than on {}", loss * 100.0, before.date))
        };
        self.ratios.iter().filter_map(warning).collect()
    }

    /// Replaces the baseline of each ratio that was measured; those of other ratios stay.
    pub fn update(&self, baseline: &mut Baseline, date: &str, machine: &str) {
        for (name, value, _) in self.ratios.iter().filter(|(_, value, _)| value.is_finite()) {
            // Three digits after the point: more would only make changes of the file longer.
            let value = (value * 1000.0).round() / 1000.0;
            baseline.0.insert(name.clone(), Measured { value, date: date.to_owned(), machine: machine.to_owned() });
        }
    }
}

/// Reads the baseline; an absent file is an empty one.
pub fn read_baseline() -> Baseline {
    match std::fs::read(BASELINE) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{BASELINE}: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Baseline::default(),
        Err(error) => panic!("{BASELINE}: {error}"),
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
