//! A service that sends invoices: it publishes the job that says when, and runs it by its own code. Not here: trigger and
//! dispatcher, which are the installation's (`here` starts them in this process if no Kafka is named).

mod here;

use std::error::Error;
use std::time::Duration;

use orloj_client::{Answer, Connection, Context, Failure, Producer, Runner};
use serde::Deserialize;

/// The payload of the job. A field that is missing, unknown or of another type is told by its name, and the attempt does
/// not start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invoices {
    tenant: u32,
    invoices: u8,
}

async fn send_invoices(context: Context<Invoices>) -> Result<String, Failure> {
    let Invoices { tenant, invoices } = *context.payload();
    if tenant == 0 {
        return Err(Failure::permanent("tenant 0 is nobody: correct `spec.run.handler.payload.tenant`"));
    }
    for sent in 0..invoices {
        context.progress(sent.saturating_mul(100 / invoices), format!("invoice {} of {invoices}", sent + 1));
        tokio::select! {
            () = send(&context) => {}
            () = context.cancelled() => return Err(Failure::retryable(format!("stopped after {sent} of {invoices}"))),
        }
    }
    println!("{} tenant {tenant}: {invoices} invoices sent, attempt {}", context.fire_time(), context.attempt());
    Ok(format!("{invoices} invoices sent"))
}

/// Stands for the call to a mail server. A real one hands over run id and fencing token, so that a repeat is known as one.
async fn send(_context: &Context<Invoices>) {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter("warn").with_writer(std::io::stderr).init();
    let connection = match std::env::args().nth(1) {
        Some(bootstrap) => Connection::kafka(&bootstrap),
        None => Connection::log(here::start()?),
    };

    let published = Producer::connect(connection.clone())?.publish(include_str!("../job.json"))?;
    match published.accepted(Duration::from_secs(10))? {
        Answer::Rejected { errors } => {
            let complaints: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(complaints.join("\n").into());
        }
        Answer::Accepted { version } | Answer::Unchanged { version } => {
            println!("job {} is in force as version {version}", published.job());
        }
        Answer::Deleted => return Err("somebody deleted the job just now".into()),
    }

    let runner =
        Runner::builder().connection(connection).queue("billing").handler("send-invoices", send_invoices).build()?;
    runner.stop_handle().on_signals()?;
    println!("every 5 s; Ctrl-C waits for what runs and ends");
    Ok(runner.run()?)
}
