//! Decoding of what other versions wrote, and of what nobody wrote: older and newer schemas, broken bytes.
//! Not here: what our own records look like (`golden`). Invariant: no bytes make the decoder panic, and no
//! error text is long or holds a schema.

mod samples;

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use orloj_domain::attempt::OutcomeKind;
use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::job::{JobDefinition, Target};
use orloj_domain::manifest;
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::runner::RunnerHeartbeat;
use orloj_runtime::codec::{self, DecodeError, HEADER_BYTES, WireRecord, WriterSchema, confluent, input, schemas};
use serde::Serialize;
use serde_json::{Value as Json, json};

/// Longest error text that is still short.
const ERROR_CHARS_MAX: usize = 300;

fn write_with<T: Serialize>(writer: &WriterSchema, record: &T) -> Vec<u8> {
    GenericDatumWriter::builder(writer.schema()).build().expect("writer").write_ser_to_vec(record).expect("encodes")
}

#[derive(Serialize)]
struct ShellTarget {
    script: String,
}

#[derive(Serialize)]
struct HandlerTarget {
    name: String,
}

#[derive(Serialize)]
enum OldTarget {
    ShellTarget(ShellTarget),
    HandlerTarget(HandlerTarget),
}

#[derive(Serialize)]
#[serde(rename = "RunSpec", rename_all = "camelCase")]
struct OldSpec {
    timeout_ms: i64,
    target: OldTarget,
}

#[derive(Serialize)]
#[serde(rename = "FireDecision", rename_all = "camelCase")]
struct OldDecision {
    version: i32,
    job: String,
    trigger: TriggerKind,
    fire_time: i64,
    decision: Decision,
    decided_at: i64,
    retired: String,
    spec: Option<OldSpec>,
}

fn old_decision(target: OldTarget) -> FireDecision {
    let writer = WriterSchema::parse(include_str!("data/FireDecision.v0.avsc")).expect("schema");
    let old = OldDecision {
        version: 3,
        job: "a/b".to_owned(),
        trigger: TriggerKind::Schedule,
        fire_time: 1000,
        decision: Decision::Requested,
        decided_at: 1001,
        retired: "x".to_owned(),
        spec: Some(OldSpec { timeout_ms: 5000, target }),
    };
    codec::decode_written_with(&writer, &write_with(&writer, &old)).expect("an older value decodes")
}

#[test]
fn an_older_value_decodes_with_defaults() {
    let decision = old_decision(OldTarget::ShellTarget(ShellTarget { script: "true".to_owned() }));
    assert_eq!(decision.version, 3);
    assert_eq!(decision.trigger, TriggerKind::Schedule);
    assert_eq!(decision.decision, Decision::Requested);
    assert_eq!(decision.fire_time.millis(), 1000);
    assert_eq!((decision.range_end, decision.reason, decision.fires), (None, None, 0));
    assert_eq!(decision.definition_offset, -1);
    assert!(decision.params.is_empty());
    let spec = decision.spec.expect("spec");
    assert_eq!((spec.timeout_ms, spec.priority, spec.queue.as_str()), (5000, 5, "default"));
    assert_eq!(spec.retry.max_ms, 600_000);
    let Target::ShellTarget(shell) = &spec.target else { panic!("{:?}", spec.target) };
    assert_eq!((shell.script.as_str(), shell.stdin.as_str(), shell.shell.as_ref()), ("true", "", None));
}

/// A handler has the fields that other targets have defaults for: only its name tells it apart.
#[test]
fn a_branch_is_matched_by_name() {
    let decision = old_decision(OldTarget::HandlerTarget(HandlerTarget { name: "send".to_owned() }));
    let target = decision.spec.expect("spec").target.clone();
    let Target::HandlerTarget(handler) = target else { panic!("{target:?}") };
    assert_eq!((handler.name.as_str(), handler.payload.as_str()), ("send", "null"));
}

/// What a producer leaves out is what a manifest leaves out.
#[test]
fn defaults_of_the_schema_are_those_of_the_manifest() {
    let writer = WriterSchema::parse(include_str!("data/JobDefinition.minimal.avsc")).expect("schema");
    let minimal = Value::Record(vec![
        ("job".to_owned(), Value::String("a/b".to_owned())),
        (
            "spec".to_owned(),
            Value::Record(vec![(
                "target".to_owned(),
                Value::Record(vec![("command".to_owned(), Value::Array(vec![Value::String("true".to_owned())]))]),
            )]),
        ),
    ]);
    let body = GenericDatumWriter::builder(writer.schema()).build().expect("writer").write_value_to_vec(minimal);
    let definition: JobDefinition =
        codec::decode_written_with(&writer, &body.expect("encodes")).expect("a minimal value decodes");
    let manifest = json!({
        "apiVersion": "orloj/v1", "kind": "Job", "metadata": {"namespace": "a", "name": "b"},
        "spec": {"run": {"exec": {"command": ["true"]}}}
    });
    assert_eq!(definition, manifest::parse_json(&manifest.to_string()).expect("a valid manifest"));
}

