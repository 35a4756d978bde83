//! The keys there are, their defaults, and how each text becomes a value. Not here: where a text came from
//! (`layers`). Invariant: a key that is accepted has an effect; what this version does not do is refused.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use orloj_domain::id::{QueueName, RunnerId};
use orloj_domain::manifest::parse_duration;
use orloj_domain::runner::{LABEL_RULE, is_label_text};
use orloj_domain::shard::ShardCount;

use super::layers::{Merged, Values};
use super::{Complaint, Config, ConfigError, KafkaTargetConfig, LogFormat};

/// Every key but `kafka.*` and `runner.kafka.*`, with its default.
pub(super) const KEYS: &[(&str, Option<&str>)] = &[
    ("topics.prefix", Some("orloj.")),
    ("shards", Some("32")),
    ("listen", Some("127.0.0.1:1410")),
    ("data.dir", Some("orloj-data")),
    ("clock.jumpMax", Some("60s")),
    ("runner.queues", Some("default")),
    ("runner.slots", Some("16")),
    ("runner.lease", Some("15s")),
    ("runner.id", None),
    ("runner.drainTimeout", Some("30s")),
    ("runner.http.allow", Some("")),
    ("runner.callbackUrl", None),
    ("runner.secretsDir", None),
    ("runner.cgroups", Some("true")),
    ("runner.user", None),
    ("runner.labels", Some("")),
    ("log.format", Some("text")),
    ("otel.endpoint", None),
];

/// Variables that start with `ORLOJ_` and are no configuration: of the CLI, of attempts, of tests.
const OTHER_VARIABLES: &[&str] = &[
    "SERVER",
    "TOKEN",
    "NAMESPACE",
    "LOG",
    "CONFIG",
    "RUN_ID",
    "ATTEMPT",
    "FENCING_TOKEN",
    "FIRE_TIME",
    "JOB",
    "SESSION",
    "PROGRESS_FD",
];
const OTHER_VARIABLE_PREFIXES: &[&str] = &["PARAM_", "SECRET_", "TEST_", "SERVICE_", "PORT"];

/// Shortest lease: several heartbeats must fit, or a hiccup of the log would end attempts.
const LEASE_MIN: Duration = Duration::from_secs(2);
const LEASE_MAX: Duration = orloj_domain::lease::LEASE_MAX;
/// A clock that is put right by less than a second is no news, and a day is no jump that anybody wants to believe.
const CLOCK_JUMP_MIN: Duration = Duration::from_secs(1);
const CLOCK_JUMP_MAX: Duration = Duration::from_secs(24 * 3600);
const DRAIN_MAX: Duration = Duration::from_secs(24 * 3600);
const SLOTS_MAX: u16 = 10_000;
const WEIGHT_MAX: u16 = 1000;
/// They are in every heartbeat.
const LABELS_MAX: usize = 32;

pub(super) fn is_known(key: &str) -> bool {
    key.strip_prefix("kafka.").map_or_else(
        || KEYS.iter().any(|(known, _)| *known == key) || target_cluster(key).is_some(),
        |property| !property.is_empty(),
    )
}

/// Cluster and property of a key `runner.kafka.<cluster>.<property>`.
pub(super) fn target_cluster(key: &str) -> Option<(&str, &str)> {
    let (cluster, property) = key.strip_prefix("runner.kafka.")?.split_once('.')?;
    (!cluster.is_empty() && !property.is_empty()).then_some((cluster, property))
}

/// The clusters of `kafka` targets. `default` is the log's own unless it names another.
fn target_clusters(
    values: &Values,
    own: &BTreeMap<String, String>,
) -> (BTreeMap<String, KafkaTargetConfig>, Vec<Complaint>) {
    let mut complaints = Vec::new();
    let mut clusters: BTreeMap<String, KafkaTargetConfig> = BTreeMap::new();
    for (key, (value, origin)) in values {
        let Some((name, property)) = target_cluster(key) else { continue };
        let cluster = clusters.entry(name.to_owned()).or_default();
        if property != "topics" {
            cluster.properties.insert(property.to_owned(), value.clone());
            continue;
        }
        cluster.topics = value.split(',').map(|topic| topic.trim().to_owned()).collect();
        let is_allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
        let is_good =
            |topic: &String| !topic.is_empty() && topic.strip_suffix('*').unwrap_or(topic).chars().all(is_allowed);
        if let Some(topic) = cluster.topics.iter().find(|topic| !is_good(topic)) {
            let message = format!("has `{topic}`; write names of topics, as in `invoices.due,orders.*`");
            complaints.push(Complaint { origin: origin.clone(), key: key.clone(), message });
        }
    }
    if let Some(cluster) = clusters.get_mut("default").filter(|one| !one.properties.contains_key("bootstrap.servers")) {
        let given = std::mem::take(&mut cluster.properties);
        cluster.properties = own.clone();
        cluster.properties.extend(given);
    }
    (clusters, complaints)
}

