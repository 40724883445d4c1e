//! The environment as a layer of values. The only place that reads variables.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

use super::Entry;
use super::known::{Known, Place};
use super::names::{NAMES, PREFIX, SEPARATOR};
use super::problem::{Problem, Problems};

/// What a variable's name ends with that holds the path of a file with the value.
const FILE_SUFFIX: &str = "_FILE";

/// The variables of a process. Tests make their own.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of this process. Empty ones count as not set: compose files and task
    /// definitions pass those for what is left out.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            // A name that is not text can not be one of ours.
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        variables.collect()
    }

    /// The value of a variable that is set and not empty.
    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Who sits before this process, for audits: the user's name, where the system says it, and the host.
    pub fn operator(&self) -> String {
        let user = ["USER", "LOGNAME", "USERNAME"]
            .iter()
            .find_map(|name| self.get(name));
        let host = gethostname::gethostname();
        format!("{}@{}", user.unwrap_or("unknown"), host.to_string_lossy())
    }

    /// The variables `ORDERFLOW__SECTION__KEY`.
    pub(super) fn prefixed_entries(&self, known: &Known, problems: &mut Problems) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (name, value) in &self.variables {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let segments: Vec<&str> = rest.split(SEPARATOR).collect();
            let path = known.fold(&segments);
            match known.place(&path) {
                Place::Elsewhere => {}
                Place::Key => entries.push(entry(path, name, value)),
                Place::Table => {
                    let sentence = format!("`{}` is a table, name one of its keys", path.join("."));
                    problems.push(Problem::new(name, &path.join("."), sentence));
                }
                Place::Unknown => match self.named_file(known, rest, name, problems) {
                    Some(found) => entries.extend(found),
                    None => {
                        let advice = known.advice(&path, true);
                        let sentence = format!("`{}` is not a known key, {advice}", path.join("."));
                        problems.push(Problem::new(name, &path.join("."), sentence));
                    }
                },
            }
        }
        entries
    }

    /// `ORDERFLOW__KAFKA__API_SECRET_FILE`: outer `None` when it is no such variable, inner `None`
    /// when its file gave nothing.
    fn named_file(
        &self,
        known: &Known,
        rest: &str,
        name: &str,
        problems: &mut Problems,
    ) -> Option<Option<Entry>> {
        let plain = rest.strip_suffix(FILE_SUFFIX)?;
        let path = known.fold(&plain.split(SEPARATOR).collect::<Vec<_>>());
        if known.place(&path) != Place::Key {
            return None;
        }
        Some(self.value_from_file(&format!("{PREFIX}{plain}"), name, path, problems))
    }

    /// The names that people already use, for the keys that this binary has.
    pub(super) fn named_entries(&self, known: &Known, problems: &mut Problems) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for (name, key) in NAMES {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            if known.place(&path) != Place::Key {
                continue;
            }
            let file_name = format!("{name}{FILE_SUFFIX}");
            let found = match self.get(name) {
                Some(value) if self.get(&file_name).is_none() => Some(entry(path, name, value)),
                _ => self.value_from_file(name, &file_name, path, problems),
            };
            let Some(found) = found else { continue };
            match entries.iter().find(|earlier| earlier.path == found.path) {
                Some(earlier) if earlier.value.kind != found.value.kind => {
                    let sentence = format!(
                        "`{}` and `{name}` both set `{key}` and differ, unset one of them",
                        earlier.source()
                    );
                    problems.push(Problem::new(name, key, sentence));
                }
                Some(_) => {}
                None => entries.push(found),
            }
        }
        entries
    }

    /// The value in the file that the variable `file_name` names.
    fn value_from_file(
        &self,
        name: &str,
        file_name: &str,
        path: Vec<String>,
        problems: &mut Problems,
    ) -> Option<Entry> {
        let file = self.get(file_name)?;
        let key = path.join(".");
        if self.get(name).is_some() {
            let sentence = format!("`{name}` and `{file_name}` are both set, unset one of them");
            problems.push(Problem::new(file_name, &key, sentence));
            return None;
        }
        match read_value_file(file) {
            Ok(value) => Some(entry(path, file_name, &value)),
            Err(sentence) => {
                problems.push(Problem::new(file_name, &key, sentence));
                None
            }
        }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self {
            variables: variables
                .filter(|(_, value): &(String, String)| !value.is_empty())
                .collect(),
        }
    }
}

/// Reads a value from a file, without the line end that editors and `echo` leave.
pub(super) fn read_value_file(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("can not read `{path}`: {error}"))?;
    Ok(text
        .strip_suffix('\n')
        .map_or(text.as_str(), |line| line.trim_end_matches('\r'))
        .to_owned())
}

fn entry(path: Vec<String>, name: &str, value: &str) -> Entry {
    let source = name.to_owned();
    Entry {
        path,
        value: Value::new(Some(&source), ValueKind::String(value.to_owned())),
    }
}
