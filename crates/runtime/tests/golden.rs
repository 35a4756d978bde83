//! Golden vectors (`schemas/golden`): what fixed records are in bytes (`.bin`, single-object framed) and in
//! Avro's JSON encoding (`.json`), for programs in other languages and against changes of ours. Written anew with
//! `ORLOJ_GOLDEN=write`. Invariant: bytes are compared to the last one, in both directions.

mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use apache_avro::Schema;
use apache_avro::types::Value;
use orloj_runtime::codec::{self, HEADER_BYTES, WireRecord, WriterSchema, schemas};
use serde_json::{Value as Json, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../schemas/golden")
}

#[expect(clippy::disallowed_methods, reason = "the one switch of this test; nothing of Orloj reads it")]
fn is_writing() -> bool {
    std::env::var("ORLOJ_GOLDEN").is_ok_and(|value| value == "write")
}

/// Compares a file with what it should hold, or writes it.
fn check_file(name: &str, wanted: &[u8]) {
    let path = folder().join(name);
    if is_writing() {
        fs::create_dir_all(folder()).expect("folder");
        return fs::write(&path, wanted).expect("write");
    }
    let found = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}; write it with ORLOJ_GOLDEN=write"));
    assert!(found == wanted, "{name} changed; if that is meant, write it anew with ORLOJ_GOLDEN=write");
}

fn check<T: WireRecord + PartialEq + Debug>(case: &str, record: &T) -> String {
    let bytes = codec::encode(record);
    assert_eq!(&codec::decode::<T>(&bytes).expect("decodes"), record, "{case}");
    let name = if case.is_empty() { T::NAME.to_owned() } else { format!("{}.{case}", T::NAME) };
    let schema = WriterSchema::parse(schemas::current(T::NAME).expect("schema")).expect("schema");
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(schema.schema()).build().expect("reader");
    let value = reader.read_value(&mut &bytes[HEADER_BYTES..]).expect("value");
    let names = apache_avro::schema::ResolvedSchema::new(schema.schema()).expect("names");
    let json = avro_json(&value, schema.schema(), names.get_names());
    check_file(&format!("{name}.bin"), &bytes);
    check_file(&format!("{name}.json"), format!("{json:#}\n").as_bytes());
    T::NAME.to_owned()
}

#[test]
fn records_are_the_bytes_they_were() {
    let written = BTreeSet::from([
        check("", &samples::definition()),
        check("handler", &samples::plain_definition(samples::handler())),
        check("kafka", &samples::plain_definition(samples::kafka())),
        check("", &samples::job_event()),
        check("", &samples::trigger_state()),
        check("deleted", &samples::deleted_state()),
        check("", &samples::owner()),
        check("", &samples::barrier()),
        check("", &samples::positions()),
        check("", &samples::command()),
        check("", &samples::requested()),
        check("skipped", &samples::skipped()),
        check("", &samples::live_run()),
        check("", &samples::run_event()),
        check("", &samples::ready()),
        check("", &samples::attempt_event()),
        check("", &samples::heartbeat()),
        check("", &samples::output()),
        check("", &samples::message()),
        check("", &samples::setting()),
        check("", &samples::limit_event()),
        check("", &samples::breaker_event()),
    ]);
    let declared: BTreeSet<String> = schemas::CURRENT.iter().map(|file| file.record.to_owned()).collect();
    assert_eq!(written, declared, "every record has a vector");
}

#[test]
fn fingerprints_are_what_they_were() {
    let fingerprints: BTreeMap<&str, String> = schemas::CURRENT
        .iter()
        .map(|file| {
            let schema = WriterSchema::parse(file.text).expect("schema");
            (file.record, format!("{:016x}", schema.fingerprint()))
        })
        .collect();
    let text = serde_json::to_string_pretty(&fingerprints).expect("JSON");
    check_file("fingerprints.json", format!("{text}\n").as_bytes());
}

