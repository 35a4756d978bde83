//! What a request carries so that its target, or whoever it hands the token to, can say later how the attempt ended. Not
//! here: who hears that (`query`) and passes it on (`dispatcher`). Invariant: each attempt has a token of its own, which
//! leaves the runner in its request alone.

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
}
