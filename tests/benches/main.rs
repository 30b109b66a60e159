//! Tests of the table and the warnings with which the benchmarks end (`benches/load/report.rs`).
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../../benches/load/report.rs"]
mod report;

use time::{Date, macros::format_description};

use self::report::{BASELINE, Baseline, Bound, Measured, Report, read_baseline};

/// Returns a report of these ratios.
fn report(ratios: &[(&str, f64, Bound)]) -> Report {
    let mut report = Report::default();
    for (name, value, bound) in ratios {
        report.ratio(name, *value, *bound);
    }
    report
}

/// Returns a baseline in which each of these ratios is 2.
fn baseline_of_two(names: &[&str]) -> Baseline {
    let measured = Measured { value: 2.0, date: "2026-11-23".to_owned(), machine: "two cores".to_owned() };
    Baseline(names.iter().map(|name| ((*name).to_owned(), measured.clone())).collect())
}

#[test]
fn ratio_that_is_a_tenth_worse_is_warned_of() {
    // The last digit of a product of decimal fractions may be off.
    let (tenth_more, less_than_a_tenth_more) = (2.200_001, 2.19);
    for (bound, worse, nearly_as_good, better) in [
        (Bound::AtLeast(9.0), 1.799_999, 1.81, 3.0),
        (Bound::AtMost(1.0), tenth_more, less_than_a_tenth_more, 1.0),
        (Bound::Low, tenth_more, less_than_a_tenth_more, 1.0),
    ] {
        let report = report(&[("worse", worse, bound), ("nearly as good", nearly_as_good, bound), ("better", better, bound)]);
        let baseline = baseline_of_two(&["worse", "nearly as good", "better"]);
        assert_eq!(report.warnings(&baseline), ["worse is 10 % worse than on 2026-11-23"], "{bound:?}");
    }
}

#[test]
fn ratio_without_a_baseline_is_compared_with_its_bound_alone() {
    let report = report(&[("new", 0.5, Bound::AtLeast(0.6)), ("other", 0.7, Bound::AtLeast(0.6)), ("free", 3.0, Bound::Low)]);
    assert!(report.warnings(&Baseline::default()).is_empty());
    let table = report.table(&baseline_of_two(&["other"]));
    let rows: Vec<_> = table.lines().skip(2).collect();
    let other = "| other | 0.70 | ≥ 0.6 | 2.00 (2026-11-23, two cores) |";
    assert_eq!(rows, ["| new | 0.50 (missed) | ≥ 0.6 | none |", other, "| free | 3.00 | low | none |"]);
}

#[test]
fn ratio_that_was_not_measured_is_warned_of_and_does_not_replace_its_baseline() {
    let report = report(&[("lost", f64::NAN, Bound::AtMost(1.0)), ("endless", f64::INFINITY, Bound::AtLeast(1.0))]);
    let mut baseline = baseline_of_two(&["lost"]);
    assert_eq!(report.warnings(&baseline), ["lost was not measured", "endless was not measured"]);
    assert!(report.table(&baseline).contains("| lost | NaN (missed) |"));
    report.update(&mut baseline, "2026-12-01", "four cores");
    assert_eq!(baseline, baseline_of_two(&["lost"]));
}

#[test]
fn run_of_a_part_keeps_the_baseline_of_the_others() {
    let mut baseline = baseline_of_two(&["measured", "other"]);
    report(&[("measured", 1.234_56, Bound::Low)]).update(&mut baseline, "2026-12-01", "four cores");
    let measured = Measured { value: 1.235, date: "2026-12-01".to_owned(), machine: "four cores".to_owned() };
    assert_eq!(baseline.0["measured"], measured);
    assert_eq!(baseline.0["other"], baseline_of_two(&["other"]).0["other"]);
}

#[test]
fn committed_baseline_has_a_positive_value_and_a_date_for_each_ratio() {
    let baseline = read_baseline();
    assert!(!baseline.0.is_empty(), "benches/baseline.json exists");
    for (name, measured) in &baseline.0 {
        assert!(measured.value.is_finite() && measured.value > 0.0, "{name}");
        let date = Date::parse(&measured.date, format_description!("[year]-[month]-[day]"));
        assert!(date.is_ok() && !measured.machine.is_empty(), "{name}: {measured:?}");
    }
    let text = serde_json::to_string_pretty(&baseline).unwrap() + "\n";
    assert_eq!(std::fs::read_to_string(BASELINE).unwrap(), text, "the file is as BENCH_BASELINE=write writes it");
}
