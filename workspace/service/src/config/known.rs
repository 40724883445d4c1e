//! The keys that exist, as a tree made from the serialized defaults.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

use super::names::{PREFIX, SECTIONS, SEPARATOR};

/// How alike two names must be for one to be offered in place of the other.
const LIKENESS_MIN: f64 = 0.6;

/// A key that is this long and the start of another one is taken for that one cut short.
const CUT_SHORT_MIN: usize = 3;

#[derive(Debug)]
enum Node {
    /// A key with a value.
    Key,
    /// A key that is absent by default: its value may be anything, a table included.
    Any,
    /// A table whose keys its owner chooses.
    Open,
    Table(BTreeMap<String, Node>),
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A value goes here.
    Key,
    /// A table, so values go further down.
    Table,
    /// A section of another service.
    Elsewhere,
    /// No such key.
    Unknown,
}

/// The tree of keys that exist.
#[derive(Debug)]
pub(super) struct Known {
    root: BTreeMap<String, Node>,
}

impl Known {
    pub(super) fn new(defaults: &Value, open_tables: &[&str]) -> Self {
        match node(defaults, "", open_tables) {
            Node::Table(root) => Self { root },
            _ => Self {
                root: BTreeMap::new(),
            },
        }
    }

    pub(super) fn place<S: AsRef<str>>(&self, path: &[S]) -> Place {
        let mut children = &self.root;
        let mut found = Place::Table;
        for (depth, segment) in path.iter().enumerate() {
            let segment = segment.as_ref();
            let is_last = depth + 1 == path.len();
            match children.get(segment) {
                Some(Node::Table(below)) => children = below,
                Some(Node::Open) => return if is_last { Place::Table } else { Place::Key },
                Some(Node::Any) => return Place::Key,
                Some(Node::Key) if is_last => found = Place::Key,
                None if depth == 0 && SECTIONS.contains(&segment) => return Place::Elsewhere,
                Some(Node::Key) | None => return Place::Unknown,
            }
        }
        found
    }

    /// The path of a variable's segments: our own names are lower case, the keys of an open table
    /// are kept as they are written.
    pub(super) fn fold(&self, segments: &[&str]) -> Vec<String> {
        let mut children = Some(&self.root);
        let mut keep = false;
        let mut path = Vec::with_capacity(segments.len());
        for segment in segments {
            let name = if keep {
                (*segment).to_owned()
            } else {
                segment.to_ascii_lowercase()
            };
            match children.and_then(|children| children.get(&name)) {
                Some(Node::Table(below)) => children = Some(below),
                Some(Node::Open) => {
                    keep = true;
                    children = None;
                }
                _ => children = None,
            }
            path.push(name);
        }
        path
    }

    /// "did you mean ..." for a path that does not exist, or the names that do.
    pub(super) fn advice(&self, path: &[String], as_variable: bool) -> String {
        let wanted = path.join(".");
        let spell = |key: &str| {
            if as_variable {
                variable_name(key)
            } else {
                key.to_owned()
            }
        };
        let nearest = self
            .candidates()
            .into_iter()
            .map(|candidate| (likeness(&wanted, &candidate), candidate))
            .max_by(|(left, _), (right, _)| left.total_cmp(right))
            .filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
        if let Some((_, nearest)) = nearest {
            return format!("did you mean `{}`?", spell(&nearest));
        }
        let names = self.names_beside(path);
        if names.is_empty() {
            return format!("the sections are {}", list(SECTIONS.iter().copied()));
        }
        format!("the keys here are {}", list(names.into_iter()))
    }

    /// Every key, and every section of any service.
    fn candidates(&self) -> Vec<String> {
        let mut keys: Vec<String> = SECTIONS.iter().map(|section| (*section).to_owned()).collect();
        collect(&self.root, "", &mut keys);
        keys
    }

    fn names_beside(&self, path: &[String]) -> Vec<&str> {
        let mut children = &self.root;
        let Some((_, tables)) = path.split_last() else {
            return Vec::new();
        };
        if tables.is_empty() {
            return Vec::new();
        }
        for segment in tables {
            match children.get(segment) {
                Some(Node::Table(below)) => children = below,
                _ => return Vec::new(),
            }
        }
        children.keys().map(String::as_str).collect()
    }
}

/// `kafka.brokers` as a variable, `ORDERFLOW__KAFKA__BROKERS`.
pub(super) fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', SEPARATOR))
}

fn node(value: &Value, path: &str, open_tables: &[&str]) -> Node {
    match &value.kind {
        ValueKind::Nil => Node::Any,
        ValueKind::Table(_) if open_tables.contains(&path) => Node::Open,
        ValueKind::Table(table) if table.is_empty() && !path.is_empty() => Node::Open,
        ValueKind::Table(table) => Node::Table(
            table
                .iter()
                .map(|(name, value)| {
                    let below = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    (name.clone(), node(value, &below, open_tables))
                })
                .collect(),
        ),
        _ => Node::Key,
    }
}

fn collect(children: &BTreeMap<String, Node>, path: &str, keys: &mut Vec<String>) {
    for (name, node) in children {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        if let Node::Table(children) = node {
            collect(children, &below, keys);
        }
        keys.push(below);
    }
}

/// How alike a wanted path and a key are, from 0 to 1. The last segment counts by itself too, since
/// a right key in the wrong section is a common mistake, and so is a key that was cut short.
fn likeness(wanted: &str, key: &str) -> f64 {
    let whole = strsim::normalized_damerau_levenshtein(wanted, key);
    let (Some((wanted_table, wanted)), Some((key_table, key))) =
        (wanted.rsplit_once('.'), key.rsplit_once('.'))
    else {
        return whole;
    };
    if wanted_table == key_table && wanted.len() >= CUT_SHORT_MIN && key.starts_with(wanted) {
        return 0.95;
    }
    // Slightly less than the whole, so that the same section wins.
    whole.max(0.9 * strsim::normalized_damerau_levenshtein(wanted, key))
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
