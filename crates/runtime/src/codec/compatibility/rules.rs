//! Our own rules between two versions of a schema, and between files of one version. Not here: what the Avro
//! library checks. Invariant: each rule names the path of what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Finding;

/// Walks both schemas side by side.
pub(super) fn check_pair(subject: &str, old: &Value, new: &Value) -> Vec<Finding> {
    let mut walk = Walk {
        subject,
        old_names: names_of(old),
        new_names: names_of(new),
        seen: BTreeSet::new(),
        findings: Vec::new(),
    };
    walk.compare("", (old, ""), (new, ""));
    let enums: Vec<(String, Value)> = walk
        .new_names
        .iter()
        .filter(|(_, schema)| schema["type"] == "enum")
        .map(|(n, s)| (n.clone(), s.clone()))
        .collect();
    for (name, schema) in enums {
        let is_symbol = list(&schema, "symbols").iter().any(|symbol| Some(symbol) == schema.get("default"));
        if !is_symbol {
            walk.find(
                &name,
                "the enum has no default among its symbols; a reader needs one for symbols it does not know",
            );
        }
    }
    walk.findings
}

/// Every definition of one name must be the same in all files.
pub(super) fn check_definitions(files: &BTreeMap<String, String>) -> Vec<Finding> {
    let mut known: BTreeMap<String, (&str, Value)> = BTreeMap::new();
    let mut findings = Vec::new();
    for (record, text) in files {
        let Ok(schema) = serde_json::from_str::<Value>(text) else { continue };
        let names = names_of(&schema);
        for (name, definition) in &names {
            let definition = spelled_out(definition, "", &names, &mut BTreeSet::new());
            match known.get(name) {
                Some((other, first)) if *first != definition => findings.push(Finding {
                    subject: record.clone(),
                    place: name.clone(),
                    problem: format!("is defined otherwise than in {other}"),
                }),
                Some(_) => {}
                None => {
                    known.insert(name.clone(), (record, definition));
                }
            }
        }
    }
    findings
}

/// A named definition with its full name and namespace written into it.
fn names_of(schema: &Value) -> BTreeMap<String, Value> {
    let mut names = BTreeMap::new();
    collect_names(schema, "", &mut names);
    names
}

