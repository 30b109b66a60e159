//! Compares the tables of `docs/` and `tests/README.md` that are made from the code with the code, and the list of settings with
//! the settings that are read. Each table is between `<!-- generated: NAME -->` and `<!-- end -->`.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` rewrites the tables.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

use valet::{
    config::{self, Config, SETTINGS},
    http::problem::Code,
    metrics::{Metrics, RequestLabels, StateLabel},
};

/// Compares a block of a file with `wanted`, or replaces the block if `UPDATE_DOCS` is set.
fn compare(file: &str, block: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).unwrap();
    let mark = format!("<!-- generated: {block} -->\n");
    let (before, rest) = text.split_once(&mark).unwrap_or_else(|| panic!("{file} has no block {block}"));
    let (found, after) = rest.split_once("<!-- end -->").unwrap_or_else(|| panic!("block {block} of {file} has no end"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, format!("{before}{mark}{wanted}<!-- end -->{after}")).unwrap();
    } else {
        assert_eq!(found, wanted, "{file} is out of date. Run: UPDATE_DOCS=1 cargo test --test docs");
    }
}

/// Valid `JWT_SECRET`.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Valid values of the required settings.
const REQUIRED: [(&str, &str); 3] = [("MONGODB_URI", "mongodb://db"), ("S3_BUCKET", "bucket"), ("JWT_SECRET", SECRET)];

/// Reads a configuration from these settings alone; of several values of one setting, the last counts.
fn read(pairs: &[(&str, &str)]) -> Result<Config, config::Problems> {
    Config::read(&|name| pairs.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
}

/// Returns the first problem of this setting, without the setting's name at its beginning; `None` without a problem.
fn problem(name: &str, pairs: &[(&str, &str)]) -> Option<String> {
    let problems = read(pairs).err()?;
    problems.list().iter().find_map(|problem| problem.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
}

/// Returns the bounds of a setting from its problem text; an empty text for a setting that takes any text.
fn bounds(name: &str) -> String {
    // A question mark is valid only where any text is.
    let problem = problem(name, &[REQUIRED.as_slice(), &[(name, "?")]].concat()).unwrap_or_default();
    // The long text is a year, as humantime writes it.
    let bounds = problem.strip_prefix("must be ").unwrap_or_default().replace("11months 30days 3h 50m 24s", "365days");
    bounds.replace('|', "\\|")
}

/// Returns the table of the settings whose names `belongs` accepts.
fn table_of_settings(belongs: impl Fn(&str) -> bool) -> String {
    let mut table = "| variable | default | meaning | value |\n|---|---|---|---|\n".to_owned();
    for setting in SETTINGS.iter().filter(|setting| belongs(setting.name)) {
        let other_required: Vec<_> = REQUIRED.into_iter().filter(|(name, _)| *name != setting.name).collect();
        let default = match setting.default {
            "" if problem(setting.name, &other_required).is_some() => "required".to_owned(),
            "" => String::new(),
            default => format!("`{default}`"),
        };
        writeln!(table, "| `{}` | {default} | {} | {} |", setting.name, setting.meaning, bounds(setting.name)).unwrap();
    }
    table
}

#[test]
fn settings_are_documented() {
    let is_of_traces = |name: &str| name.starts_with("OTEL_");
    compare("docs/configuration.md", "settings", &table_of_settings(|name| !is_of_traces(name)));
    compare("docs/observability.md", "settings of traces", &table_of_settings(is_of_traces));
}

#[test]
fn every_setting_that_is_read_is_listed_once() {
    let listed: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name.to_owned()).collect();
    assert_eq!(listed.len(), SETTINGS.len());
    assert_eq!(listed, config::setting_names());
}

#[test]
fn listed_defaults_have_the_same_effect_as_leaving_the_setting_out() {
    let config_without = format!("{:?}", read(&REQUIRED).unwrap());
    for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
        let config_with = read(&[REQUIRED.as_slice(), &[(setting.name, setting.default)]].concat());
        assert_eq!(format!("{:?}", config_with.unwrap()), config_without, "{}", setting.name);
    }
}

#[test]
fn problem_codes_are_documented() {
    let mut table = "| status | code | title | meaning |\n|---|---|---|---|\n".to_owned();
    let mut codes = Code::ALL.to_vec();
    codes.sort_by_key(|code| code.status());
    for code in codes {
        let (status, meaning) = (code.status().as_u16(), code.meaning().trim());
        writeln!(table, "| {status} | `{}` | {} | {meaning} |", code.as_str(), code.title()).unwrap();
    }
    compare("docs/errors.md", "problem codes", &table);
}

