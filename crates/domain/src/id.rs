//! Identities: who a record is about. Every id is a newtype, so that a run can't be passed for a job.
//! Not here: where a record goes (`shard`, `topic`). Invariant: an id that exists is well-formed, and an id
//! that names an occurrence is a hash of what it names, so the same occurrence has the same id everywhere.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::time::Timestamp;

/// Longest namespace, name or queue name in bytes, inclusive (RFC 1123 labels).
pub const LABEL_BYTES_MAX: usize = 63;
/// Longest command id in bytes, inclusive.
pub const COMMAND_ID_BYTES_MAX: usize = 128;

/// A text that does not follow the rule of its id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a valid {what}: {rule}")]
pub struct IdError {
    /// What was expected, for example `job id`.
    pub what: &'static str,
    /// The offending text.
    pub value: String,
    /// The rule, in words that say how to mend the value.
    pub rule: &'static str,
}

const LABEL_RULE: &str = "use 1 to 63 lower-case letters, digits or `-`, starting and ending with a letter or digit";

/// Checks one DNS-1123 label (RFC 1123 section 2.1): 1..=63 of `a-z 0-9 -`, no `-` at either end.
///
/// # Errors
/// [`IdError`] that carries `what`, the value and the rule.
pub fn check_label(what: &'static str, value: &str) -> Result<(), IdError> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_valid = (1..=LABEL_BYTES_MAX).contains(&value.len())
        && value.bytes().all(is_inner)
        && !value.starts_with('-')
        && !value.ends_with('-');
    if is_valid { Ok(()) } else { Err(IdError { what, value: value.to_owned(), rule: LABEL_RULE }) }
}

/// `namespace/name` of a job; the key of every job-keyed topic. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Arc<str>);

impl JobId {
    /// Builds the id from its two labels.
    ///
    /// # Errors
    /// [`IdError`] when either is not a DNS-1123 label.
    pub fn new(namespace: &str, name: &str) -> Result<Self, IdError> {
        check_label("namespace", namespace)?;
        check_label("job name", name)?;
        Ok(Self(format!("{namespace}/{name}").into()))
    }

    /// The whole id, `namespace/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the slash.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The part after the slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl FromStr for JobId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (namespace, name) = text.split_once('/').ok_or_else(|| IdError {
            what: "job id",
            value: text.to_owned(),
            rule: "write `namespace/name`",
        })?;
        check_label("namespace", namespace)?;
        check_label("job name", name)?;
        Ok(Self(text.into()))
    }
}

impl Borrow<str> for JobId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

macro_rules! text_like {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Parsed(PhantomData))
            }
        }
    };
}
text_like!(JobId);

/// Reads an id from its text, wherever that stands.
struct Parsed<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes the text.
            ///
            /// # Errors
            /// [`IdError`] when the text breaks the rule of this id.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if text.is_empty() || text.len() > $max || !check(text) {
                    return Err(IdError { what: $what, value: text.to_owned(), rule: $rule });
                }
                Ok(Self(text.into()))
            }

            /// The text of the id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        text_like!($name);
    };
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

text_id!(
    /// Names a command once, chosen by its sender: the same id twice is the same command.
    CommandId, "command id", COMMAND_ID_BYTES_MAX, "use 1 to 128 printable characters", is_printable
);
text_id!(
    /// Name of the lane that runners subscribe to.
    QueueName, "queue", LABEL_BYTES_MAX,
    "use 1 to 63 lower-case letters, digits or `-`, starting and ending with a letter or digit",
    |text| check_label("queue", text).is_ok()
);
text_id!(
    /// Name of a calendar, unique in the installation.
    CalendarName, "calendar name", LABEL_BYTES_MAX,
    "use 1 to 63 lower-case letters, digits or `-`, starting and ending with a letter or digit",
    |text| check_label("calendar name", text).is_ok()
);
text_id!(
    /// Name of a shared limit, unique in the installation.
    LimitName, "limit name", LABEL_BYTES_MAX,
    "use 1 to 63 lower-case letters, digits or `-`, starting and ending with a letter or digit",
    |text| check_label("limit name", text).is_ok()
);
text_id!(
    /// What bounds runs of many jobs: `queue/NAME` or `limit/NAME`, as the key of its setting is.
    LimitId, "limit", 2 * LABEL_BYTES_MAX, "use `queue/NAME` or `limit/NAME`",
    |text| text.split_once('/').is_some_and(|(kind, name)| {
        matches!(kind, "queue" | "limit") && check_label("name", name).is_ok()
    })
);

impl LimitId {
    /// The bounds of a queue.
    #[must_use]
    pub fn of_queue(queue: &QueueName) -> Self {
        Self(format!("queue/{queue}").into())
    }

    /// A shared limit.
    #[must_use]
    pub fn of_limit(limit: &LimitName) -> Self {
        Self(format!("limit/{limit}").into())
    }

