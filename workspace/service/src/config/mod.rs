//! Configuration: typed, validated as a whole, before any socket opens.
//!
//! Layers, a later one wins: the defaults of the config types, the TOML file of `--config`, the
//! variables `ORDERFLOW__SECTION__KEY`, the names that people already use (`KAFKA_BROKERS`, see
//! [`NAMES`]), the flags of the command line. An empty variable counts as not set. Each value
//! remembers its source, and [`load`] reports every problem at once, each with that source.
//!
//! * `file` reads TOML with the line of each value,
//! * `environment` turns variables into the same entries,
//! * `known` is the tree of keys that exist, made from the defaults,
//! * `names` lists the sections of all services and the variables that people already use,
//! * `problem` collects what is wrong and words it,
//! * `strict` turns values into types without guessing.

mod environment;
mod file;
mod known;
mod names;
mod problem;
mod strict;

use std::path::Path;

use config::{Map, Value, ValueKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::settings::ShellSettings;

pub use environment::Environment;
pub use names::{NAMES, SECTIONS};
pub use problem::{ConfigError, Problems};

use known::{Known, Place};
use problem::Problem;

/// The configuration of one binary: a struct with a field per section.
///
/// A section is a struct with `#[serde(default)]`. All of its fields are serialized, absent ones
/// as `None`: the serialized default is the list of keys that exist, so
/// `skip_serializing_if` would hide a key.
pub trait Settings: Serialize + DeserializeOwned + Default {
    /// Checks values and how they fit together; called when each of them has its type.
    fn check(&self, problems: &mut Problems);

    /// Tables whose keys the owner of the file chooses, as dotted paths (`fraud.limits`). A table
    /// that is empty by default is open without being named here.
    fn open_tables() -> &'static [&'static str] {
        &[]
    }
}

/// A value from the command line, the strongest layer.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Dotted path, `kafka.brokers`.
    pub key: &'static str,
    /// The value as text.
    pub value: String,
    /// How the flag is written, `--brokers`.
    pub name: &'static str,
}

/// A value with its place in the tree. The value carries its source.
#[derive(Clone, Debug)]
struct Entry {
    path: Vec<String>,
    value: Value,
}

impl Entry {
    fn key(&self) -> String {
        self.path.join(".")
    }

    fn source(&self) -> &str {
        self.value.origin().unwrap_or_default()
    }
}

/// A configuration that holds: what the process shell needs, and what the binary asked for.
#[derive(Clone, Debug, Default)]
pub struct Loaded<C> {
    /// The sections `service`, `admin` and `log`, which every binary has.
    pub shell: ShellSettings,
    /// The binary's own sections.
    pub settings: C,
}

/// Loads `C` from its layers, or says everything that is wrong with them.
pub fn load<C: Settings>(
    file: Option<&Path>,
    environment: &Environment,
    flags: &[Flag],
) -> Result<Loaded<C>, ConfigError> {
    let defaults = defaults_of::<C>()?;
    let known = Known::new(&defaults, C::open_tables());
    let mut problems = Problems::default();
    let mut layers = vec![
        file.map(|path| file::entries(path, &known, &mut problems))
            .unwrap_or_default(),
        environment.prefixed_entries(&known, &mut problems),
        environment.named_entries(&known, &mut problems),
        flag_entries(flags, &known, &mut problems),
    ];

    if typed::<C>(&defaults, &layers).is_err() {
        report_wrong_types::<C>(&defaults, &layers, &mut problems);
        for layer in &mut layers {
            layer.retain(|entry| !problems.mention(&entry.key()));
        }
    }
    let merged = merge(&defaults, &layers)?;
    match deserialize::<C>(merged.clone()) {
        Ok(loaded) => {
            let mut found = Problems::default();
            loaded.shell.check(&mut found);
            loaded.settings.check(&mut found);
            problems.extend_with_sources(found, |key| source_of(&merged, key));
            if problems.is_empty() {
                Ok(loaded)
            } else {
                Err(problems.into_error())
            }
        }
        // Every value is right by itself, so the combination is what the type refuses.
        Err(mismatch) => {
            problems.push(Problem::whole(mismatch.sentence()));
            Err(problems.into_error())
        }
    }
}

/// Reports the values that do not have the type of their key, each tried alone over the defaults:
/// a deserializer stops at its first error, and the owner wants all of them.
fn report_wrong_types<C: Settings>(defaults: &Value, layers: &[Vec<Entry>], problems: &mut Problems) {
    for entry in layers.iter().flatten() {
        let alone = vec![vec![entry.clone()]];
        if let Err(mismatch) = typed::<C>(defaults, &alone) {
            problems.push(Problem::mismatch(entry, &mismatch));
        }
    }
}

fn typed<C: Settings>(defaults: &Value, layers: &[Vec<Entry>]) -> Result<Loaded<C>, strict::Mismatch> {
    let merged = merge(defaults, layers).map_err(serde::de::Error::custom)?;
    deserialize(merged)
}

