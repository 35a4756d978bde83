//! Which schema wrote a value: CRC-64-AVRO over the Parsing Canonical Form, as Java and Python compute it.
//! apache-avro keeps `{"type":"long"}` where a logical type stood, the others write `"long"`; so we do it here.
//! Invariant: equal to fastavro's fingerprint for every schema we ship (`tests/golden/check.py`).

use std::fmt::Write as _;

use serde_json::Value;

/// Fingerprint of the empty text: the polynomial itself.
const EMPTY: u64 = 0xc15d_213a_a4d7_a795;

const TABLE: [u64; 256] = table();

const fn table() -> [u64; 256] {
    let mut table = [0_u64; 256];
    let mut index = 0;
    while index < 256 {
        let mut fingerprint = index as u64;
        let mut bit = 0;
        while bit < 8 {
            fingerprint = (fingerprint >> 1) ^ (EMPTY & (fingerprint & 1).wrapping_neg());
            bit += 1;
        }
        table[index] = fingerprint;
        index += 1;
    }
    table
}

/// Fingerprint of a schema, given as parsed JSON.
#[must_use]
pub fn of_schema(schema: &Value) -> u64 {
    of_text(&canonical_form(schema))
}

/// CRC-64-AVRO of a text (Avro specification, "Schema Fingerprints").
#[must_use]
pub fn of_text(text: &str) -> u64 {
    text.bytes()
        .fold(EMPTY, |fingerprint, byte| (fingerprint >> 8) ^ TABLE[usize::from(fingerprint.to_le_bytes()[0] ^ byte)])
}

/// Parsing Canonical Form: names in full, only what matters to parsing data, in fixed order, without spaces.
#[must_use]
pub fn canonical_form(schema: &Value) -> String {
    let mut out = String::new();
    write_schema(schema, "", &mut out);
    out
}

/// The full name of what `name` means within `namespace`.
fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() || is_primitive(name) {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

fn is_primitive(name: &str) -> bool {
    matches!(name, "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string")
}

fn write_text(text: &str, out: &mut String) {
    // Names and symbols are ASCII without quotes by Avro's grammar, so that nothing needs escaping.
    let _ = write!(out, "\"{text}\"");
}

fn write_list<'a>(items: impl Iterator<Item = &'a Value>, out: &mut String, mut each: impl FnMut(&Value, &mut String)) {
    out.push('[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        each(item, out);
    }
    out.push(']');
}

fn list<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn write_schema(schema: &Value, namespace: &str, out: &mut String) {
    if let Some(name) = schema.as_str() {
        return write_text(&full_name(name, namespace), out);
    }
    if let Some(branches) = schema.as_array() {
        return write_list(branches.iter(), out, |branch, out| write_schema(branch, namespace, out));
    }
    match schema.get("type").and_then(Value::as_str) {
        Some(kind @ ("record" | "error" | "enum" | "fixed")) => write_named(schema, kind, namespace, out),
        Some("array") => {
            out.push_str("{\"type\":\"array\",\"items\":");
            write_schema(&schema["items"], namespace, out);
            out.push('}');
        }
        Some("map") => {
            out.push_str("{\"type\":\"map\",\"values\":");
            write_schema(&schema["values"], namespace, out);
            out.push('}');
        }
        // A type with attributes, a logical type for example, is the type.
        Some(_) | None => write_schema(schema.get("type").unwrap_or(&Value::Null), namespace, out),
    }
}

fn write_named(schema: &Value, kind: &str, namespace: &str, out: &mut String) {
    let own_namespace = schema.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
    let name = full_name(schema.get("name").and_then(Value::as_str).unwrap_or_default(), own_namespace);
    let inner_namespace = name.rsplit_once('.').map_or("", |(inner, _)| inner);
    out.push_str("{\"name\":");
    write_text(&name, out);
    out.push_str(",\"type\":");
    write_text(kind, out);
    match kind {
        "enum" => {
            out.push_str(",\"symbols\":");
            write_list(list(schema, "symbols"), out, |symbol, out| {
                write_text(symbol.as_str().unwrap_or_default(), out)
            });
        }
        "fixed" => {
            let _ = write!(out, ",\"size\":{}", schema.get("size").and_then(Value::as_u64).unwrap_or_default());
        }
        _ => {
            out.push_str(",\"fields\":");
            write_list(list(schema, "fields"), out, |field, out| {
                out.push_str("{\"name\":");
                write_text(field.get("name").and_then(Value::as_str).unwrap_or_default(), out);
                out.push_str(",\"type\":");
                write_schema(&field["type"], inner_namespace, out);
                out.push('}');
            });
        }
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &str, canonical: &str, fingerprint: u64) {
        let schema: Value = serde_json::from_str(schema).expect("JSON");
        assert_eq!(canonical_form(&schema), canonical);
        assert_eq!(of_schema(&schema), fingerprint, "{canonical}");
    }

    /// Pairs from Avro's own `share/test/data/schema-tests.txt`.
    #[test]
    fn fingerprints_are_those_of_avros_own_test_data() {
        check("\"null\"", "\"null\"", 7_195_948_357_588_979_594);
        check("{\"type\":\"null\"}", "\"null\"", 7_195_948_357_588_979_594);
        check("\"int\"", "\"int\"", 8_247_732_601_305_521_295);
        check("\"string\"", "\"string\"", (-8_142_146_995_180_207_161_i64).cast_unsigned());
        check("[\"int\"  ]", "[\"int\"]", (-5_232_228_896_498_058_493_i64).cast_unsigned());
        check(
            "{\"fields\":[], \"type\":\"record\", \"name\":\"foo\"}",
            "{\"name\":\"foo\",\"type\":\"record\",\"fields\":[]}",
            (-4_824_392_279_771_201_922_i64).cast_unsigned(),
        );
    }

    #[test]
    fn a_logical_type_is_its_type() {
        let schema = "{\"type\":\"long\",\"logicalType\":\"timestamp-millis\"}";
        let schema: Value = serde_json::from_str(schema).expect("JSON");
        assert_eq!(canonical_form(&schema), "\"long\"");
    }
}
