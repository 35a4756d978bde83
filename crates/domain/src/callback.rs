//! How a target says later how its attempt ended: the attempt's name, the token that proves it was asked, and the token's
//! digest, which is all that others see. Not here: where tokens come from (runner), who compares them (query).
//! Invariant: a token stands in no debug print and in no record.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::id::{IdError, RunId};

/// Shortest token in characters: 128 bits in hexadecimal.
pub const TOKEN_CHARACTERS_MIN: usize = 32;
/// Longest token in characters; a longer one is nobody's.
pub const TOKEN_CHARACTERS_MAX: usize = 256;

/// Names an attempt: `<run id>.<attempt>`, the attempt numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The run.
    pub run_id: RunId,
    /// The attempt, numbered from 1.
    pub attempt: i32,
}

impl AttemptId {
    /// Path of the API to which the end of the attempt is sent.
    #[must_use]
    pub fn callback_path(self) -> String {
        format!("/api/v1/attempts/{self}/complete")
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run_id, self.attempt)
    }
}

impl FromStr for AttemptId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let read = || {
            let (run, attempt) = text.split_once('.')?;
            let is_number = attempt.bytes().all(|byte| byte.is_ascii_digit());
            let attempt = attempt.parse().ok().filter(|attempt| is_number && *attempt >= 1)?;
            Some(Self { run_id: run.parse().ok()?, attempt })
        };
        read().ok_or_else(|| IdError {
            what: "attempt id",
            value: text.to_owned(),
            rule: "write `<run id>.<attempt>`, as the header `Orloj-Attempt-Id` of the request has it",
        })
    }
}

/// What a target shows to complete its attempt. Whoever has it may.
#[derive(Clone)]
pub struct CallbackToken(String);

impl CallbackToken {
    /// Takes the text of a token; `None` if it is too short or too long to be one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_possible = (TOKEN_CHARACTERS_MIN..=TOKEN_CHARACTERS_MAX).contains(&text.chars().count());
        is_possible.then(|| Self(text.to_owned()))
    }

    /// The text, for the one request that carries it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What others may see of it.
    #[must_use]
    pub fn digest(&self) -> CallbackDigest {
        let mut hasher = Sha256::new();
        hasher.update(self.0.as_bytes());
        let mut bytes = [0_u8; 32];
        bytes.copy_from_slice(&hasher.finalize());
        CallbackDigest(bytes)
    }
}

impl fmt::Debug for CallbackToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallbackToken(hidden)")
    }
}

/// SHA-256 of a token; 64 lower-case hexadecimal digits as text.
#[derive(Clone, Copy)]
pub struct CallbackDigest([u8; 32]);

impl CallbackDigest {
    /// True if both are of the same token. Takes as long whichever byte differs first.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |found, (left, right)| found | (left ^ right));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Display for CallbackDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CallbackDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CallbackDigest {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError {
            what: "callback digest",
            value: text.chars().take(64).collect(),
            rule: "use 64 hexadecimal digits",
        };
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(error());
        }
        let mut bytes = [0_u8; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| error())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09";

    #[test]
    fn attempts_are_named_by_run_and_number() {
        let id: AttemptId = format!("{RUN}.12").parse().expect("an attempt");
        assert_eq!((id.run_id.to_string().as_str(), id.attempt), (RUN, 12));
        assert_eq!(id.callback_path(), format!("/api/v1/attempts/{RUN}.12/complete"));
        for text in [RUN, "", ".1", "x.1", &format!("{RUN}.0"), &format!("{RUN}.+1"), &format!("{RUN}.1.1")] {
            assert!(text.parse::<AttemptId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_is_known_by_its_digest_alone() {
        let token = CallbackToken::new(&"ab".repeat(16)).expect("long enough");
        let digest = token.digest();
        let text = digest.to_string();
        // As `sha256sum` has it.
        assert_eq!(text, "d2f9fa9d99bb30b2b67fc6b0ea2694f345c0961596e0fd82561010b4f7570c2d");
        assert!(digest.is_same(&text.parse().expect("a digest")));
        assert!(!digest.is_same(&CallbackToken::new(&"ba".repeat(16)).expect("long enough").digest()));
        assert!(!format!("{token:?}").contains("abab"));
        for text in ["", "0a", &"g".repeat(64), &"é".repeat(32)] {
            assert!(text.parse::<CallbackDigest>().is_err(), "{text}");
        }
        assert!(CallbackToken::new("short").is_none() && CallbackToken::new(&"x".repeat(257)).is_none());
    }
}