/// The current schema of a record, edited.
fn edited(record: &str, edit: impl Fn(&mut Json)) -> WriterSchema {
    let mut schema: Json = serde_json::from_str(schemas::current(record).expect("schema")).expect("JSON");
    edit(&mut schema);
    WriterSchema::parse(&schema.to_string()).expect("schema")
}

fn add_symbols(schema: &mut Json, name: &str, symbol: &str) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(|item| add_symbols(item, name, symbol)),
        Json::Object(object) => {
            if object.get("name").is_some_and(|found| found == name)
                && let Some(Json::Array(symbols)) = object.get_mut("symbols")
            {
                symbols.insert(0, json!(symbol));
            }
            object.values_mut().for_each(|part| add_symbols(part, name, symbol));
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// A record of ours as a value, for editing.
fn value_of<T: WireRecord>(record: &T) -> Vec<(String, Value)> {
    let schema = WriterSchema::parse(schemas::current(T::NAME).expect("schema")).expect("schema");
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(schema.schema()).build().expect("reader");
    let value = reader.read_value(&mut &codec::encode(record)[HEADER_BYTES..]).expect("value");
    let Value::Record(fields) = value else { panic!("{value:?}") };
    fields
}

fn set(fields: &mut [(String, Value)], name: &str, value: Value) {
    fields.iter_mut().find(|(field, _)| field == name).expect("field").1 = value;
}

#[test]
fn words_and_fields_of_a_newer_version_are_survived() {
    let writer = edited("RunEvent", |schema| {
        for name in ["RunState", "TriggerKind", "OutcomeKind"] {
            add_symbols(schema, name, "teleported");
        }
        let field = json!({"name": "cost", "type": "double", "default": 0.0});
        schema["fields"].as_array_mut().expect("fields").insert(0, field);
    });
    let mut fields = value_of(&samples::run_event());
    let teleported = || Value::Enum(0, "teleported".to_owned());
    set(&mut fields, "state", teleported());
    set(&mut fields, "trigger", Value::Enum(4, "dependency".to_owned()));
    // The kinds in it are numbered as the older schema has them.
    set(&mut fields, "endedAttempts", Value::Array(Vec::new()));
    let outcome = fields.iter_mut().find(|(field, _)| field == "outcome").expect("outcome");
    let Value::Union(_, inner) = &mut outcome.1 else { panic!("no union") };
    let Value::Record(inner) = inner.as_mut() else { panic!("no record") };
    set(inner, "kind", teleported());
    fields.insert(0, ("cost".to_owned(), Value::Double(1.5)));
    let body = GenericDatumWriter::builder(writer.schema()).build().expect("writer");
    let body = body.write_value_to_vec(Value::Record(fields)).expect("encodes");

    let event: RunEvent = codec::decode_written_with(&writer, &body).expect("a newer value decodes");
    assert_eq!(event.state, RunState::Unknown);
    assert_eq!(event.trigger, TriggerKind::Dependency);
    assert_eq!(event.outcome.expect("outcome").kind, OutcomeKind::Unknown);
    assert_eq!(event.disposition, samples::run_event().disposition);
}

#[test]
fn a_target_of_a_newer_version_is_refused_by_name() {
    let writer = edited("JobDefinition", |schema| {
        let spec = schema["fields"].as_array_mut().expect("fields").last_mut().expect("spec");
        let fields = spec["type"]["fields"].as_array_mut().expect("fields");
        let target = fields.iter_mut().find(|field| field["name"] == "target").expect("target");
        let fields = json!([{"name": "image", "type": "string"}]);
        let branch = json!({"type": "record", "name": "PodTarget", "fields": fields});
        target["type"].as_array_mut().expect("branches").push(branch);
    });
    let mut fields = value_of(&samples::definition());
    let Value::Record(spec) = &mut fields.last_mut().expect("spec").1 else { panic!("no record") };
    let pod = Value::Record(vec![("image".to_owned(), Value::String("a:1".to_owned()))]);
    set(spec, "target", Value::Union(5, Box::new(pod)));
    let body = GenericDatumWriter::builder(writer.schema()).build().expect("writer");
    let body = body.write_value_to_vec(Value::Record(fields)).expect("encodes");
    let error = codec::decode_written_with::<JobDefinition>(&writer, &body).expect_err("refused");
    let problem = "field `spec` holds field `target` holds a `orloj.PodTarget`, which this version does not know";
    assert_eq!(error, DecodeError::Invalid { record: "JobDefinition", problem: problem.to_owned() });
}

fn check_text(error: &DecodeError) {
    let text = error.to_string();
    assert!(text.chars().count() <= ERROR_CHARS_MAX && !text.contains("\"type\""), "{text}");
}

#[test]
fn broken_bytes_are_errors_of_their_kind() {
    let bytes = codec::encode(&samples::requested());
    for length in 0..bytes.len() {
        check_text(&codec::decode::<FireDecision>(&bytes[..length]).expect_err("truncated"));
    }
    let truncated = codec::decode::<FireDecision>(&bytes[..bytes.len() - 1]);
    assert_eq!(truncated, Err(DecodeError::Truncated { record: "FireDecision" }));
    let longer = [&bytes[..], &[0, 0]].concat();
    let left_over = codec::decode::<FireDecision>(&longer);
    assert_eq!(left_over, Err(DecodeError::LeftOver { record: "FireDecision", bytes: 2 }));
    let other = codec::decode::<RunnerHeartbeat>(&bytes);
    assert_eq!(other, Err(DecodeError::OtherRecord { record: "RunnerHeartbeat", found: "FireDecision" }));
    let mut foreign = bytes.clone();
    foreign[2] ^= 1;
    assert!(matches!(codec::decode::<FireDecision>(&foreign), Err(DecodeError::UnknownSchema { .. })));
    // Any byte may be wrong: an error or another record, never a panic, never a huge allocation.
    for position in HEADER_BYTES..bytes.len() {
        for byte in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
            let mut broken = bytes.clone();
            broken[position] = byte;
            if let Err(error) = codec::decode::<FireDecision>(&broken) {
                check_text(&error);
            }
        }
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_it_is_believed() {
    let mut bytes = codec::encode(&samples::barrier());
    bytes.truncate(HEADER_BYTES);
    // The length of the first text: 2^40 as a zigzag number.
    bytes.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x40]);
    let error = codec::decode::<orloj_domain::owner::Barrier>(&bytes).expect_err("refused");
    assert!(error.to_string().contains("4194304 bytes"), "{error}");
}

