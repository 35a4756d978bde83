//! `orloj version`: what this program is made of, for bug reports. Invariant: it asks nobody but this machine.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::Context;
use crate::exit::{Code, Outcome};
use crate::output;

/// Show the versions of the program, of the time zone data and of the schemas
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orloj version -o json")]
pub(crate) struct VersionArguments {}

pub(crate) fn run(context: &Context, _: &VersionArguments) -> Outcome {
    let schemas = super::schemas::count();
    let tzdb = tzdb_version();
    let document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "tzdb": tzdb,
        "schemas": schemas,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
    });
    if !output::document(context.global.output, &document, env!("CARGO_PKG_VERSION"))? {
        output::print(&format!(
            "orloj {}\ntime zone data {}\n{schemas} schemas known",
            env!("CARGO_PKG_VERSION"),
            tzdb.as_deref().unwrap_or("of unknown version"),
        ))?;
    }
    Ok(Code::Ok)
}

/// Version of the machine's time zone database, for example `2026b`, as its own files say.
pub(crate) fn tzdb_version() -> Option<String> {
    let folder = Path::new("/usr/share/zoneinfo");
    let first_line = |name: &str| {
        let text = std::fs::read(folder.join(name)).ok()?;
        let line = text.split(|byte| *byte == b'\n').next()?;
        String::from_utf8(line.to_vec()).ok()
    };
    let of_source = first_line("tzdata.zi").and_then(|line| line.strip_prefix("# version ").map(str::to_owned));
    of_source
        .or_else(|| first_line("+VERSION"))
        .map(|version| version.trim().to_owned())
        .filter(|version| !version.is_empty())
}