#[test]
fn metrics_are_documented() {
    let metrics = Metrics::default();
    // The text contains the labels of a metric only if it has a sample.
    drop(metrics.requests.get_or_create(&RequestLabels { route: String::new(), method: "GET", status: 200 }));
    drop(metrics.images.get_or_create(&StateLabel { state: "ready" }));
    drop(metrics.image_bytes.get_or_create(&StateLabel { state: "ready" }));
    metrics.record_s3_call("HeadObject", None, std::time::Duration::ZERO);
    metrics.record_mongodb_command("find", "ok", std::time::Duration::ZERO);
    let text = metrics.text();

    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    let described = |keyword: &str, name: &str| {
        let start = format!("# {keyword} {name} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().trim_end_matches('.').to_owned()
    };
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        let kind = described("TYPE", name);
        let suffix = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        writeln!(table, "| `{name}{suffix}` | {kind} | {} | {} |", labels(&text, name), described("HELP", name)).unwrap();
    }
    compare("docs/metrics.md", "metrics", &table);
}

/// Returns the labels of a metric, with the values of labels that have several in the text.
fn labels(text: &str, metric: &str) -> String {
    let mut values = BTreeMap::<&str, BTreeSet<&str>>::new();
    let mut order = Vec::new();
    for line in text.lines() {
        let sample = line.strip_prefix(metric).and_then(|rest| rest.split_once('{'));
        let Some((_, rest)) = sample.filter(|(suffix, _)| ["", "_total", "_bucket", "_info"].contains(suffix)) else { continue };
        for (label, value) in rest.split("\",").filter_map(|pair| pair.split_once("=\"")) {
            let value = value.split('"').next().unwrap_or_default();
            if label != "le" && values.entry(label).or_default().insert(value) && !order.contains(&label) {
                order.push(label);
            }
        }
    }
    let shown = order.into_iter().map(|label| match &values[label] {
        several if several.len() > 1 => format!("`{label}`: {}", several.iter().copied().collect::<Vec<_>>().join(", ")),
        _ => format!("`{label}`"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Returns the program's output for `--help`, with the lines' trailing spaces removed.
#[cfg(feature = "dev")]
fn help(arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_valet"));
    let output = command.args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Returns the names of the program's commands.
#[cfg(feature = "dev")]
fn commands() -> Vec<String> {
    let all = help(&[]);
    let (_, rest) = all.split_once("Commands:\n").unwrap();
    let names = rest.lines().take_while(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
#[cfg(feature = "dev")]
fn commands_are_documented() {
    let mut blocks = String::new();
    for name in commands() {
        writeln!(blocks, "### `valet {name}`\n\n```text\n{}```\n", help(&[&name])).unwrap();
    }
    compare("docs/cli.md", "commands", &blocks);
}

/// Returns the list after this word in a test module's header, such as `//! Routes: GET /livez, GET /readyz.`
#[cfg(feature = "dev")]
fn list_in_header(text: &str, word: &str) -> Vec<String> {
    let header = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let list = header.skip_while(|line| !line.starts_with(word)).collect::<Vec<_>>().join(" ");
    let list = list.strip_prefix(word).unwrap_or_default().split('.').next().unwrap().trim();
    list.split(", ").filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Adds the modules below a folder of `tests/api` to `found`, by each item of the lists in their headers.
#[cfg(feature = "dev")]
fn collect_modules(folder: &Path, module: &str, word: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{module}{}", path.file_stem().unwrap().to_str().unwrap());
        if path.is_dir() {
            collect_modules(&path, &format!("{name}::"), word, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            for item in list_in_header(&fs::read_to_string(&path).unwrap(), word) {
                found.entry(item).or_default().insert(name.clone());
            }
        }
    }
}

/// Returns the table of the modules that test each item; its first row has the modules that test all items.
#[cfg(feature = "dev")]
fn table_of_modules(word: &str, kind: &str, items: &[String]) -> String {
    let mut found = BTreeMap::new();
    collect_modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api"), "", word, &mut found);
    let mut table = format!("| {kind} | modules of `tests/api` |\n|---|---|\n");
    let mut row = |item: &str, shown: &str| {
        let modules = found.remove(item).unwrap_or_else(|| panic!("no module of tests/api lists {item} behind `{word}`"));
        let modules: Vec<_> = modules.iter().map(|module| format!("`{module}`")).collect();
        writeln!(table, "| {shown} | {} |", modules.join(", ")).unwrap();
    };
    row("all", "all of them");
    for item in items {
        row(item, &format!("`{item}`"));
    }
    assert!(found.is_empty(), "modules of tests/api list unknown {word} {:?}", found.keys());
    table
}

#[test]
#[cfg(feature = "dev")]
fn tests_of_each_route_and_command_are_listed() {
    let document = valet::http::openapi::document();
    let paths = document["paths"].as_object().unwrap().iter();
    let routes = paths.flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    compare("tests/README.md", "tests by route", &table_of_modules("Routes:", "route", &routes.collect::<Vec<_>>()));
    let commands: Vec<_> = commands().iter().map(|name| format!("valet {name}")).collect();
    compare("tests/README.md", "tests by command", &table_of_modules("Commands:", "command", &commands));
}