#[test]
fn an_id_that_breaks_its_rule_is_named() {
    let mut fields = value_of(&samples::definition());
    set(&mut fields, "job", Value::String("No Job".to_owned()));
    let schema = WriterSchema::parse(schemas::current("JobDefinition").expect("schema")).expect("schema");
    let writer = GenericDatumWriter::builder(schema.schema()).build().expect("writer");
    let body = writer.write_value_to_vec(Value::Record(fields)).expect("encodes");
    let error = codec::decode_written_with::<JobDefinition>(&schema, &body).expect_err("refused");
    assert_eq!(error.to_string(), "no JobDefinition: `No Job` is not a valid job id: write `namespace/name`");
}

#[test]
fn confluent_framing_is_read_whatever_its_id() {
    let definition = samples::definition();
    let body = &codec::encode(&definition)[HEADER_BYTES..];
    let framed = [&[0, 0, 0, 4, 210], body].concat();
    assert_eq!(confluent::decode::<JobDefinition>(&framed), Ok(definition));
    let longer = [&framed[..], &[1]].concat();
    assert!(matches!(confluent::decode::<JobDefinition>(&longer), Err(DecodeError::LeftOver { bytes: 1, .. })));
    assert!(matches!(confluent::decode::<JobDefinition>(&framed[..4]), Err(DecodeError::Truncated { .. })));
}

#[test]
fn a_definition_is_read_with_its_key() {
    let definition = samples::definition();
    let value = codec::encode(&definition);
    assert_eq!(input::decode_definition(Some(b"billing/nightly-invoice"), &value).as_ref(), Ok(&definition));
    for key in [None, Some(&b"a/b"[..])] {
        let refused = input::decode_definition(key, &value).expect_err("refused");
        assert_eq!(refused.errors[0].field, "key");
    }
    let manifest = json!({
        "apiVersion": "orloj/v1", "kind": "Job", "metadata": {"namespace": "a", "name": "b"},
        "spec": {"schedule": {"cron": "0 5 * * *"}, "run": {"exec": {"command": ["true"]}}}
    });
    let read = input::decode_definition(Some(b"a/b"), manifest.to_string().as_bytes()).expect("a valid manifest");
    assert_eq!(read.job.as_str(), "a/b");
    let broken = manifest.to_string().replace("0 5", "61 5");
    let refused = input::decode_definition(Some(b"a/b"), broken.as_bytes()).expect_err("refused");
    assert!(refused.to_string().contains("cron"), "{refused}");
}
