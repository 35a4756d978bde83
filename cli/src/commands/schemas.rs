//! `orloj schemas check`: may the current schemas follow every version that was released? Not here: the rules
//! (`codec::compatibility`). Invariant: it names every finding, not only the first.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use orloj_runtime::codec::compatibility::SchemaSet;
use serde_json::{Value, json};

use super::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, column, text};

/// Check the schemas of the records
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj schemas check                 the schemas in this program
  orloj schemas check ./schemas       those of a folder, with their released/ versions")]
pub(crate) struct SchemasArguments {
    #[command(subcommand)]
    command: SchemasCommand,
}

#[derive(Debug, Subcommand)]
enum SchemasCommand {
    /// Compare the current schemas with every released version, both ways; exit code 1 if one breaks another
    Check {
        /// Folder with *.avsc and released/VERSION/*.avsc
        folder: Option<PathBuf>,
    },
}

pub(crate) fn run(context: &Context, arguments: &SchemasArguments) -> Outcome {
    let SchemasCommand::Check { folder } = &arguments.command;
    let set = match folder {
        Some(folder) => SchemaSet::read(folder)
            .map_err(|error| Failure::usage(format!("{}: can't be read: {error}", folder.display())))?,
        None => SchemaSet::embedded(),
    };
    let findings: Vec<Value> = set
        .check()
        .into_iter()
        .map(|finding| json!({ "subject": finding.subject, "place": finding.place, "problem": finding.problem }))
        .collect();
    if findings.is_empty() {
        let (records, versions) = (set.current.len(), set.released.len());
        output::note(&format!(
            "{records} schemas can follow each of {versions} released versions, and the other way round"
        ));
        return Ok(Code::Ok);
    }
    let columns = [
        column("SCHEMA", |finding| text(finding, "subject")),
        column("PLACE", |finding| text(finding, "place")),
        column("PROBLEM", |finding| text(finding, "problem")),
    ];
    output::list(context.global.output, &findings, &columns, |finding| text(finding, "subject"))?;
    Ok(Code::Error)
}

/// Schemas that this program decodes: the current ones and all that were ever released.
pub(crate) fn count() -> usize {
    let set = SchemaSet::embedded();
    let mut texts: Vec<&String> =
        set.current.values().chain(set.released.values().flat_map(|records| records.values())).collect();
    texts.sort();
    texts.dedup();
    texts.len()
}