fn deserialize<C: Settings>(merged: Value) -> Result<Loaded<C>, strict::Mismatch> {
    // Both read the same tree, each by its own sections: either may refuse unknown fields.
    let sections_of = |json: serde_json::Value| {
        let mut part = merged.clone();
        if let (ValueKind::Table(table), serde_json::Value::Object(own)) = (&mut part.kind, &json) {
            table.retain(|section, _| own.contains_key(section));
        }
        strict::Strict(part)
    };
    Ok(Loaded {
        shell: ShellSettings::deserialize(sections_of(json_of(&ShellSettings::default())?))?,
        settings: C::deserialize(sections_of(json_of(&C::default())?))?,
    })
}

/// Lays the layers over each other with the `config` crate, which keeps the source of each value.
fn merge(defaults: &Value, layers: &[Vec<Entry>]) -> Result<Value, ConfigError> {
    let mut builder = config::Config::builder().add_source(Layer(defaults.clone()));
    for layer in layers {
        let mut root = Value::new(None, ValueKind::Table(Map::new()));
        for entry in layer {
            insert(&mut root, &entry.path, entry.value.clone());
        }
        builder = builder.add_source(Layer(root));
    }
    builder
        .build()
        .map(|config| config.cache)
        .map_err(|error| ConfigError::internal(&error.to_string()))
}

/// A tree of values as a source of the `config` crate.
#[derive(Clone, Debug)]
struct Layer(Value);

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        match &self.0.kind {
            ValueKind::Table(table) => Ok(table.clone()),
            _ => Ok(Map::new()),
        }
    }
}

fn insert(node: &mut Value, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *node = value;
        return;
    };
    if !matches!(node.kind, ValueKind::Table(_)) {
        node.kind = ValueKind::Table(Map::new());
    }
    if let ValueKind::Table(table) = &mut node.kind {
        let child = table
            .entry(first.clone())
            .or_insert_with(|| Value::new(None, ValueKind::Nil));
        insert(child, rest, value);
    }
}

fn source_of(merged: &Value, key: &str) -> Option<String> {
    let mut node = merged;
    for segment in key.split('.') {
        let ValueKind::Table(table) = &node.kind else {
            return None;
        };
        node = table.get(segment)?;
    }
    node.origin().map(str::to_owned)
}

fn flag_entries(flags: &[Flag], known: &Known, problems: &mut Problems) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(flags.len());
    for flag in flags {
        let path: Vec<String> = flag.key.split('.').map(str::to_owned).collect();
        if known.place(&path) == Place::Key {
            let source = flag.name.to_owned();
            let value = Value::new(Some(&source), ValueKind::String(flag.value.clone()));
            entries.push(Entry { path, value });
        } else {
            let sentence = format!(
                "`{}` is not a known key, {}",
                flag.key,
                known.advice(&path, false)
            );
            problems.push(Problem::new(flag.name, flag.key, sentence));
        }
    }
    entries
}

/// The defaults as a tree. `serde_json` in between keeps empty tables, empty lists and absent
/// values, which the serializer of `config` drops.
fn defaults_of<C: Settings>() -> Result<Value, ConfigError> {
    let parts = [json_of(&ShellSettings::default()), json_of(&C::default())];
    let mut sections = serde_json::Map::new();
    for part in parts {
        let part = part.map_err(|error| ConfigError::internal(&error.to_string()))?;
        if let serde_json::Value::Object(part) = part {
            sections.extend(part);
        }
    }
    // A section that is missing there would be an error in the file for every other service.
    if let Some(section) = sections
        .keys()
        .find(|section| !SECTIONS.contains(&section.as_str()))
    {
        return Err(ConfigError::internal(&format!(
            "`{section}` is missing in `service::config::SECTIONS`"
        )));
    }
    Ok(tree(serde_json::Value::Object(sections)))
}

fn json_of(settings: &impl Serialize) -> Result<serde_json::Value, strict::Mismatch> {
    serde_json::to_value(settings).map_err(serde::de::Error::custom)
}

fn tree(json: serde_json::Value) -> Value {
    let source = String::from(DEFAULT_SOURCE);
    let kind = match json {
        serde_json::Value::Null => ValueKind::Nil,
        serde_json::Value::Bool(value) => ValueKind::Boolean(value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => ValueKind::I64(value),
            (None, Some(value)) => ValueKind::U64(value),
            (None, None) => ValueKind::Float(number.as_f64().unwrap_or_default()),
        },
        // A redacted default says nothing about its value; absent, the type's own default counts.
        serde_json::Value::String(text) if text == REDACTED => ValueKind::Nil,
        serde_json::Value::String(text) => ValueKind::String(text),
        serde_json::Value::Array(items) => ValueKind::Array(items.into_iter().map(tree).collect()),
        serde_json::Value::Object(fields) => ValueKind::Table(
            fields
                .into_iter()
                .map(|(key, value)| (key, tree(value)))
                .collect(),
        ),
    };
    Value::new(Some(&source), kind)
}

/// What a secret serializes to.
const REDACTED: &str = "[redacted]";
/// The source of a value that nobody set.
const DEFAULT_SOURCE: &str = "default";
