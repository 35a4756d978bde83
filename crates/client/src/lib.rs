//! What a service links to take part in Orloj: [`Runner`] executes `handler` targets in the service's own process,
//! [`Producer`] publishes and edits jobs. Not here: how attempts are claimed and leases kept (`orloj_runner`), whether a
//! job is accepted (the trigger). Invariant: all of it goes over the log; there is no connection to any other service.

mod connection;
mod context;
mod failure;
mod producer;
mod runner;
mod typed;

pub use connection::{ClientError, Connection};
pub use context::Context;
pub use failure::Failure;
pub use orloj_domain::id::{CommandId, JobId, RunId};
pub use orloj_domain::job::JobDefinition;
pub use orloj_domain::job_event::FieldError;
pub use orloj_domain::time::Timestamp;
pub use orloj_runtime::log::{Log, Position};
pub use producer::{Answer, AnswerError, Producer, PublishError, Published};
pub use runner::{Runner, RunnerBuilder, StopHandle};
pub use tokio_util::sync::CancellationToken;