    /// True if it bounds a queue.
    #[must_use]
    pub fn is_of_queue(&self) -> bool {
        self.0.starts_with("queue/")
    }

    /// The name without its kind.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

text_id!(
    /// A host of HTTP targets as a limit names it: a name or an address in lower case, with or without a port.
    HttpHost, "host", 263,
    "write a host name in lower case, an IPv4 address, or an IPv6 address in brackets, and a port behind it if only that \
     is meant: `api.example.com` or `api.example.com:8443`; no scheme, no path",
    crate::limit::is_host
);

impl HttpHost {
    /// The host alone.
    #[must_use]
    pub fn without_port(&self) -> Self {
        match crate::limit::port_of(self.as_str()) {
            Some((host, _)) => Self(host.into()),
            None => self.clone(),
        }
    }
}

text_id!(
    /// One life of one service instance as an owner of shards; never comes back once it is gone.
    Incarnation, "incarnation", COMMAND_ID_BYTES_MAX, "use 1 to 128 printable characters", is_printable
);
text_id!(
    /// A runner process by name; it may have many sessions over time.
    RunnerId, "runner id", COMMAND_ID_BYTES_MAX, "use 1 to 128 printable characters", is_printable
);
text_id!(
    /// One life of one runner process: what a lease belongs to.
    SessionId, "session id", COMMAND_ID_BYTES_MAX, "use 1 to 128 printable characters", is_printable
);

impl Default for QueueName {
    /// The queue named `default`.
    fn default() -> Self {
        Self("default".into())
    }
}

/// Identity of one occurrence of a job: a version 8 UUID (RFC 9562 section 5.8) over a hash of what it names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(uuid::Uuid);

impl RunId {
    /// The run of a fire time: the same (job, version, fire time) gives the same id on every machine.
    #[must_use]
    pub fn of_fire_time(job: &JobId, version: i64, fire_time: Timestamp) -> Self {
        Self::of_hash(&[b"fire", job.as_str().as_bytes(), &version.to_be_bytes(), &fire_time.millis().to_be_bytes()])
    }

    /// The run of a command (run now): the same (job, command id) gives the same id.
    #[must_use]
    pub fn of_command(job: &JobId, command: &CommandId) -> Self {
        Self::of_hash(&[b"command", job.as_str().as_bytes(), command.as_str().as_bytes()])
    }

    /// The run of a past fire time that a backfill asks for: the same (job, command id, fire time) gives the same id.
    #[must_use]
    pub fn of_backfill(job: &JobId, command: &CommandId, fire_time: Timestamp) -> Self {
        let fire_time = fire_time.millis().to_be_bytes();
        Self::of_hash(&[b"backfill", job.as_str().as_bytes(), command.as_str().as_bytes(), &fire_time])
    }

    /// The id as a number.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// Sixty-four stable bits of the id, for offsets and spreads.
    #[must_use]
    pub fn hash64(self) -> u64 {
        // The last eight bytes but the two variant bits are plain hash.
        self.0.as_u64_pair().1 & 0x3fff_ffff_ffff_ffff
    }

    fn of_hash(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(part);
        }
        let hash = digest.finalize();
        let mut bytes = [0_u8; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl FromStr for RunId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        uuid::Uuid::parse_str(text).map(Self).map_err(|_| IdError {
            what: "run id",
            value: text.to_owned(),
            rule: "write a UUID, as `orloj runs` shows it",
        })
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = uuid::Uuid::encode_buffer();
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut buffer))
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_follow_rfc_1123() {
        for (text, is_valid) in [
            ("billing/nightly-invoice", true),
            ("a/b", true),
            ("a", false),
            ("a/B", false),
            ("-a/b", false),
            ("a/b-", false),
            ("a/b/c", false),
            ("/b", false),
            ("a/", false),
        ] {
            assert_eq!(text.parse::<JobId>().is_ok(), is_valid, "{text}");
        }
        let longest = "x".repeat(63);
        assert!(JobId::new(&longest, "b").is_ok());
        assert!(JobId::new(&format!("{longest}x"), "b").is_err());
    }

    #[test]
    fn run_ids_are_stable_and_distinct() {
        let job: JobId = "a/b".parse().expect("job");
        let time = Timestamp::from_millis(1_700_000_000_000);
        let id = RunId::of_fire_time(&job, 1, time);
        assert_eq!(id.to_string(), "f45e2938-0948-85f3-a66d-542bd5008ea8");
        assert_eq!(id, RunId::of_fire_time(&job, 1, time));
        assert_ne!(id, RunId::of_fire_time(&job, 2, time));
        assert_ne!(id, RunId::of_fire_time(&job, 1, Timestamp::from_millis(1_700_000_000_001)));
        assert_eq!(id, id.to_string().parse().expect("uuid"));
    }
}