pub(super) fn is_other_variable(rest: &str) -> bool {
    OTHER_VARIABLES.contains(&rest) || OTHER_VARIABLE_PREFIXES.iter().any(|prefix| rest.starts_with(prefix))
}

/// True for keys whose value is shown to nobody.
pub(super) fn is_secret(key: &str) -> bool {
    const WORDS: &[&str] = &["password", "secret", "token", "jaas", "key.pem", "oauthbearer.config", "credentials"];
    let key = key.to_ascii_lowercase();
    // `...oauthbearer.token.endpoint.url` is an address, and worth seeing.
    !key.ends_with(".url") && !key.ends_with("dir") && WORDS.iter().any(|word| key.contains(word))
}

/// The value as TOML: numbers bare, lists as lists, all else quoted.
pub(super) fn toml_text(key: &str, value: &str) -> String {
    match key {
        "shards" | "runner.slots" => value.to_owned(),
        "runner.queues" | "runner.http.allow" | "runner.labels" => {
            toml::Value::from(value.split(',').map(str::trim).collect::<Vec<_>>()).to_string()
        }
        _ => toml::Value::from(value).to_string(),
    }
}

/// The known key that a wrong one was probably meant to be.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['.', '_', '-'], "");
    KEYS.iter()
        .map(|(known, _)| (distance(&plain(known), &plain(key)), *known))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, left_char) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 1..=right.len() {
            let substituted = diagonal + usize::from(left_char != right[column - 1]);
            diagonal = row[column];
            row[column] = substituted.min(row[column] + 1).min(row[column - 1] + 1);
        }
    }
    row[right.len()]
}

struct Reader {
    values: Values,
    complaints: Vec<Complaint>,
}

impl Reader {
    /// Reads the value of a key; a refused one is complained about and gives nothing.
    fn read<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (text, origin) = self.values.get(key)?;
        match parse(text.trim()) {
            Ok(value) => Some(value),
            Err(message) => {
                let complaint = Complaint { origin: origin.clone(), key: key.to_owned(), message };
                self.complaints.push(complaint);
                None
            }
        }
    }
}

pub(super) fn read(merged: Merged) -> Result<Config, ConfigError> {
    let mut reader = Reader { values: merged.values, complaints: Vec::new() };
    let kafka: BTreeMap<String, String> = reader
        .values
        .iter()
        .filter_map(|(key, (value, _))| key.strip_prefix("kafka.").map(|property| (property.to_owned(), value.clone())))
        .collect();
    let topics_prefix = reader.read("topics.prefix", topics_prefix);
    let shards = reader.read("shards", shards);
    let listen = reader.read("listen", |text| {
        text.parse().map_err(|_| format!("is `{text}`, no address; write for example `127.0.0.1:1410`"))
    });
    let data_dir = reader.read("data.dir", |text| non_empty(text).map(Into::into));
    let clock_jump_max = reader.read("clock.jumpMax", |text| duration(text, CLOCK_JUMP_MIN, CLOCK_JUMP_MAX));
    let (runner_queues, runner_queue_weights) = reader.read("runner.queues", queues).unzip();
    let runner_slots = reader.read("runner.slots", slots);
    let runner_lease = reader.read("runner.lease", |text| duration(text, LEASE_MIN, LEASE_MAX));
    let runner_id = reader.read("runner.id", |text| RunnerId::new(text).map_err(|error| error.to_string()));
    let runner_drain_timeout = reader.read("runner.drainTimeout", |text| duration(text, Duration::ZERO, DRAIN_MAX));
    let runner_http_allow = reader.read("runner.http.allow", http_allow);
    let runner_callback_url = reader.read("runner.callbackUrl", callback_url);
    let runner_secrets_dir = reader.read("runner.secretsDir", |text| non_empty(text).map(Into::into));
    let (runner_kafka, complaints) = target_clusters(&reader.values, &kafka);
    reader.complaints.extend(complaints);
    let runner_cgroups = reader.read("runner.cgroups", |text| {
        text.parse::<bool>().map_err(|_| format!("is `{text}`; write `true` or `false`"))
    });
    let runner_user = reader.read("runner.user", |text| non_empty(text).map(str::to_owned));
    let runner_labels = reader.read("runner.labels", labels);
    let log_format = reader.read("log.format", log_format);
    reader.read::<()>("otel.endpoint", |_| {
        Err("is not available in this version; remove it, and scrape `/metrics` instead".to_owned())
    });
    let complete = (|| {
        Some(Config {
            kafka,
            topics_prefix: topics_prefix?,
            shards: shards?,
            listen: listen?,
            data_dir: data_dir?,
            clock_jump_max: clock_jump_max?,
            runner_queues: runner_queues?,
            runner_queue_weights: runner_queue_weights?,
            runner_slots: runner_slots?,
            runner_lease: runner_lease?,
            runner_id,
            runner_drain_timeout: runner_drain_timeout?,
            runner_http_allow: runner_http_allow?,
            runner_callback_url,
            runner_secrets_dir,
            runner_kafka,
            runner_cgroups: runner_cgroups?,
            runner_user,
            runner_labels: runner_labels?,
            log_format: log_format?,
            values: reader.values,
            unknown_variables: merged.unknown_variables,
        })
    })();
    match complete {
        Some(config) if reader.complaints.is_empty() => Ok(config),
        Some(_) | None => Err(ConfigError(reader.complaints)),
    }
}