fn collect_names(schema: &Value, namespace: &str, names: &mut BTreeMap<String, Value>) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|branch| collect_names(branch, namespace, names)),
        Value::Object(_) => {
            let name = named(schema, namespace);
            let inner = name.as_deref().map_or(namespace, namespace_of).to_owned();
            if let Some(name) = name {
                let mut definition = schema.clone();
                definition["namespace"] = Value::String(inner.clone());
                names.insert(name, definition);
            }
            list(schema, "fields").iter().for_each(|field| collect_names(&field["type"], &inner, names));
            for key in ["type", "items", "values"] {
                schema.get(key).into_iter().for_each(|part| collect_names(part, &inner, names));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The definition with every reference replaced by what it refers to; a name within itself stays.
fn spelled_out(schema: &Value, namespace: &str, names: &BTreeMap<String, Value>, open: &mut BTreeSet<String>) -> Value {
    match schema {
        Value::String(name) => match names.get(&full_name(name, namespace)) {
            Some(definition) => spelled_out(definition, namespace, names, open),
            None => schema.clone(),
        },
        Value::Array(branches) => branches.iter().map(|branch| spelled_out(branch, namespace, names, open)).collect(),
        Value::Object(object) => {
            let name = named(schema, namespace);
            let inner = name.as_deref().map_or(namespace, namespace_of).to_owned();
            if let Some(name) = &name
                && !open.insert(name.clone())
            {
                return Value::String(name.clone());
            }
            let mut object = object.clone();
            if let Some(name) = &name {
                object.insert("name".to_owned(), Value::String(name.clone()));
                object.remove("namespace");
            }
            for key in ["items", "values"] {
                if let Some(part) = object.get_mut(key) {
                    *part = spelled_out(part, &inner, names, open);
                }
            }
            for field in object.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
                field["type"] = spelled_out(&field["type"], &inner, names, open);
            }
            name.iter().for_each(|name| {
                open.remove(name);
            });
            Value::Object(object)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => schema.clone(),
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn namespace_of(full_name: &str) -> &str {
    full_name.rsplit_once('.').map_or("", |(namespace, _)| namespace)
}

/// The full name of a definition; nothing for other schemas.
fn named(schema: &Value, namespace: &str) -> Option<String> {
    let is_named = matches!(schema["type"].as_str(), Some("record" | "error" | "enum" | "fixed"));
    let own = schema.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
    schema.get("name").and_then(Value::as_str).filter(|_| is_named).map(|name| full_name(name, own))
}

fn list<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

struct Walk<'a> {
    subject: &'a str,
    old_names: BTreeMap<String, Value>,
    new_names: BTreeMap<String, Value>,
    /// Definitions compared already: a definition may contain itself.
    seen: BTreeSet<String>,
    findings: Vec<Finding>,
}

impl Walk<'_> {
    fn find(&mut self, place: &str, problem: impl Into<String>) {
        let finding = Finding { subject: self.subject.to_owned(), place: place.to_owned(), problem: problem.into() };
        self.findings.push(finding);
    }

    /// Compares two schemas, each with the namespace it stands in.
    fn compare(&mut self, place: &str, old: (&Value, &str), new: (&Value, &str)) {
        let old_definition = look_up(old, &self.old_names);
        let new_definition = look_up(new, &self.new_names);
        let (old_schema, new_schema) = (&old_definition, &new_definition);
        let (old_name, new_name) = (named(old_schema, old.1), named(new_schema, new.1));
        if old_name != new_name {
            let unnamed = || "none".to_owned();
            let (old_name, new_name) = (old_name.unwrap_or_else(unnamed), new_name.unwrap_or_else(unnamed));
            return self.find(place, format!("the name was `{old_name}` and is `{new_name}`; names stay"));
        }
        let logical = |schema: &Value| schema.get("logicalType").cloned().unwrap_or(Value::Null);
        if logical(old_schema) != logical(new_schema) {
            let problem = format!("logicalType was {} and is {}; it stays", logical(old_schema), logical(new_schema));
            self.find(place, problem);
        }
        if let (Value::Array(old_branches), Value::Array(new_branches)) = (old_schema, new_schema) {
            return self.compare_branches(place, (old_branches, old.1), (new_branches, new.1));
        }
        for key in ["items", "values"] {
            if let (Some(old_part), Some(new_part)) = (old_schema.get(key), new_schema.get(key)) {
                self.compare(place, (old_part, old.1), (new_part, new.1));
            }
        }
        if let Some(name) = new_name
            && self.seen.insert(name.clone())
        {
            self.compare_symbols(&name, old_schema, new_schema);
            self.compare_fields(&name, old_schema, new_schema);
        }
    }

    /// Branches are compared by name; a branch without one is the Avro library's matter.
    fn compare_branches(&mut self, place: &str, old: (&[Value], &str), new: (&[Value], &str)) {
        for old_branch in old.0 {
            let old_definition = look_up((old_branch, old.1), &self.old_names);
            let kind = |schema: &Value| schema.get("type").unwrap_or(schema).clone();
            let wanted = (named(&old_definition, old.1), kind(&old_definition));
            let found = new.0.iter().find(|branch| {
                let definition = look_up((branch, new.1), &self.new_names);
                (named(&definition, new.1), kind(&definition)) == wanted
            });
            match found {
                Some(new_branch) => self.compare(place, (old_branch, old.1), (new_branch, new.1)),
                None => {
                    let branch = wanted.0.unwrap_or_else(|| wanted.1.to_string());
                    self.find(place, format!("the branch `{branch}` is gone; branches stay"));
                }
            }
        }
    }

    fn compare_symbols(&mut self, name: &str, old: &Value, new: &Value) {
        for symbol in list(old, "symbols") {
            if !list(new, "symbols").contains(symbol) {
                let symbol = symbol.as_str().unwrap_or_default();
                self.find(name, format!("the symbol `{symbol}` is gone; symbols stay"));
            }
        }
    }

    fn compare_fields(&mut self, name: &str, old: &Value, new: &Value) {
        let namespace = namespace_of(name);
        let field_name = |field: &Value| field["name"].as_str().unwrap_or_default().to_owned();
        for old_field in list(old, "fields") {
            let place = format!("{name}.{}", field_name(old_field));
            match list(new, "fields").iter().find(|field| field["name"] == old_field["name"]) {
                Some(new_field) => {
                    self.compare(&place, (&old_field["type"], namespace), (&new_field["type"], namespace));
                    if old_field.get("default").is_some() && new_field.get("default").is_none() {
                        self.find(&place, "the default is gone; it stays");
                    }
                }
                None if old_field.get("default").is_none() => {
                    self.find(&place, "the field is gone and had no default; older readers need it");
                }
                None => {}
            }
        }
        for new_field in list(new, "fields") {
            let is_new = !list(old, "fields").iter().any(|field| field["name"] == new_field["name"]);
            if is_new && new_field.get("default").is_none() {
                let place = format!("{name}.{}", field_name(new_field));
                self.find(&place, "a new field must have a default; older values lack it");
            }
        }
    }
}

/// A reference is what it refers to.
fn look_up((schema, namespace): (&Value, &str), names: &BTreeMap<String, Value>) -> Value {
    let definition = schema.as_str().and_then(|name| names.get(&full_name(name, namespace)));
    definition.unwrap_or(schema).clone()
}
