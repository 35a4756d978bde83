//! One document of a file: a job, a calendar, a limit or what bounds a queue, told apart by its `kind`. Not here: what either means. Invariant: the
//! reader of the right kind reads the fields in place, so that what it complains about keeps its line and column.

use std::fmt;

use orloj_domain::calendar::{self, CalendarManifest, CalendarSpec};
use orloj_domain::limit::{LIMIT_KIND, LimitManifest, LimitSpec, QUEUE_KIND};
use orloj_domain::manifest::{self, Manifest, Metadata, Spec};
use serde::de::{self, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What a document is, as it is written.
#[derive(Debug, Clone)]
pub(super) enum Document {
    Job(Box<Manifest>),
    Calendar(Box<CalendarManifest>),
    Limit(Box<LimitManifest>),
    /// Of this kind, which there is not.
    Other(String),
}

const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec"];

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Field {
    ApiVersion,
    Kind,
    Metadata,
    Spec,
}

enum AnySpec {
    Job(Box<Spec>),
    Calendar(Box<CalendarSpec>),
    Limit(LimitSpec),
    Other,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Manifest", FIELDS, AnyKind)
    }
}

struct AnyKind;

impl<'de> Visitor<'de> for AnyKind {
    type Value = Document;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a manifest with apiVersion, kind, metadata and spec")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let (mut api_version, mut kind, mut metadata, mut spec) = (None, None::<String>, None::<Metadata>, None);
        while let Some(field) = map.next_key()? {
            match field {
                Field::ApiVersion => put(&mut api_version, "apiVersion", map.next_value()?)?,
                Field::Kind => put(&mut kind, "kind", map.next_value()?)?,
                Field::Metadata => put(&mut metadata, "metadata", map.next_value()?)?,
                Field::Spec => {
                    // What says no kind before is read as most are.
                    let read = match kind.as_deref().unwrap_or(manifest::KIND) {
                        manifest::KIND => AnySpec::Job(map.next_value()?),
                        calendar::KIND => AnySpec::Calendar(map.next_value()?),
                        QUEUE_KIND | LIMIT_KIND => AnySpec::Limit(map.next_value()?),
                        _ => map.next_value::<IgnoredAny>().map(|_| AnySpec::Other)?,
                    };
                    put(&mut spec, "spec", read)?;
                }
            }
        }
        let api_version = api_version.ok_or_else(|| A::Error::missing_field("apiVersion"))?;
        let kind = kind.ok_or_else(|| A::Error::missing_field("kind"))?;
        let metadata = metadata.ok_or_else(|| A::Error::missing_field("metadata"))?;
        let is_limit = [QUEUE_KIND, LIMIT_KIND].contains(&kind.as_str());
        match spec {
            // A queue may be bound by nothing.
            None if is_limit => Ok(limit(api_version, kind, metadata, LimitSpec::default())),
            None => Err(A::Error::missing_field("spec")),
            Some(AnySpec::Calendar(spec)) => {
                Ok(Document::Calendar(Box::new(CalendarManifest { api_version, kind, metadata, spec: *spec })))
            }
            Some(AnySpec::Limit(spec)) => Ok(limit(api_version, kind, metadata, spec)),
            Some(AnySpec::Other) => Ok(Document::Other(kind)),
            Some(AnySpec::Job(_)) if is_limit || kind == calendar::KIND => {
                Err(A::Error::custom("write `kind` before `spec`"))
            }
            Some(AnySpec::Job(spec)) => {
                Ok(Document::Job(Box::new(Manifest { api_version, kind, metadata, spec: *spec })))
            }
        }
    }
}

fn limit(api_version: String, kind: String, metadata: Metadata, spec: LimitSpec) -> Document {
    Document::Limit(Box::new(LimitManifest { api_version, kind, metadata, spec }))
}

fn put<T, E: de::Error>(place: &mut Option<T>, field: &'static str, value: T) -> Result<(), E> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(field)),
    }
}
