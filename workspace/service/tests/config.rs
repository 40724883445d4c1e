//! What the loader accepts, and the exact words for what it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};
use service::{Environment, Flag, Loaded, Problems, Settings, load};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    kafka: Kafka,
    fraud: Fraud,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Kafka {
    brokers: String,
    client_id: String,
    api_key: Option<Secret>,
    api_secret: Option<Secret>,
    ca_file: Option<String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            client_id: "orderflow".to_owned(),
            api_key: None,
            api_secret: None,
            ca_file: None,
        }
    }
}

/// Like the real one: it serializes to a mark, never to its value.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Secret(String);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Fraud {
    score_min: u8,
    share: f64,
    enabled: bool,
    exempt: Vec<String>,
    risk: Risk,
    limits: BTreeMap<String, String>,
    rules: Vec<Rule>,
    salt_secret: Secret,
    window_ms: Option<u64>,
}

impl Default for Fraud {
    fn default() -> Self {
        Self {
            score_min: 25,
            share: 0.5,
            enabled: true,
            exempt: vec!["US".to_owned(), "CA".to_owned()],
            risk: Risk::Low,
            limits: BTreeMap::from([("USD".to_owned(), "300".to_owned())]),
            rules: Vec::new(),
            salt_secret: Secret("default salt".to_owned()),
            window_ms: None,
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Risk {
    Low,
    High,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Rule {
    name: String,
    weight: u32,
}

impl Settings for Config {
    fn check(&self, problems: &mut Problems) {
        for (currency, limit) in &self.fraud.limits {
            if limit.parse::<u64>().is_err() {
                let key = format!("fraud.limits.{currency}");
                problems.add(&key, format!("`{limit}`, must be a decimal number"));
            }
        }
    }

    fn open_tables() -> &'static [&'static str] {
        &["fraud.limits"]
    }
}

struct Case {
    folder: tempfile::TempDir,
    file: Option<PathBuf>,
    variables: Vec<(String, String)>,
    flags: Vec<Flag>,
}

fn case() -> Case {
    Case {
        folder: tempfile::tempdir().unwrap(),
        file: None,
        variables: Vec::new(),
        flags: Vec::new(),
    }
}

impl Case {
    fn file(mut self, text: &str) -> Self {
        self.file = Some(self.write("orders.toml", text));
        self
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn flag(mut self, name: &'static str, key: &'static str, value: &str) -> Self {
        self.flags.push(Flag {
            key,
            value: value.to_owned(),
            name,
        });
        self
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn load(&self) -> Result<Loaded<Config>, service::ConfigError> {
        let environment: Environment = self.variables.iter().cloned().collect();
        load::<Config>(self.file.as_deref(), &environment, &self.flags)
    }

    fn loaded(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error}")).settings
    }

    /// The message without the folder, which differs from run to run.
    fn refused(&self) -> String {
        let error = self.load().expect_err("this configuration must be refused");
        error
            .to_string()
            .replace(&format!("{}/", self.folder.path().display()), "")
    }
}

#[test]
fn without_any_layer_the_defaults_hold() {
    assert_eq!(case().loaded(), Config::default());
}

#[test]
fn a_later_layer_wins() {
    let file = "[kafka]\nbrokers = \"file:1\"\nclient_id = \"file\"\n[log]\nlevel = \"warn\"\n";
    let config = case().file(file).loaded();
    assert_eq!(
        (config.kafka.brokers.as_str(), config.kafka.client_id.as_str()),
        ("file:1", "file")
    );

    let case = case().file(file).set("ORDERFLOW__KAFKA__BROKERS", "variable:1");
    assert_eq!(case.loaded().kafka.brokers, "variable:1");
    let case = case.set("KAFKA_BROKERS", "name:1");
    assert_eq!(case.loaded().kafka.brokers, "name:1");
    let case = case.flag("--brokers", "kafka.brokers", "flag:1");
    assert_eq!(case.loaded().kafka.brokers, "flag:1");
    assert_eq!(case.loaded().kafka.client_id, "file");
    assert_eq!(case.load().unwrap().shell.log.level, "warn");
}

#[test]
fn variables_are_read_as_the_type_of_their_key() {
    let fraud = case()
        .set("ORDERFLOW__FRAUD__SCORE_MIN", "7")
        .set("ORDERFLOW__FRAUD__SHARE", "0.25")
        .set("ORDERFLOW__FRAUD__ENABLED", "off")
        .set("ORDERFLOW__FRAUD__EXEMPT", "FR, DE")
        .set("ORDERFLOW__FRAUD__RISK", "high")
        .set("ORDERFLOW__FRAUD__LIMITS__JPY", "0045000")
        .set("ORDERFLOW__FRAUD__WINDOW_MS", "60000")
        .loaded()
        .fraud;
    assert_eq!(
        (fraud.score_min, fraud.share, fraud.enabled, fraud.risk),
        (7, 0.25, false, Risk::High)
    );
    assert_eq!(fraud.exempt, ["FR", "DE"]);
    assert_eq!(fraud.window_ms, Some(60_000));
    // A table is laid over its default, and text stays as it is written.
    let limits: Vec<_> = fraud
        .limits
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(limits, [("JPY", "0045000"), ("USD", "300")]);
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let config = case()
        .set("KAFKA_BROKERS", "")
        .set("ORDERFLOW__KAFKA__CLIENT_ID", "")
        .loaded();
    assert_eq!(config, Config::default());
}

#[test]
fn sections_and_names_of_other_services_are_passed_over() {
    let config = case()
        .file("[report]\nlisten = 5\n[store.couchbase]\nhost = 1\n")
        .set("ORDERFLOW__REPORT__LISTEN", "x")
        .set("COUCHBASE_PASSWORD", "x")
        .set("MAX_RETRIES", "many")
        .loaded();
    assert_eq!(config, Config::default());
}

#[test]
fn a_secret_is_read_from_a_file_without_its_line_end() {
    let case = case();
    let path = case.write("secret", "s3cr3t \n").display().to_string();
    for name in ["KAFKA_API_SECRET_FILE", "ORDERFLOW__KAFKA__API_SECRET_FILE"] {
        let environment: Environment = [(name, path.as_str())].into_iter().collect();
        let kafka = load::<Config>(None, &environment, &[]).unwrap().settings.kafka;
        assert_eq!(kafka.api_secret, Some(Secret("s3cr3t ".to_owned())), "{name}");
    }
    let kafka = case
        .file(&format!("[kafka]\napi_secret_file = \"{path}\"\n"))
        .loaded()
        .kafka;
    assert_eq!(kafka.api_secret, Some(Secret("s3cr3t ".to_owned())));
}

#[test]
fn a_key_that_ends_with_file_is_not_taken_for_the_file_of_another_key() {
    let case = case().set("ORDERFLOW__KAFKA__CA_FILE", "/ca.pem");
    assert_eq!(case.loaded().kafka.ca_file.as_deref(), Some("/ca.pem"));
}

#[test]
fn a_default_secret_survives_the_round_trip_through_its_redacted_form() {
    assert_eq!(
        case().set("KAFKA_CLIENT_ID", "x").loaded().fraud.salt_secret,
        Secret("default salt".to_owned())
    );
}

#[test]
fn lists_of_tables_are_read() {
    let config = case()
        .file("[[fraud.rules]]\nname = \"a\"\nweight = 3\n")
        .loaded();
    assert_eq!(
        config.fraud.rules,
        [Rule {
            name: "a".to_owned(),
            weight: 3
        }]
    );
}

#[test]
fn an_unknown_key_names_the_nearest_one_and_its_line() {
    assert_eq!(
        case()
            .file("[log]\nlevel = \"info\"\n\n[kafka]\nbrokrs = \"x:1\"\n")
            .refused(),
        "configuration refused, 1 problem:\n  \
         orders.toml:5: `kafka.brokrs` is not a known key, did you mean `kafka.brokers`?"
    );
    assert_eq!(
        case().set("ORDERFLOW__KAFKA__BROKER", "x:1").refused(),
        "configuration refused, 1 problem:\n  ORDERFLOW__KAFKA__BROKER: `kafka.broker` is not a known key, \
         did you mean `ORDERFLOW__KAFKA__BROKERS`?"
    );
    let nearest = |line: &str| {
        let text = case().file(&format!("[fraud]\n{line}\n")).refused();
        text.rsplit_once("did you mean ").unwrap().1.to_owned()
    };
    assert_eq!(nearest("score = 1"), "`fraud.score_min`?");
    assert_eq!(nearest("client_idd = 1"), "`kafka.client_id`?");
    assert_eq!(
        case().file("[kafak]\nbrokers = \"x:1\"\n").refused(),
        "configuration refused, 1 problem:\n  \
         orders.toml:1: `kafak` is not a known section, did you mean `kafka`?"
    );
    assert_eq!(
        case().file("[kafka]\nzzzz = 1\n").refused(),
        "configuration refused, 1 problem:\n  orders.toml:2: `kafka.zzzz` is not a known key, \
         the keys here are `api_key`, `api_secret`, `brokers`, `ca_file`, `client_id`"
    );
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    let refused = |line: &str| {
        let text = case().file(&format!("[fraud]\n{line}\n")).refused();
        text.strip_prefix("configuration refused, 1 problem:\n  orders.toml:2: ")
            .unwrap()
            .to_owned()
    };
    for (line, expected) in [
        (
            "score_min = \"many\"",
            "`fraud.score_min` is `many`, expected an integer from 0 to 255",
        ),
        (
            "score_min = 256",
            "`fraud.score_min` is `256`, expected an integer from 0 to 255",
        ),
        (
            "score_min = 1.7",
            "`fraud.score_min` is `1.7`, expected an integer from 0 to 255",
        ),
        (
            "score_min = true",
            "`fraud.score_min` is `true`, expected an integer from 0 to 255",
        ),
        (
            "window_ms = 1.7",
            "`fraud.window_ms` is `1.7`, expected an integer from 0 to 18446744073709551615",
        ),
        ("share = \"half\"", "`fraud.share` is `half`, expected a number"),
        (
            "enabled = \"maybe\"",
            "`fraud.enabled` is `maybe`, expected `true` or `false`",
        ),
        ("exempt = 5", "`fraud.exempt` is `5`, expected a list"),
        (
            "exempt = [\"US\", 5]",
            "`fraud.exempt[1]` is `5`, expected text in quotes",
        ),
        (
            "risk = \"none\"",
            "`fraud.risk` is `none`, expected `low` or `high`",
        ),
        ("limits = 300", "`fraud.limits` is `300`, expected a table"),
        (
            "limits.EUR = 300",
            "`fraud.limits.EUR` is `300`, expected text in quotes",
        ),
        (
            "limits.EUR = \"abc\"",
            "`fraud.limits.EUR` is `abc`, must be a decimal number",
        ),
        (
            "score_min = {}",
            "`fraud.score_min` is a table, expected an integer from 0 to 255",
        ),
        (
            "rules = [{name = \"a\"}]",
            "`fraud.rules[0]` lacks the key `weight`",
        ),
    ] {
        assert_eq!(refused(line), expected, "{line}");
    }
}

#[test]
fn the_value_of_a_secret_is_never_shown() {
    let text = case().file("[kafka]\napi_secret = 12345678\n").refused();
    assert_eq!(
        text,
        "configuration refused, 1 problem:\n  orders.toml:2: `kafka.api_secret` has a value that is not shown, \
         expected text in quotes"
    );
    let text = case()
        .file("[kafka]\napi_secret = \"hunter2\nbrokers = \"x:1\"\n")
        .refused();
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn two_names_for_the_brokers_must_agree() {
    let case = case()
        .set("KAFKA_BROKERS", "one:9092")
        .set("KAFKA_BOOTSTRAP_SERVERS", "two:9092");
    assert_eq!(
        case.refused(),
        "configuration refused, 1 problem:\n  KAFKA_BOOTSTRAP_SERVERS: `KAFKA_BROKERS` and \
         `KAFKA_BOOTSTRAP_SERVERS` both set `kafka.brokers` and differ, unset one of them"
    );
    let same = self::case()
        .set("KAFKA_BROKERS", "one:9092")
        .set("KAFKA_BOOTSTRAP_SERVERS", "one:9092");
    assert_eq!(same.loaded().kafka.brokers, "one:9092");
}

#[test]
fn a_name_and_its_file_exclude_each_other_and_the_file_must_be_readable() {
    assert_eq!(
        case()
            .set("KAFKA_API_SECRET", "x")
            .set("KAFKA_API_SECRET_FILE", "/y")
            .refused(),
        "configuration refused, 1 problem:\n  KAFKA_API_SECRET_FILE: `KAFKA_API_SECRET` and \
         `KAFKA_API_SECRET_FILE` are both set, unset one of them"
    );
    assert_eq!(
        case().set("KAFKA_API_SECRET_FILE", "/no/such/file").refused(),
        "configuration refused, 1 problem:\n  KAFKA_API_SECRET_FILE: can not read `/no/such/file`: \
         No such file or directory (os error 2)"
    );
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let text = case()
        .file(
            "[kafka]\nbrokrs = \"x:1\"\n\n[fraud]\nscore_min = \"many\"\nenabled = 3\n\n[fruad]\n\n[log]\n\
             format = \"xml\"\n",
        )
        .set("ORDERFLOW__FRAUD__SHARE", "half")
        .set("ORDERFLOW__FRAUD__LIMITS__JPY", "a lot")
        .set("ORDERFLOW__SERVICE__INSTANCE", "a b")
        .set("KAFKA_BROKERS", "one:1")
        .set("KAFKA_BOOTSTRAP_SERVERS", "two:1")
        .refused();
    assert_eq!(
        text,
        "configuration refused, 9 problems:\n  \
         orders.toml:2: `kafka.brokrs` is not a known key, did you mean `kafka.brokers`?\n  \
         orders.toml:5: `fraud.score_min` is `many`, expected an integer from 0 to 255\n  \
         orders.toml:6: `fraud.enabled` is `3`, expected `true` or `false`\n  \
         orders.toml:8: `fruad` is not a known section, did you mean `fraud`?\n  \
         orders.toml:11: `log.format` is `xml`, expected `text` or `json`\n  \
         KAFKA_BOOTSTRAP_SERVERS: `KAFKA_BROKERS` and `KAFKA_BOOTSTRAP_SERVERS` both set `kafka.brokers` and \
         differ, unset one of them\n  \
         ORDERFLOW__FRAUD__LIMITS__JPY: `fraud.limits.JPY` is `a lot`, must be a decimal number\n  \
         ORDERFLOW__FRAUD__SHARE: `fraud.share` is `half`, expected a number\n  \
         ORDERFLOW__SERVICE__INSTANCE: `service.instance` is `a b`, must be 1 to 100 letters, digits, dots, \
         dashes or underscores"
    );
}

#[test]
fn broken_toml_is_reported_with_its_line_beside_other_problems() {
    let text = case()
        .file("[kafka]\nbrokers = \n[fraud\n")
        .set("ORDERFLOW__KAFKA__BROKRS", "x")
        .refused();
    assert!(text.starts_with("configuration refused, "), "{text}");
    for part in [
        "orders.toml:2: not valid TOML: ",
        "orders.toml:3: not valid TOML: ",
        "ORDERFLOW__KAFKA__BROKRS: ",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let mut case = case();
    case.file = Some(case.folder.path().join("absent.toml"));
    assert_eq!(
        case.refused(),
        "configuration refused, 1 problem:\n  --config: can not read `absent.toml`: No such file or directory \
         (os error 2)"
    );
}

#[test]
fn a_flag_with_a_wrong_value_names_the_flag() {
    assert_eq!(
        case().flag("--score", "fraud.score_min", "x").refused(),
        "configuration refused, 1 problem:\n  --score: `fraud.score_min` is `x`, expected an integer from 0 to 255"
    );
}
