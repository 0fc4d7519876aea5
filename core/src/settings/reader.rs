//! Reads the tree of a file field by field and collects every mistake on the way. A mistake never stops the reading:
//! the value falls back to its default, and the file is refused at the end with all that was found.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::duration;
use super::rules::closest;
use super::yaml::{Name, Node, Place, Value};

/// One mistake: where, which rule, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Line and column, where known.
    pub place: Option<Place>,
    /// The field, for example `classes.default.retention`; empty = the whole file.
    pub field: String,
    /// The rule that is broken.
    pub rule: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, "line {}, column {}: ", place.line, place.column)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.rule, self.remedy)
    }
}

/// Why a configuration is refused: everything that was found, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub findings: Vec<Finding>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.findings.iter().enumerate() {
            write!(f, "{}{finding}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The mistakes so far.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// A mistake of the file as a whole.
    pub(super) fn of_file(place: Option<Place>, rule: impl Into<String>, remedy: &str) -> ConfigError {
        let (field, rule, remedy) = (String::new(), rule.into(), remedy.to_owned());
        ConfigError { findings: vec![Finding { place, field, rule, remedy }] }
    }

    pub(super) fn report(&mut self, field: &Field<'_>, rule: impl Into<String>, remedy: impl Into<String>) {
        let (rule, remedy) = (rule.into(), remedy.into());
        self.0.push(Finding { place: field.node.place, field: field.path.clone(), rule, remedy });
    }

    /// `value`, unless something was found.
    pub(super) fn into_result<T>(mut self, value: T) -> Result<T, ConfigError> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|finding| finding.place);
        Err(ConfigError { findings: self.0 })
    }
}

/// A value and the path to it.
#[derive(Debug, Clone)]
pub(super) struct Field<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
}

/// Text in quotes, shortened: findings repeat what was written.
pub(super) fn quote(text: &str) -> String {
    crate::demand::quoted(text)
}

impl<'n> Field<'n> {
    /// The whole file.
    pub(super) fn root(node: &'n Node) -> Self {
        Self { node, path: String::new() }
    }

    fn below(&self, name: &str, node: &'n Node) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { node, path }
    }

    fn expected(&self, what: &str, remedy: &str, findings: &mut Findings) {
        findings.report(self, format!("expected {what}, found {}", self.node.value.kind()), remedy);
    }

    /// The entries of a map in the file's order.
    pub(super) fn entries(&self, findings: &mut Findings) -> Vec<(&'n Name, Field<'n>)> {
        match &self.node.value {
            Value::Map(entries) => {
                entries.iter().map(|(name, node)| (name, self.below(&name.text, node))).collect()
            }
            Value::Null => Vec::new(),
            _ => {
                self.expected("a map", "write it as name: value", findings);
                Vec::new()
            }
        }
    }

    /// A map with a closed set of fields.
    pub(super) fn table(&self, findings: &mut Findings) -> Table<'n> {
        let entries = self.entries(findings).into_iter().map(|(name, field)| (name, field, false)).collect();
        Table { field: self.clone(), entries, known: Vec::new() }
    }

    /// The items of a list; `None` where it is none, which has then been reported.
    pub(super) fn items(&self, findings: &mut Findings) -> Option<Vec<Field<'n>>> {
        if let Value::List(items) = &self.node.value {
            let item = |(i, node): (usize, &'n Node)| Self { node, path: format!("{}[{i}]", self.path) };
            return Some(items.iter().enumerate().map(item).collect());
        }
        self.expected("a list", "write it as [a, b]", findings);
        None
    }

    pub(super) fn text(&self, findings: &mut Findings) -> Option<&'n str> {
        if let Value::Text(text) = &self.node.value {
            return Some(text);
        }
        self.expected("text", "write it in quotes", findings);
        None
    }

    /// Text that `valid` accepts; `what` and `remedy` say what that is.
    pub(super) fn text_that_is(
        &self,
        valid: impl Fn(&str) -> bool,
        (what, remedy): (&str, &str),
        findings: &mut Findings,
    ) -> Option<&'n str> {
        let text = self.text(findings)?;
        if valid(text) {
            return Some(text);
        }
        findings.report(self, format!("{} is not {what}", quote(text)), remedy);
        None
    }

    pub(super) fn flag(&self, findings: &mut Findings) -> Option<bool> {
        if let Value::Bool(value) = self.node.value {
            return Some(value);
        }
        self.expected("true or false", "write true or false, without quotes", findings);
        None
    }

    /// A whole number within `range`.
    pub(super) fn number(&self, range: RangeInclusive<u32>, findings: &mut Findings) -> Option<u32> {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        let Value::Number(number) = self.node.value else {
            self.expected("a whole number", &remedy, findings);
            return None;
        };
        let number = u32::try_from(number).ok().filter(|n| range.contains(n));
        if number.is_none() {
            findings.report(self, "the number is out of range", remedy);
        }
        number
    }

    pub(super) fn duration(&self, findings: &mut Findings) -> Option<Duration> {
        let text = self.text_for("a duration", findings)?;
        let duration = duration::parse(text);
        if duration.is_none() {
            let days = duration::LONGEST.as_secs() / 86_400;
            let remedy = format!("write whole numbers with units, as 30s, 10m or 2h, up to {days}d");
            findings.report(self, format!("{} is not a duration", quote(text)), remedy);
        }
        duration
    }

    fn text_for(&self, what: &str, findings: &mut Findings) -> Option<&'n str> {
        if let Value::Text(text) = &self.node.value {
            return Some(text);
        }
        self.expected(what, "write a number with its unit, as 30s, 10m or 2h", findings);
        None
    }

    /// One word of a closed set.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)], findings: &mut Findings) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let list = words.join(", ");
        let Value::Text(text) = &self.node.value else {
            self.expected("a word", &format!("write one of {list}"), findings);
            return None;
        };
        let found = choices.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
        if found.is_none() {
            findings.report(self, format!("{} is not known here", quote(text)), meant(text, &words));
        }
        found
    }
}

/// The remedy for an unknown word.
fn meant(word: &str, known: &[&str]) -> String {
    match closest(word, known) {
        Some(close) => format!("did you mean '{close}'?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// A map with a closed set of fields: the ones that are asked for.
#[derive(Debug)]
pub(super) struct Table<'n> {
    pub(super) field: Field<'n>,
    entries: Vec<(&'n Name, Field<'n>, bool)>,
    known: Vec<&'static str>,
}

impl<'n> Table<'n> {
    /// The field `name`; one that is empty or `null` is as good as left out.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Field<'n>> {
        self.known.push(name);
        let entry = self.entries.iter_mut().find(|(n, ..)| n.text == name)?;
        entry.2 = true;
        Some(entry.1.clone()).filter(|field| !matches!(field.node.value, Value::Null))
    }

    /// The field `name`, which must be there.
    pub(super) fn require(
        &mut self,
        name: &'static str,
        remedy: &str,
        findings: &mut Findings,
    ) -> Option<Field<'n>> {
        let found = self.take(name);
        // what is no map has been reported as that
        if found.is_none() && matches!(self.field.node.value, Value::Map(_) | Value::Null) {
            findings.report(&self.field, format!("the field '{name}' is missing"), remedy);
        }
        found
    }

    /// Reports the fields nobody has asked for.
    pub(super) fn finish(self, findings: &mut Findings) {
        for (name, field, _) in self.entries.iter().filter(|(.., taken)| !taken) {
            findings.0.push(Finding {
                place: name.place,
                field: field.path.clone(),
                rule: format!("unknown field {}", quote(&name.text)),
                remedy: meant(&name.text, &self.known),
            });
        }
    }
}
