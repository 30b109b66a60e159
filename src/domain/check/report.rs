//! What was found, and the table that says it.

use std::fmt;

/// How much depends on a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A promise of Valet's does not hold without it.
    Broken,
    /// Valet's promises hold, with less behind them or at a price.
    Weaker,
    /// Better so.
    Advice,
}

impl Severity {
    /// The word in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Weaker => "weaker",
            Self::Advice => "advice",
        }
    }
}

/// Something that should hold of the database or the bucket.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is asked, as the table's line.
    pub name: &'static str,
    /// What a 'no' is worth.
    pub severity: Severity,
    /// What a 'no' means.
    pub consequence: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Whether a rule holds, with what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It holds.
    Yes(String),
    /// It does not.
    No(String),
    /// It could not be asked, and why.
    Skipped(String),
}

/// One line of the table.
#[derive(Debug)]
pub struct Finding {
    /// What was asked.
    pub rule: &'static Rule,
    /// What was found.
    pub answer: Answer,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of asking.
    pub findings: Vec<Finding>,
    /// What was changed before asking, a line each.
    pub changes: Vec<String>,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, rule: &'static Rule, answer: Answer) {
        self.findings.push(Finding { rule, answer });
    }

    /// The answer to the rule of this name.
    #[must_use]
    pub fn answer(&self, name: &str) -> Option<&Answer> {
        self.findings.iter().find(|finding| finding.rule.name == name).map(|finding| &finding.answer)
    }

    /// How many findings of this severity say no.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let is_no = |finding: &&Finding| matches!(finding.answer, Answer::No(_)) && finding.rule.severity == severity;
        self.findings.iter().filter(is_no).count()
    }

    /// Whether every promise holds here.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.count(Severity::Broken) == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        let width = self.findings.iter().map(|finding| finding.rule.name.chars().count()).max().unwrap_or(0);
        for Finding { rule, answer } in &self.findings {
            let (word, seen) = match answer {
                Answer::Yes(seen) => ("yes", seen),
                Answer::No(seen) => ("no", seen),
                Answer::Skipped(why) => ("skipped", why),
            };
            writeln!(f, "{}", format!("{:width$}  {word:7}  {seen}", rule.name).trim_end())?;
            if matches!(answer, Answer::No(_)) {
                writeln!(f, "{:width$}  {:7}  so: {}", "", rule.severity.as_str(), rule.consequence)?;
                writeln!(f, "{:width$}  {:7}  do: {}", "", "", rule.remedy)?;
            }
        }
        let yes = self.findings.iter().filter(|finding| matches!(finding.answer, Answer::Yes(_))).count();
        let skipped = self.findings.iter().filter(|finding| matches!(finding.answer, Answer::Skipped(_))).count();
        let counted = |severity| format!("{} {}", self.count(severity), severity.as_str());
        let no = [Severity::Broken, Severity::Weaker, Severity::Advice].map(counted).join(", ");
        write!(f, "{yes} yes, {} no ({no}), {skipped} skipped", self.findings.len() - yes - skipped)
    }
}
