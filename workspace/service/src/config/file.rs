//! The TOML file, with the line of each value.

use std::path::Path;

use config::{Map, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::read_value_file;
use super::known::{Known, Place};
use super::problem::{Problem, Problems, shown};
use super::{Entry, names};

/// What a key ends with that names a file with the value.
const FILE_SUFFIX: &str = "_file";

/// Reads the file and returns its values; what is wrong goes to `problems`.
pub(super) fn entries(path: &Path, known: &Known, problems: &mut Problems) -> Vec<Entry> {
    let name = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(Problem::of_source(
                "--config",
                format!("can not read `{name}`: {error}"),
            ));
            return Vec::new();
        }
    };
    let lines = Lines {
        name: &name,
        text: &text,
    };
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        problems.push(Problem::of_source(
            &lines.at(at),
            format!("not valid TOML: {}", error.message()),
        ));
    }
    // What the parser recovered from a broken file would only add problems that are none.
    if !errors.is_empty() {
        return Vec::new();
    }
    let mut reader = Reader {
        known,
        problems,
        entries: Vec::new(),
    };
    let root = lines.table(table.get_ref(), String::new());
    if let ValueKind::Table(sections) = root.kind {
        for (name, value) in sections {
            reader.walk(vec![name], value);
        }
    }
    reader.entries
}

struct Reader<'a> {
    known: &'a Known,
    problems: &'a mut Problems,
    entries: Vec<Entry>,
}

impl Reader<'_> {
    fn walk(&mut self, path: Vec<String>, value: Value) {
        let key = path.join(".");
        let source = value.origin().unwrap_or_default().to_owned();
        match self.known.place(&path) {
            Place::Elsewhere => {}
            Place::Key => self.entries.push(Entry { path, value }),
            Place::Table => match value.kind {
                ValueKind::Table(table) => {
                    for (name, value) in table {
                        let mut below = path.clone();
                        below.push(name);
                        self.walk(below, value);
                    }
                }
                _ => self.problems.push(Problem::new(
                    &source,
                    &key,
                    format!("`{key}` is {}, expected a table", shown(&value)),
                )),
            },
            Place::Unknown => match self.entry_from_named_file(&path, &value) {
                Some(entry) => self.entries.push(entry),
                None => {
                    let what = if path.len() == 1 { "section" } else { "key" };
                    let advice = self.known.advice(&path, false);
                    self.problems.push(Problem::new(
                        &source,
                        &key,
                        format!("`{key}` is not a known {what}, {advice}"),
                    ));
                }
            },
        }
    }

    /// `api_secret_file = "path"` stands for `api_secret` with the content of that file.
    fn entry_from_named_file(&mut self, path: &[String], value: &Value) -> Option<Entry> {
        let mut path = path.to_vec();
        let last = path.pop()?;
        path.push(last.strip_suffix(FILE_SUFFIX)?.to_owned());
        if self.known.place(&path) != Place::Key || !names::is_secret(&path.join(".")) {
            return None;
        }
        let ValueKind::String(file) = &value.kind else {
            return None;
        };
        let source = value.origin().unwrap_or_default().to_owned();
        let value = match read_value_file(file) {
            Ok(text) => Value::new(Some(&source), ValueKind::String(text)),
            Err(sentence) => {
                self.problems
                    .push(Problem::new(&source, &path.join("."), sentence));
                Value::new(Some(&source), ValueKind::Nil)
            }
        };
        Some(Entry { path, value })
    }
}

struct Lines<'a> {
    name: &'a str,
    text: &'a str,
}

impl Lines<'_> {
    fn at(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        format!("{}:{}", self.name, before.matches('\n').count() + 1)
    }

    fn table(&self, table: &DeTable<'_>, source: String) -> Value {
        let mut values = Map::new();
        for (key, value) in table {
            // The line of the key: that of a table's value would be the line of its first entry.
            let source = self.at(key.span().start);
            values.insert(key.get_ref().to_string(), self.value(value, source));
        }
        Value::new(Some(&source), ValueKind::Table(values))
    }

    fn value(&self, value: &Spanned<DeValue<'_>>, source: String) -> Value {
        let kind = match value.get_ref() {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Boolean(value) => ValueKind::Boolean(*value),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) => ValueKind::I64(value),
                // Too large for an i64: as text it still meets the range check of its type.
                Err(_) => ValueKind::String(number.to_string()),
            },
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(value) => ValueKind::Float(value),
                Err(_) => ValueKind::String(number.to_string()),
            },
            DeValue::Datetime(datetime) => ValueKind::String(datetime.to_string()),
            DeValue::Array(items) => ValueKind::Array(
                items
                    .iter()
                    .map(|item| self.value(item, self.at(item.span().start)))
                    .collect(),
            ),
            DeValue::Table(table) => return self.table(table, source),
        };
        Value::new(Some(&source), kind)
    }
}
