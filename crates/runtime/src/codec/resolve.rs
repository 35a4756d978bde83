//! A value under its writer's schema → the same under ours (Avro specification, "Schema Resolution").
//! apache-avro picks a branch of a union by trying which record fits, and takes the first whose fields have
//! defaults: a target of one kind would become another. Here branches are matched by name.
//! Invariant: a branch or type that ours does not have is an error; a symbol becomes its enum's default.

use apache_avro::Schema;
use apache_avro::schema::{EnumSchema, RecordField, SchemaKind, UnionSchema};
use apache_avro::types::Value;
use serde_json::Value as Json;

use super::WriterSchema;

/// Rewrites `value`, which `writer` describes, as `reader` describes it; an error says what has no place there.
pub(super) fn resolve(value: Value, writer: &WriterSchema, reader: &WriterSchema) -> Result<Value, String> {
    Resolver { writer, reader }.resolve(value, writer.schema(), reader.schema())
}

struct Resolver<'a> {
    writer: &'a WriterSchema,
    reader: &'a WriterSchema,
}

/// A reference is what it refers to.
fn look_up<'s>(schema: &'s Schema, owner: &'s WriterSchema) -> &'s Schema {
    if let Schema::Ref { name } = schema { owner.names().get(name).copied().unwrap_or(schema) } else { schema }
}

impl Resolver<'_> {
    fn resolve(&self, value: Value, from: &Schema, to: &Schema) -> Result<Value, String> {
        let from = look_up(from, self.writer);
        let to = look_up(to, self.reader);
        match (value, from, to) {
            (Value::Union(index, inner), Schema::Union(union), _) => {
                let branch = usize::try_from(index).ok().and_then(|index| union.variants().get(index));
                self.resolve(*inner, branch.ok_or("a branch that its schema does not have")?, to)
            }
            (value, from, Schema::Union(union)) => {
                let index = self.branch_of(from, union)?;
                let resolved = self.resolve(value, from, &union.variants()[index])?;
                Ok(Value::Union(u32::try_from(index).unwrap_or(u32::MAX), Box::new(resolved)))
            }
            (Value::Record(values), Schema::Record(from), Schema::Record(to)) => {
                self.resolve_record(values, &from.fields, &to.fields)
            }
            (Value::Enum(_, symbol), Schema::Enum(_), Schema::Enum(to)) => resolve_symbol(symbol, to),
            (Value::Array(items), Schema::Array(from), Schema::Array(to)) => items
                .into_iter()
                .map(|item| self.resolve(item, &from.items, &to.items))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            (Value::Map(items), Schema::Map(from), Schema::Map(to)) => items
                .into_iter()
                .map(|(key, item)| Ok((key, self.resolve(item, &from.types, &to.types)?)))
                .collect::<Result<_, String>>()
                .map(Value::Map),
            // Numbers and texts: Avro's promotions, which the crate knows.
            (value, _, to) => value.resolve(to).map_err(|_| "a value of another type".to_owned()),
        }
    }

    fn resolve_record(
        &self,
        mut values: Vec<(String, Value)>,
        from: &[RecordField],
        to: &[RecordField],
    ) -> Result<Value, String> {
        let mut fields = Vec::with_capacity(to.len());
        for field in to {
            let source = from.iter().find(|source| source.name == field.name || field.aliases.contains(&source.name));
            let position = source.and_then(|source| values.iter().position(|(name, _)| *name == source.name));
            let resolved = match (source, position) {
                (Some(source), Some(position)) => {
                    self.resolve(values.swap_remove(position).1, &source.schema, &field.schema)
                }
                _ => match &field.default {
                    Some(default) => self.default_of(default, &field.schema),
                    None => Err("nothing, though it has no default".to_owned()),
                },
            };
            let resolved = resolved.map_err(|problem| format!("field `{}` holds {problem}", field.name))?;
            fields.push((field.name.clone(), resolved));
        }
        Ok(Value::Record(fields))
    }

    /// The branch that has the writer's name, or its type if it has no name, or one that it can be promoted to.
    fn branch_of(&self, from: &Schema, union: &UnionSchema) -> Result<usize, String> {
        let branches = || union.variants().iter().map(|branch| look_up(branch, self.reader)).enumerate();
        let is_same = |to: &Schema| SchemaKind::from(from) == SchemaKind::from(to) && from.name() == to.name();
        let is_wider = |to: &Schema| {
            matches!(
                (from, to),
                (Schema::Int, Schema::Long | Schema::Float | Schema::Double)
                    | (Schema::Long, Schema::Float | Schema::Double)
                    | (Schema::Float, Schema::Double)
                    | (Schema::String, Schema::Bytes)
                    | (Schema::Bytes, Schema::String)
            )
        };
        let found = branches().find(|(_, to)| is_same(to)).or_else(|| branches().find(|(_, to)| is_wider(to)));
        found.map(|(index, _)| index).ok_or_else(|| match from.name() {
            Some(name) => format!("a `{name}`, which this version does not know"),
            None => "a value of another type".to_owned(),
        })
    }

    /// The default of a field as a value: of a union, it belongs to the first branch.
    fn default_of(&self, json: &Json, schema: &Schema) -> Result<Value, String> {
        let wrong = || "a default that does not fit its schema".to_owned();
        match (look_up(schema, self.reader), json) {
            (Schema::Union(union), json) => {
                let first = union.variants().first().ok_or_else(wrong)?;
                Ok(Value::Union(0, Box::new(self.default_of(json, first)?)))
            }
            (Schema::Record(record), Json::Object(object)) => {
                let field = |field: &RecordField| {
                    let json = object.get(&field.name).or(field.default.as_ref()).ok_or_else(wrong)?;
                    Ok((field.name.clone(), self.default_of(json, &field.schema)?))
                };
                record.fields.iter().map(field).collect::<Result<_, String>>().map(Value::Record)
            }
            (Schema::Array(array), Json::Array(items)) => {
                items.iter().map(|item| self.default_of(item, &array.items)).collect::<Result<_, _>>().map(Value::Array)
            }
            (Schema::Map(map), Json::Object(items)) => items
                .iter()
                .map(|(key, item)| Ok((key.clone(), self.default_of(item, &map.types)?)))
                .collect::<Result<_, String>>()
                .map(Value::Map),
            (Schema::Enum(to), Json::String(symbol)) => resolve_symbol(symbol.clone(), to),
            // Avro writes bytes as a text of the code points 0 to 255.
            (Schema::Bytes, Json::String(text)) => {
                let bytes = text.chars().map(|point| u8::try_from(u32::from(point)).map_err(|_| wrong()));
                bytes.collect::<Result<_, _>>().map(Value::Bytes)
            }
            (schema, json) => {
                Value::try_from(json.clone()).and_then(|value| value.resolve(schema)).map_err(|_| wrong())
            }
        }
    }
}

fn resolve_symbol(symbol: String, to: &EnumSchema) -> Result<Value, String> {
    let position = |symbol: &str| to.symbols.iter().position(|known| known == symbol);
    let found = match position(&symbol) {
        Some(index) => Some((index, symbol)),
        None => to.default.clone().and_then(|default| Some((position(&default)?, default))),
    };
    let (index, symbol) = found.ok_or("a word that this version does not know")?;
    Ok(Value::Enum(u32::try_from(index).unwrap_or(u32::MAX), symbol))
}