/// The encoder writes words by their position: those of the types are the symbols of the schemas, in order.
#[test]
fn words_stand_in_the_schemas_order() {
    use orloj_domain::{attempt, command, fire, job, job_event, run, runner, setting};
    let mut symbols: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in schemas::CURRENT {
        collect_symbols(&serde_json::from_str(file.text).expect("JSON"), &mut symbols);
    }
    macro_rules! same_words {
        ($($module:ident::$name:ident),+ $(,)?) => {
            $(
                let words: Vec<&str> = $module::$name::ALL.iter().map(|word| word.as_str()).collect();
                assert_eq!(symbols.remove(stringify!($name)).expect(stringify!($name)), words);
            )+
        };
    }
    same_words!(
        job::Dialect,
        job::DstGap,
        job::DstFold,
        job::MissedKind,
        job::OverlapKind,
        job::Delivery,
        job::HttpCompletion,
        job_event::JobEventType,
        command::CommandType,
        command::PauseMissed,
        fire::TriggerKind,
        fire::Decision,
        fire::Reason,
        run::RunState,
        attempt::AttemptEventType,
        attempt::OutcomeKind,
        runner::OutputStream,
        runner::RunnerMessageType,
        setting::SettingKind,
        setting::LimitEventType,
        setting::Verdict,
        setting::BreakerState,
    );
    assert!(symbols.is_empty(), "enums of schemas that no type has: {symbols:?}");
}

fn collect_symbols(schema: &Json, symbols: &mut BTreeMap<String, Vec<String>>) {
    match schema {
        Json::Array(items) => items.iter().for_each(|item| collect_symbols(item, symbols)),
        Json::Object(object) => {
            if let (Some(Json::String(name)), Some(Json::Array(words))) = (object.get("name"), object.get("symbols")) {
                let words = words.iter().filter_map(Json::as_str).map(str::to_owned).collect();
                symbols.insert(name.clone(), words);
            }
            object.values().for_each(|part| collect_symbols(part, symbols));
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// Avro's JSON encoding (Avro specification, "JSON Encoding").
fn avro_json(value: &Value, schema: &Schema, names: &apache_avro::schema::NamesRef<'_>) -> Json {
    let schema = if let Schema::Ref { name } = schema { names[name] } else { schema };
    match (value, schema) {
        (Value::Null, _) => Json::Null,
        (Value::Boolean(value), _) => json!(value),
        (Value::Int(value), _) => json!(value),
        (Value::Long(value) | Value::TimestampMillis(value), _) => json!(value),
        (Value::Double(value), _) => json!(value),
        (Value::String(value) | Value::Enum(_, value), _) => json!(value),
        (Value::Bytes(value), _) => value.iter().copied().map(char::from).collect::<String>().into(),
        (Value::Array(items), Schema::Array(array)) => {
            items.iter().map(|item| avro_json(item, &array.items, names)).collect()
        }
        (Value::Map(items), Schema::Map(map)) => {
            items.iter().map(|(key, item)| (key.clone(), avro_json(item, &map.types, names))).collect()
        }
        (Value::Record(fields), Schema::Record(record)) => fields
            .iter()
            .zip(&record.fields)
            .map(|((name, value), field)| (name.clone(), avro_json(value, &field.schema, names)))
            .collect(),
        (Value::Union(index, inner), Schema::Union(union)) => {
            let branch = &union.variants()[usize::try_from(*index).expect("index")];
            let json = avro_json(inner, branch, names);
            match branch.name() {
                _ if matches!(branch, Schema::Null) => Json::Null,
                Some(name) => json!({ name.to_string(): json }),
                // A logical type goes by the name of the type that it is.
                None if matches!(branch, Schema::TimestampMillis) => json!({ "long": json }),
                None => json!({ serde_json::to_value(branch).expect("JSON").as_str().expect("a primitive"): json }),
            }
        }
        (value, _) => panic!("no JSON for {value:?}"),
    }
}
