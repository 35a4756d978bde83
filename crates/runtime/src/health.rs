//! Whether this process does its work: one flag with a reason per component, read by `/readyz`. Not here: HTTP.
//! Invariant: a component that was never heard of is not ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

type States = Arc<Mutex<BTreeMap<String, Option<String>>>>;

/// The components of one process; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Health(States);

impl Health {
    /// No components yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a component, not ready because it is starting.
    #[must_use]
    pub fn component(&self, name: &str) -> Component {
        let component = Component { name: name.to_owned(), states: Arc::clone(&self.0) };
        component.not_ready("starting");
        component
    }

    /// Each component and, if it is not ready, why.
    #[must_use]
    pub fn states(&self) -> BTreeMap<String, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True if there is a component and all are ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !states.is_empty() && states.values().all(Option::is_none)
    }
}

/// One component's flag.
#[derive(Debug, Clone)]
pub struct Component {
    name: String,
    states: States,
}

impl Component {
    /// Says that it does its work.
    pub fn ready(&self) {
        self.set(None);
    }

    /// Says that it does not, and why.
    pub fn not_ready(&self, reason: &str) {
        self.set(Some(reason));
    }

    fn set(&self, reason: Option<&str>) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        match states.get_mut(&self.name) {
            Some(state) if state.as_deref() == reason => {}
            Some(state) => *state = reason.map(str::to_owned),
            None => {
                states.insert(self.name.clone(), reason.map(str::to_owned));
            }
        }
    }
}
