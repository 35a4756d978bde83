//! The layers of a configuration and how they are laid over each other, still as text by key. Not here: which
//! values are allowed (`keys`). Invariant: each value remembers the flag, variable or line it came from.

use std::collections::BTreeMap;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS};
use super::{Complaint, ConfigError};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of a file.
    File {
        /// The file.
        name: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What a configuration is put together from.
#[derive(Debug, Clone, Default)]
pub struct Layers<'a> {
    /// Values that replace the built-in defaults, by key.
    pub defaults: Vec<(&'a str, String)>,
    /// Name and text of the file.
    pub file: Option<(&'a str, &'a str)>,
    /// All variables of the environment; only those that start with `ORLOJ_` count.
    pub environment: Vec<(String, String)>,
    /// The flag as it is called, the key it sets, and the value.
    pub flags: Vec<(String, String, String)>,
}

/// Values as text with their origins, by key.
pub(super) type Values = BTreeMap<String, (String, Origin)>;

pub(super) struct Merged {
    pub(super) values: Values,
    pub(super) unknown_variables: Vec<String>,
}

pub(super) fn merge(layers: &Layers<'_>) -> Result<Merged, ConfigError> {
    let mut complaints = Vec::new();
    let mut values = Values::new();
    for (key, default) in KEYS {
        if let Some(default) = default {
            values.insert((*key).to_owned(), ((*default).to_owned(), Origin::Default));
        }
    }
    for (key, value) in &layers.defaults {
        values.insert((*key).to_owned(), (value.clone(), Origin::Default));
    }
    if let Some((name, text)) = layers.file {
        file_values(name, text, &mut values, &mut complaints);
    }
    let unknown_variables = environment_values(&layers.environment, &mut values);
    for (flag, key, value) in &layers.flags {
        let origin = Origin::Flag(flag.clone());
        if keys::is_known(key) {
            values.insert(key.clone(), (value.clone(), origin));
        } else {
            complaints.push(unknown(origin, key));
        }
    }
    if complaints.is_empty() { Ok(Merged { values, unknown_variables }) } else { Err(ConfigError(complaints)) }
}

fn unknown(origin: Origin, key: &str) -> Complaint {
    let message = match keys::nearest(key) {
        Some(near) => format!("is no key; did you mean `{near}`?"),
        None => "is no key; `orloj serve --print-config` shows all that are".to_owned(),
    };
    Complaint { origin, key: key.to_owned(), message }
}

fn file_values(name: &str, text: &str, values: &mut Values, complaints: &mut Vec<Complaint>) {
    let line_of = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
    match DeTable::parse(text) {
        Ok(table) => {
            let mut flat = Vec::new();
            flatten("", table.get_ref(), &mut flat);
            for (key, value, at) in flat {
                let origin = Origin::File { name: name.to_owned(), line: line_of(at) };
                if !keys::is_known(&key) {
                    complaints.push(unknown(origin, &key));
                } else if let Some(value) = scalar_text(value) {
                    values.insert(key, (value, origin));
                } else {
                    let message = "takes a text, a number, true or false, or a list of texts".to_owned();
                    complaints.push(Complaint { origin, key, message });
                }
            }
        }
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(span.start));
            let origin = Origin::File { name: name.to_owned(), line };
            complaints.push(Complaint { origin, key: String::new(), message: error.message().to_owned() });
        }
    }
}

/// Dotted keys of all values, so that `[kafka]`, `kafka.bootstrap.servers` and quoted names mean the same.
fn flatten<'a, 'text>(prefix: &str, table: &'a DeTable<'text>, flat: &mut Vec<(String, &'a DeValue<'text>, usize)>) {
    for (name, value) in table {
        let name_text = name.get_ref();
        let key = if prefix.is_empty() { name_text.to_string() } else { format!("{prefix}.{name_text}") };
        match value.get_ref().as_table() {
            Some(inner) => flatten(&key, inner, flat),
            None => flat.push((key, value.get_ref(), name.span().start)),
        }
    }
}

fn scalar_text(value: &DeValue<'_>) -> Option<String> {
    if let Some(items) = value.as_array() {
        let texts: Option<Vec<&str>> =
            items.iter().map(|item: &Spanned<DeValue<'_>>| item.get_ref().as_str()).collect();
        return texts.map(|texts| texts.join(","));
    }
    value
        .as_str()
        .map(str::to_owned)
        .or_else(|| value.as_bool().map(|value| value.to_string()))
        .or_else(|| value.as_integer().map(|number| number.as_str().to_owned()))
        .or_else(|| value.as_float().map(|number| number.as_str().to_owned()))
}

/// Takes `ORLOJ_` + key with `.` as `_`, in the key's own spelling or in capitals. Returns what looks like ours
/// and is none: it is not refused, since Kubernetes sets `ORLOJ_PORT` and more for a service named `orloj`.
fn environment_values(environment: &[(String, String)], values: &mut Values) -> Vec<String> {
    let mut unknown = Vec::new();
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix("ORLOJ_") else { continue };
        let origin = Origin::Variable(name.clone());
        if let Some((key, _)) = KEYS.iter().find(|(key, _)| key.replace('.', "_").eq_ignore_ascii_case(rest)) {
            values.insert((*key).to_owned(), (value.clone(), origin));
        } else if let Some(property) = rest.get(6..).filter(|_| rest[..6].eq_ignore_ascii_case("kafka_")) {
            let key = format!("kafka.{}", property.to_ascii_lowercase().replace('_', "."));
            values.insert(key, (value.clone(), origin));
        } else if let Some(key) = target_key(rest) {
            values.insert(key, (value.clone(), origin));
        } else if !keys::is_other_variable(rest) {
            unknown.push(name.clone());
        }
    }
    unknown
}

/// `RUNNER_KAFKA_<CLUSTER>_<PROPERTY>` as a key; the cluster's name is its first word, in small letters.
fn target_key(rest: &str) -> Option<String> {
    const BEGINNING: &str = "runner_kafka_";
    let given = rest.get(..BEGINNING.len()).filter(|given| given.eq_ignore_ascii_case(BEGINNING))?;
    let (cluster, property) = rest[given.len()..].split_once('_')?;
    let key =
        format!("runner.kafka.{}.{}", cluster.to_ascii_lowercase(), property.to_ascii_lowercase().replace('_', "."));
    keys::is_known(&key).then_some(key)
}