fn non_empty(text: &str) -> Result<&str, String> {
    if text.is_empty() { Err("is empty; write a value or remove it".to_owned()) } else { Ok(text) }
}

fn topics_prefix(text: &str) -> Result<String, String> {
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    if text.len() <= 100 && text.chars().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!("is `{text}`; use at most 100 letters, digits, `.`, `_` and `-`, as Kafka's topics have them"))
    }
}

fn shards(text: &str) -> Result<ShardCount, String> {
    let complaint =
        || format!("is `{text}`; write a number from 1 to 4096, and keep it for the life of the installation");
    text.parse().ok().and_then(ShardCount::new).ok_or_else(complaint)
}

/// Names in order, and the weights of those that do not weigh 1.
type Queues = (Vec<QueueName>, BTreeMap<QueueName, u16>);

fn queues(text: &str) -> Result<Queues, String> {
    let (mut names, mut weights) = (Vec::new(), BTreeMap::new());
    for entry in text.split(',').map(str::trim) {
        let (name, weight) = match entry.split_once('=') {
            Some((name, weight)) => (name.trim(), Some(weight.trim())),
            None => (entry, None),
        };
        let name = QueueName::new(name).map_err(|error| error.to_string())?;
        if names.contains(&name) {
            return Err(format!("names `{name}` twice; write it once"));
        }
        if let Some(text) = weight {
            let weight = text.parse().ok().filter(|weight| (1..=WEIGHT_MAX).contains(weight)).ok_or_else(|| {
                format!(
                    "gives `{name}` the weight `{text}`; write a whole number from 1 to {WEIGHT_MAX}, as in `{name}=3`"
                )
            })?;
            if weight != 1 {
                weights.insert(name.clone(), weight);
            }
        }
        names.push(name);
    }
    names.sort();
    Ok((names, weights))
}

fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let pair = entry.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let Some((name, value)) =
            pair.filter(|(name, value)| !name.is_empty() && is_label_text(name) && is_label_text(value))
        else {
            return Err(format!("has `{entry}`; write `name=value`, each of {LABEL_RULE}, as in `zone=eu-1`"));
        };
        if labels.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("names `{name}` twice; write it once"));
        }
    }
    if labels.len() > LABELS_MAX {
        return Err(format!("has {} labels; write at most {LABELS_MAX}", labels.len()));
    }
    Ok(labels)
}

fn http_allow(text: &str) -> Result<Vec<String>, String> {
    let entries: Vec<String> =
        text.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect();
    let is_allowed =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | ':' | '/' | '-' | '_');
    match entries.iter().find(|entry| !entry.chars().all(is_allowed)) {
        Some(entry) => {
            Err(format!("has `{entry}`; write networks, addresses and hosts, as in `10.0.0.0/8,billing.internal`"))
        }
        None => Ok(entries),
    }
}

fn callback_url(text: &str) -> Result<String, String> {
    let complaint = |what: &str| {
        Err(format!("is `{text}`, {what}; write where targets reach the API, as in `https://orloj.example.com`"))
    };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else { return complaint("which begins with neither https:// nor http://") };
    if rest.split('/').next().unwrap_or_default().is_empty() {
        return complaint("which names no host");
    }
    if !rest.chars().all(|character| character.is_ascii_graphic() && !matches!(character, '?' | '#' | '@')) {
        return complaint("which holds a user, a query, a blank or another character that no such URL has");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn slots(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|slots| (1..=SLOTS_MAX).contains(slots))
        .ok_or_else(|| format!("is `{text}`; write how many attempts may run at once, from 1 to {SLOTS_MAX}"))
}

fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|message| format!("is `{text}`, which {message}"))?;
    if (min..=max).contains(&duration) {
        return Ok(duration);
    }
    let shown: [&dyn Display; 2] = [&min.as_secs(), &max.as_secs()];
    Err(format!("is `{text}`; write {}s to {}s", shown[0], shown[1]))
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("is `{other}`; write `text` or `json`")),
    }
}
