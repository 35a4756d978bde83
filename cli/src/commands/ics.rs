//! `orloj import ics`: an iCalendar file becomes a calendar. Not here: how the file is read (`crate::ics`).
//! Invariant: a file of which anything can't be taken changes nothing.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use orloj_domain::calendar::{self, CalendarManifest};
use orloj_domain::id::LABEL_BYTES_MAX;
use orloj_domain::manifest::{API_VERSION, Metadata};
use serde_json::json;

use super::{Context, calendars, crontab};
use crate::exit::{Code, Failure, Outcome};
use crate::ics;
use crate::manifest_file::LoadedCalendar;
use crate::output::{self, Format};

/// Make a calendar of an iCalendar file (.ics)
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj import ics public-holidays.ics --name holidays
  curl -s https://example.org/holidays.ics | orloj import ics - --name holidays -o yaml     show it, send nothing

Every event counts for the days it touches. What repeats every year becomes a yearly day; what repeats otherwise for
ever is expanded. A repetition that can't be taken is named with its line, and nothing is sent.")]
pub(crate) struct IcsArguments {
    /// The file, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: String,
    /// Name of the calendar [default: the file's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Time zone whose dates count [default: that of each schedule]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Last year that endless repetitions are expanded to [default: in ten years]
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i16).range(1970..=2200))]
    until: Option<i16>,
    /// How long to wait until the calendar is in force
    #[arg(long, default_value = "10s", value_parser = super::duration, value_name = "DURATION")]
    timeout: Duration,
}

pub(crate) fn run(context: &Context, arguments: &IcsArguments) -> Outcome {
    let (file, text) = (&arguments.file, crontab::text_of(&arguments.file)?);
    let year = arguments.until.unwrap_or_else(|| super::now().to_zoned(TimeZone::UTC).year() + 10);
    let horizon = Date::new(year, 12, 31).map_err(|error| Failure::usage(error.to_string()))?;
    let import = ics::read(&text, horizon).map_err(|refused| {
        let lines: Vec<String> = refused.iter().map(|one| format!("{file}:{}: {}", one.line, one.reason)).collect();
        Failure::usage(lines.join("\n"))
    })?;
    for note in &import.notes {
        output::note(&format!("note: {note}"));
    }
    let manifest = CalendarManifest {
        api_version: API_VERSION.to_owned(),
        kind: calendar::KIND.to_owned(),
        metadata: Metadata { name: name(arguments)?, ..Metadata::default() },
        spec: calendar::CalendarSpec { time_zone: arguments.zone.clone(), ..import.spec },
    };
    let calendar = calendar::to_calendar(&manifest).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| format!("{file}: {error}")).collect();
        Failure::usage(lines.join("\n"))
    })?;
    if context.global.output == Format::Yaml {
        output::print(&output::yaml(&[&manifest])?)?;
        return Ok(Code::Ok);
    }
    let loaded = [LoadedCalendar { origin: file.clone(), manifest, calendar }];
    let items = calendars::send(&context.client()?, &loaded, arguments.timeout, context.global.output)?;
    if context.global.output == Format::Json {
        output::print(&output::pretty(&json!({ "items": items })))?;
    }
    Ok(Code::Ok)
}

/// The name given, or one made of the file's.
fn name(arguments: &IcsArguments) -> Result<String, Failure> {
    if let Some(name) = &arguments.name {
        return Ok(name.clone());
    }
    let stem = Path::new(&arguments.file).file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase());
    let stem = stem.unwrap_or_default();
    let words = stem.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name: String = words.collect::<Vec<_>>().join("-").chars().take(LABEL_BYTES_MAX).collect();
    if name.is_empty() { Err(Failure::usage("give the calendar a name with --name")) } else { Ok(name) }
}
