//! What a request carries so that its target, or whoever it hands the token to, can say later how the attempt ended. Not
//! here: who hears that (`query`) and passes it on (`dispatcher`). Invariant: each attempt has a token of its own, which
//! leaves the runner in its request alone, whatever the target answers.

use orloj_domain::attempt::Outcome;
use orloj_domain::callback::{AttemptId, CallbackDigest, CallbackToken};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::template::AttemptFacts;

/// What ends an attempt from outside.
pub(crate) struct Ends<A> {
    /// It is to stop.
    pub(crate) abort: A,
    /// Its callback has said how it ended.
    pub(crate) completed: oneshot::Receiver<Outcome>,
}

/// The end that a callback says; never if none comes.
pub(crate) async fn completion(completed: oneshot::Receiver<Outcome>) -> Outcome {
    match completed.await {
        Ok(outcome) => outcome,
        // Told to stop: nothing more can come.
        Err(_) => std::future::pending().await,
    }
}

/// How the target of one attempt calls back.
#[derive(Debug)]
pub(crate) struct Callback {
    id: AttemptId,
    token: CallbackToken,
}

impl Callback {
    /// With a token that nobody can guess.
    pub(crate) fn new(facts: &AttemptFacts) -> Self {
        // Random bits of the system, 122 in each half.
        let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        // Sixty-four characters are neither too few nor too many; were they, no attempt could have a callback at all.
        let token = CallbackToken::new(&token).expect("two UUIDs are a token");
        Self { id: AttemptId { run_id: facts.run_id, attempt: facts.attempt }, token }
    }

    /// What others may see of the token.
    pub(crate) fn digest(&self) -> CallbackDigest {
        self.token.digest()
    }

    /// The headers that tell the target where to call back and with what; true for the one that is secret. `base` is where
    /// targets reach the API, if that is configured.
    pub(crate) fn headers(&self, base: Option<&str>) -> Vec<(&'static str, String, bool)> {
        let path = self.id.callback_path();
        let mut headers = vec![
            ("Orloj-Attempt-Id", self.id.to_string(), false),
            ("Orloj-Callback-Token", self.token.reveal().to_owned(), true),
        ];
        if let Some(base) = base {
            headers.push(("Orloj-Callback-Url", format!("{}{path}", base.trim_end_matches('/')), false));
        }
        headers.push(("Orloj-Callback-Path", path, false));
        headers
    }
}

/// What stands in place of a token.
const HIDDEN: &str = "(hidden)";
/// So many characters of a token in a row are no coincidence.
const CUT_MIN: usize = 8;

/// Takes a token out of what a target answers, which may repeat what it was sent.
#[derive(Default)]
pub(crate) struct Veil {
    token: Option<CallbackToken>,
    /// The end of what came, which may be the beginning of a token.
    held: Vec<u8>,
}

impl Veil {
    pub(crate) fn over(callback: Option<&Callback>) -> Self {
        Self { token: callback.map(|callback| callback.token.clone()), held: Vec::new() }
    }

    /// A text without the token.
    pub(crate) fn text(&self, text: String) -> String {
        self.token.as_ref().map_or_else(|| text.clone(), |token| text.replace(token.reveal(), HIDDEN))
    }

    /// What may be shown of the bytes so far.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(token) = &self.token else { return bytes.to_vec() };
        let token = token.reveal().as_bytes();
        self.held.extend_from_slice(bytes);
        let mut shown = Vec::new();
        while let Some(at) = self.held.windows(token.len()).position(|window| window == token) {
            shown.extend(self.held.drain(..at));
            shown.extend_from_slice(HIDDEN.as_bytes());
            self.held.drain(..token.len());
        }
        let sure = self.held.len().saturating_sub(token.len() - 1);
        shown.extend(self.held.drain(..sure));
        shown
    }

    /// The rest; nothing more comes. A token that is cut off is hidden as well, unless little of it is there.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.held);
        if let Some(token) = &self.token {
            let token = token.reveal().as_bytes();
            let is_begun = |length: &usize| rest.ends_with(&token[..*length]);
            if let Some(length) = (CUT_MIN..token.len()).rev().find(is_begun) {
                rest.truncate(rest.len() - length);
                rest.extend_from_slice(HIDDEN.as_bytes());
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::template::example;

    #[test]
    fn every_attempt_has_a_token_of_its_own() {
        let (first, second) = (Callback::new(&example()), Callback::new(&example()));
        let of = |callback: &Callback, base| -> Vec<(&str, String)> {
            callback.headers(base).into_iter().map(|(name, value, _)| (name, value)).collect()
        };
        let path = "/api/v1/attempts/ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09.2/complete";
        assert_eq!(of(&first, None)[2], ("Orloj-Callback-Path", path.to_owned()));
        let url = ("Orloj-Callback-Url", format!("https://x/y{path}"));
        assert!(of(&first, Some("https://x/y/")).contains(&url));
        let token = of(&first, None)[1].1.clone();
        assert_eq!(token.len(), 64);
        assert_ne!(token, of(&second, None)[1].1);
        assert!(!format!("{first:?}").contains(&token));
        assert!(CallbackToken::new(&token).expect("a token").digest().is_same(&first.digest()));
    }

    #[test]
    fn a_token_that_is_repeated_is_hidden_however_it_comes() {
        let callback = Callback::new(&example());
        let token = callback.token.reveal().to_owned();
        let answer = format!("{token}: {token}{token} {}", &token[..63]);
        let wanted = "(hidden): (hidden)(hidden) (hidden)";
        for size in [1, 7, 64, answer.len()] {
            let mut veil = Veil::over(Some(&callback));
            let mut shown: Vec<u8> = answer.as_bytes().chunks(size).flat_map(|bytes| veil.pass(bytes)).collect();
            shown.extend(veil.rest());
            assert_eq!(String::from_utf8(shown).expect("text"), wanted, "{size}");
        }
        assert_eq!(Veil::over(Some(&callback)).text(format!("to {token}")), "to (hidden)");
        let mut plain = Veil::default();
        assert_eq!((plain.pass(answer.as_bytes()), plain.rest()), (answer.clone().into_bytes(), Vec::new()));
        assert_eq!(plain.text(answer.clone()), answer);
    }
}
