//! `orloj topics`: the topics that `topics.yaml` declares, compared with those of a cluster. Not here: comparing
//! (`orloj_runtime::topics`). Invariant: nothing is ever altered, shrunk or deleted.

use clap::{Args, Subcommand};
use orloj_runtime::config::Config;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::topics::{self, ApplyError, Plan, REPLICATION_OF_CLUSTER};
use serde_json::json;

use super::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::output;
use crate::serve::{self, ConfigArguments};

/// Compare and create the topics of an installation on Kafka
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj topics plan --set kafka.bootstrap.servers=kafka:9092
  orloj topics apply --replication 3
  orloj topics check          exit code 8 if something differs

Existing topics are never altered: what differs is shown, for a person to change with Kafka's own tools.")]
pub(crate) struct TopicsArguments {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Show what apply would create, and what differs
    Plan(TopicsOptions),
    /// Create what is missing
    Apply(TopicsOptions),
    /// Say whether all is as declared; exit code 8 if not
    Check(TopicsOptions),
}

#[derive(Debug, Args)]
struct TopicsOptions {
    /// Copies of each topic [default: the cluster's own]
    #[arg(long, value_parser = clap::value_parser!(i16).range(1..), value_name = "N")]
    replication: Option<i16>,
    #[command(flatten)]
    config: ConfigArguments,
}

pub(crate) fn run(context: &Context, arguments: &TopicsArguments) -> Outcome {
    let (TopicsCommand::Plan(options) | TopicsCommand::Apply(options) | TopicsCommand::Check(options)) =
        &arguments.command;
    let config = options.config.load(Vec::new())?;
    let log = connect(&config)?;
    let replication = options.replication.unwrap_or(REPLICATION_OF_CLUSTER);
    let declared = topics::declared(config.shards.get(), replication, &config.runner_queues);
    let plan = topics::plan(&log, &declared).map_err(|error| Failure::error(error.to_string()))?;
    match arguments.command {
        TopicsCommand::Plan(_) => {
            show(context, &plan)?;
            Ok(Code::Ok)
        }
        TopicsCommand::Check(_) => {
            show(context, &plan)?;
            Ok(if plan.is_empty() { Code::Ok } else { Code::Difference })
        }
        TopicsCommand::Apply(_) => apply(context, &log, &plan),
    }
}

fn connect(config: &Config) -> Result<KafkaLog, Failure> {
    let kafka = KafkaConfig { properties: config.kafka.clone(), prefix: config.topics_prefix.clone() };
    let log = KafkaLog::connect(kafka).map_err(|error| Failure::usage(error.to_string()))?;
    log.check(serve::CHECK_TIMEOUT).map_err(|error| Failure::error(error.to_string()))?;
    Ok(log)
}

fn apply(context: &Context, log: &KafkaLog, plan: &Plan) -> Outcome {
    let created = match topics::apply(log, plan) {
        Ok(created) => created,
        Err(error @ ApplyError::OtherShards(_)) => return Err(Failure::new(Code::Conflict, error.to_string())),
        Err(error @ ApplyError::Log(_)) => return Err(Failure::error(error.to_string())),
    };
    let document = json!({ "created": created, "differs": differences(plan), "equal": plan.equal });
    if !output::document(context.global.output, &document, &created.join("\n"))? {
        for name in &created {
            output::print(&format!("topic {name} created"))?;
        }
        output::note(&format!("{} created, {} were there", created.len(), plan.equal + plan.differs.len()));
    }
    for difference in &plan.differs {
        output::note(&format!("differs: {difference}"));
    }
    Ok(if plan.differs.is_empty() { Code::Ok } else { Code::Difference })
}

fn differences(plan: &Plan) -> Vec<serde_json::Value> {
    let document = |difference: &topics::Difference| {
        json!({
            "topic": difference.topic,
            "setting": difference.setting,
            "found": difference.found,
            "wanted": difference.wanted,
        })
    };
    plan.differs.iter().map(document).collect()
}

fn show(context: &Context, plan: &Plan) -> Result<(), Failure> {
    let create: Vec<_> = plan
        .create
        .iter()
        .map(|spec| json!({ "topic": spec.name, "partitions": spec.partitions, "settings": spec.settings }))
        .collect();
    let document = json!({ "create": create, "differs": differences(plan), "extra": plan.extra, "equal": plan.equal });
    let names: Vec<&str> = plan.create.iter().map(|spec| spec.name.as_str()).collect();
    if !output::document(context.global.output, &document, &names.join("\n"))? {
        output::print(&plan.to_string())?;
    }
    Ok(())
}
