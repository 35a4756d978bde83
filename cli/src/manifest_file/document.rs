//! One document of a file: a job or a calendar, told apart by its `kind`. Not here: what either means. Invariant: the
//! reader of the right kind reads the fields in place, so that what it complains about keeps its line and column.

use std::fmt;

use orloj_domain::calendar::{self, CalendarManifest, CalendarSpec};
use orloj_domain::manifest::{Manifest, Metadata, Spec};
use serde::de::{self, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A job or a calendar, as it is written.
#[derive(Debug, Clone)]
pub(super) enum Document {
    Job(Box<Manifest>),
    Calendar(Box<CalendarManifest>),
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
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Manifest", FIELDS, OneOfBoth)
    }
}

struct OneOfBoth;

impl<'de> Visitor<'de> for OneOfBoth {
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
                // What says no kind before is read as most are.
                Field::Spec if kind.as_deref() == Some(calendar::KIND) => {
                    put(&mut spec, "spec", AnySpec::Calendar(map.next_value()?))?;
                }
                Field::Spec => put(&mut spec, "spec", AnySpec::Job(map.next_value()?))?,
            }
        }
        let api_version = api_version.ok_or_else(|| A::Error::missing_field("apiVersion"))?;
        let kind = kind.ok_or_else(|| A::Error::missing_field("kind"))?;
        let metadata = metadata.ok_or_else(|| A::Error::missing_field("metadata"))?;
        match spec.ok_or_else(|| A::Error::missing_field("spec"))? {
            AnySpec::Calendar(spec) => {
                Ok(Document::Calendar(Box::new(CalendarManifest { api_version, kind, metadata, spec: *spec })))
            }
            AnySpec::Job(_) if kind == calendar::KIND => Err(A::Error::custom("write `kind` before `spec`")),
            AnySpec::Job(spec) => Ok(Document::Job(Box::new(Manifest { api_version, kind, metadata, spec: *spec }))),
        }
    }
}

fn put<T, E: de::Error>(place: &mut Option<T>, field: &'static str, value: T) -> Result<(), E> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(field)),
    }
}
