//! From a function with a typed payload to what a runner calls. Not here: calling it (`orloj_runner`). Invariant: a
//! payload that does not fit is refused with the path of the field before the function is called.

use std::marker::PhantomData;
use std::sync::Arc;

use orloj_runner::{Handler, PayloadError, Prepared};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::failure::Failure;

/// A function as a handler.
pub(crate) struct Typed<F, P> {
    function: Arc<F>,
    payload: PhantomData<fn() -> P>,
}

impl<F, P> Typed<F, P> {
    pub(crate) fn new(function: F) -> Self {
        Self { function: Arc::new(function), payload: PhantomData }
    }
}

impl<F, P, T, Called> Handler for Typed<F, P>
where
    F: Fn(Context<P>) -> Called + Send + Sync + 'static,
    Called: Future<Output = Result<T, Failure>> + Send + 'static,
    P: DeserializeOwned + Send + 'static,
    T: Serialize,
{
    fn prepare(&self, payload: &str) -> Result<Prepared, PayloadError> {
        let payload: P = read(payload)?;
        let function = Arc::clone(&self.function);
        Ok(Box::new(move |inner| {
            Box::pin(async move {
                let result = function(Context::new(payload, inner)).await;
                result.map(|done| shown(&done)).map_err(Failure::into_inner)
            })
        }))
    }
}

fn read<P: DeserializeOwned>(payload: &str) -> Result<P, PayloadError> {
    let mut reader = serde_json::Deserializer::from_str(payload);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        // The whole is `.` to the reader of paths.
        let field = if path == "." { String::new() } else { path };
        PayloadError { field, message: error.into_inner().to_string() }
    })
}

/// What a handler returned, for people; nothing for `()` and `None`.
fn shown(done: &impl Serialize) -> Option<String> {
    match serde_json::to_value(done) {
        Ok(serde_json::Value::Null) => None,
        Ok(serde_json::Value::String(text)) => Some(text),
        Ok(value) => Some(value.to_string()),
        Err(error) => Some(format!("what it returned can't be shown: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Line {
        #[expect(dead_code, reason = "read only to be refused")]
        amount: u32,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Invoice {
        tenant: u32,
        lines: Vec<Line>,
    }

    #[test]
    fn a_payload_that_does_not_fit_is_refused_by_its_field() {
        for (payload, field, said) in [
            (r#"{"tenant": "x", "lines": []}"#, "tenant", "invalid type"),
            (r#"{"tenant": 7, "lines": [{"amount": 1}, {"amount": -1}]}"#, "lines[1].amount", "invalid value"),
            (r#"{"tenant": 7}"#, "", "missing field `lines`"),
            ("null", "", "invalid type: null"),
        ] {
            let error = read::<Invoice>(payload).expect_err(payload);
            assert_eq!(error.field, field, "{payload}: {error:?}");
            assert!(error.message.contains(said), "{payload}: {error:?}");
        }
        let invoice: Invoice = read(r#"{"tenant": 7, "lines": [{"amount": 1}]}"#).expect("a good payload");
        assert_eq!((invoice.tenant, invoice.lines.len()), (7, 1));
    }

    #[test]
    fn results_are_shown_as_people_write_them() {
        assert_eq!(shown(&()), None);
        assert_eq!(shown(&"sent"), Some("sent".to_owned()));
        assert_eq!(shown(&vec![1, 2]), Some("[1,2]".to_owned()));
    }
}
