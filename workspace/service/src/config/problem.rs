//! What is wrong with a configuration, in words its owner can act on.

use std::fmt;

use config::{Value, ValueKind};

use super::strict::{Found, Mismatch};
use super::{DEFAULT_SOURCE, Entry, names};

/// Longer values are cut in messages.
const SHOWN_CHARACTERS_MAX: usize = 80;

/// One problem: where the value came from, which key, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    source: Option<String>,
    key: Option<String>,
    sentence: String,
}

impl Problem {
    pub(super) fn new(source: &str, key: &str, sentence: String) -> Self {
        Self {
            source: Some(source.to_owned()),
            key: Some(key.to_owned()),
            sentence,
        }
    }

    /// A problem of a source as a whole, such as a file that can not be read.
    pub(super) fn of_source(source: &str, sentence: String) -> Self {
        Self {
            source: Some(source.to_owned()),
            key: None,
            sentence,
        }
    }

    /// A problem that no single value has.
    pub(super) fn whole(sentence: String) -> Self {
        Self {
            source: None,
            key: None,
            sentence,
        }
    }

    /// A value that does not have the type of its key.
    pub(super) fn mismatch(entry: &Entry, mismatch: &Mismatch) -> Self {
        let key = entry.key();
        let place = format!("{key}{}", mismatch.inside(&key));
        let hidden = names::is_secret(&key);
        let predicate = match &mismatch.found {
            Found::Value(_) if hidden => format!("has a value that is not shown, {}", mismatch.rest),
            Found::Value(found) => format!("is {}, {}", cut(found), mismatch.rest),
            Found::Nothing => mismatch.rest.clone(),
            Found::Unsaid if hidden => "has a value that is not accepted and not shown".to_owned(),
            Found::Unsaid => format!("is {}: {}", shown(&entry.value), mismatch.rest),
        };
        Self::new(entry.source(), &key, format!("`{place}` {predicate}"))
    }

    /// The order in which an owner reads: the file from top to bottom, flags and variables by name,
    /// then what comes from a default or from no single value.
    fn order(&self) -> (u8, &str, usize, &str) {
        let sentence = self.sentence.as_str();
        match self.source.as_deref() {
            None => (3, "", 0, sentence),
            Some(DEFAULT_SOURCE) => (2, "", 0, sentence),
            Some(source) => match source.rsplit_once(':').map(|(file, line)| (file, line.parse())) {
                Some((file, Ok(line))) => (0, file, line, sentence),
                _ => (1, source, 0, sentence),
            },
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{source}: {}", self.sentence),
            None => f.write_str(&self.sentence),
        }
    }
}

/// Collects problems, so that all of them are reported at once.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Adds "`key` is `message`": the message starts with the value in backticks and says what is
    /// wanted, as in "`abc`, must be a decimal number". The loader adds where the value came from.
    pub fn add(&mut self, key: &str, message: impl fmt::Display) {
        self.say(key, format!("`{key}` is {message}"));
    }

    /// Adds what a section found in itself, pairs of a key and a message as for [`Problems::add`].
    pub fn add_all<K: AsRef<str>, M: fmt::Display>(&mut self, found: impl IntoIterator<Item = (K, M)>) {
        for (key, message) in found {
            self.add(key.as_ref(), message);
        }
    }

    /// Adds a whole sentence about a key, for what [`Problems::add`] can not word.
    pub fn say(&mut self, key: &str, sentence: impl Into<String>) {
        self.list.push(Problem {
            source: None,
            key: Some(key.to_owned()),
            sentence: sentence.into(),
        });
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn push(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    pub(super) fn mention(&self, key: &str) -> bool {
        self.list
            .iter()
            .any(|problem| problem.key.as_deref() == Some(key))
    }

    /// Takes over what a check found, with the source of each key. What concerns a key that is
    /// already reported is left out: it was checked with the default in its place.
    pub(super) fn extend_with_sources(&mut self, found: Self, source: impl Fn(&str) -> Option<String>) {
        for mut problem in found.list {
            let key = problem.key.as_deref().unwrap_or_default();
            if self.mention(key) {
                continue;
            }
            problem.source = Some(source(key).unwrap_or_else(|| DEFAULT_SOURCE.to_owned()));
            self.list.push(problem);
        }
    }

    pub(super) fn into_error(mut self) -> ConfigError {
        self.list.sort_by(|left, right| left.order().cmp(&right.order()));
        ConfigError { problems: self.list }
    }
}

/// A configuration that can not be used, with everything that is wrong with it.
#[derive(Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// How many problems there are.
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    pub(super) fn internal(message: &str) -> Self {
        Self {
            problems: vec![Problem::whole(format!(
                "the configuration can not be laid out: {message}"
            ))],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("configuration refused, 1 problem:")?,
            count => write!(f, "configuration refused, {count} problems:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A value for a message, in backticks where it is a scalar.
pub(super) fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::Nil => "nothing".to_owned(),
        scalar => format!("`{}`", cut(&scalar.to_string())),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARACTERS_MAX {
        return text.to_owned();
    }
    text.chars()
        .take(SHOWN_CHARACTERS_MAX)
        .chain("...".chars())
        .collect()
}
