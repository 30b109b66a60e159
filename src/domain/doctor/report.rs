//! The report of `valet check`: a table for people, and a JSON document for programs.

use std::fmt;

use serde::Serialize;

/// Severity of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A guarantee of Valet does not hold without the rule.
    Broken,
    /// Valet's guarantees hold, but more weakly or at a cost.
    Weaker,
    /// A recommendation.
    Advice,
}

impl Severity {
    /// Returns the severity's name in the report.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Weaker => "weaker",
            Self::Advice => "advice",
        }
    }
}

/// A requirement for the database or the bucket.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable name for programs.
    pub id: &'static str,
    /// Name of the line in the table.
    pub name: &'static str,
    /// Severity of the finding if the rule does not hold.
    pub severity: Severity,
    /// Consequence if the rule does not hold.
    pub consequence: &'static str,
    /// Remedy if the rule does not hold.
    pub remedy: &'static str,
}

/// Whether a rule holds, with the observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The rule holds.
    Yes(String),
    /// The rule does not hold.
    No(String),
    /// The rule was not checked, for this reason.
    Skipped(String),
}

/// One line of the table.
#[derive(Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// The observation.
    pub answer: Answer,
    /// Remedy if the rule does not hold: the rule's, or that of the known cause.
    pub remedy: &'static str,
    /// Further values for programs, by name in camel case.
    pub details: Vec<(&'static str, String)>,
}

/// Verdict of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The rule holds.
    Ok,
    /// The rule does not hold, but Valet's guarantees do.
    Warning,
    /// A guarantee of Valet does not hold.
    Broken,
    /// The rule was not checked.
    Skipped,
}

impl Finding {
    /// Returns the finding as a member of the JSON document.
    fn to_json(&self) -> serde_json::Value {
        let mut details = serde_json::Map::new();
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                details.insert(name.to_owned(), value.into());
            }
        };
        add("question", self.rule.name);
        match &self.answer {
            Answer::Yes(seen) => add("seen", seen),
            Answer::Skipped(why) => add("reason", why),
            Answer::No(seen) => {
                add("seen", seen);
                add("severity", self.rule.severity.as_str());
                add("consequence", self.rule.consequence);
                add("remedy", self.remedy);
            }
        }
        self.details.iter().for_each(|(name, value)| add(name, value));
        serde_json::json!({
            "name": self.rule.id,
            "verdict": self.verdict(),
            "sentence": self.sentence(),
            "details": details,
        })
    }

    /// Returns the verdict for the answer and the rule's severity.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (&self.answer, self.rule.severity) {
            (Answer::Yes(_), _) => Verdict::Ok,
            (Answer::No(_), Severity::Broken) => Verdict::Broken,
            (Answer::No(_), Severity::Weaker | Severity::Advice) => Verdict::Warning,
            (Answer::Skipped(_), _) => Verdict::Skipped,
        }
    }

    /// Returns the finding as one line of text.
    fn sentence(&self) -> String {
        let Rule { name, consequence, .. } = self.rule;
        match &self.answer {
            Answer::Yes(seen) if seen.is_empty() => format!("{name}: yes"),
            Answer::Yes(seen) => format!("{name}: yes, {seen}"),
            Answer::No(seen) if seen.is_empty() => format!("{name}: no; {consequence}"),
            Answer::No(seen) => format!("{name}: no, {seen}; {consequence}"),
            Answer::Skipped(why) => format!("{name}: not checked, {why}"),
        }
    }
}

/// All findings of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// Findings in the order of the checks.
    pub findings: Vec<Finding>,
    /// Changes that were made before probing, one line each.
    pub changes: Vec<String>,
    /// Why the check ended early.
    pub cut_short: Option<&'static str>,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, rule: &'static Rule, answer: Answer) {
        self.findings.push(Finding { rule, answer, remedy: rule.remedy, details: Vec::new() });
    }

    /// Adds the finding that a rule does not hold, with the remedy for its known cause.
    pub fn add_cause(&mut self, rule: &'static Rule, seen: String, remedy: &'static str, details: Vec<(&'static str, String)>) {
        self.findings.push(Finding { rule, answer: Answer::No(seen), remedy, details });
    }

    /// Returns the answer for the rule of this name.
    #[must_use]
    pub fn answer(&self, name: &str) -> Option<&Answer> {
        self.findings.iter().find(|finding| finding.rule.name == name).map(|finding| &finding.answer)
    }

    /// Returns the number of rules of this severity that do not hold.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let is_no = |finding: &&Finding| matches!(finding.answer, Answer::No(_)) && finding.rule.severity == severity;
        self.findings.iter().filter(is_no).count()
    }

    /// Returns whether all guarantees hold; `false` for a check that was cut short.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.count(Severity::Broken) == 0 && self.cut_short.is_none()
    }

    /// Returns the report as one JSON document (`docs/check.md`).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let findings: Vec<_> = self.findings.iter().map(Finding::to_json).collect();
        let count = |verdict| self.findings.iter().filter(|finding| finding.verdict() == verdict).count();
        serde_json::json!({
            "sound": self.is_sound(),
            "counts": {
                "ok": count(Verdict::Ok),
                "warning": count(Verdict::Warning),
                "broken": count(Verdict::Broken),
                "skipped": count(Verdict::Skipped),
            },
            "changes": self.changes,
            "findings": findings,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        let width = self.findings.iter().map(|finding| finding.rule.name.chars().count()).max().unwrap_or(0);
        for Finding { rule, answer, remedy, .. } in &self.findings {
            let (word, seen) = match answer {
                Answer::Yes(seen) => ("yes", seen),
                Answer::No(seen) => ("no", seen),
                Answer::Skipped(why) => ("skipped", why),
            };
            writeln!(f, "{}", format!("{:width$}  {word:7}  {seen}", rule.name).trim_end())?;
            if matches!(answer, Answer::No(_)) {
                writeln!(f, "{:width$}  {:7}  so: {}", "", rule.severity.as_str(), rule.consequence)?;
                writeln!(f, "{:width$}  {:7}  do: {}", "", "", remedy)?;
            }
        }
        let yes = self.findings.iter().filter(|finding| matches!(finding.answer, Answer::Yes(_))).count();
        let skipped = self.findings.iter().filter(|finding| matches!(finding.answer, Answer::Skipped(_))).count();
        let counted = |severity| format!("{} {}", self.count(severity), severity.as_str());
        let no = [Severity::Broken, Severity::Weaker, Severity::Advice].map(counted).join(", ");
        write!(f, "{yes} yes, {} no ({no}), {skipped} skipped", self.findings.len() - yes - skipped)
    }
}
