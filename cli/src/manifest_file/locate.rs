//! Where each field of a YAML document stands, so that complaints about a field can name line and column. Not
//! here: what fields mean. Invariant: a field that is not found is answered with the nearest one around it.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

/// A line and a column, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// One document: the place of each node and nothing of its values.
#[derive(Debug)]
pub(super) enum Node {
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Leaf,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNode;

        impl<'de> Visitor<'de> for AnyNode {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML node")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key()? {
                    entries.push((key, map.next_value()?));
                }
                Ok(Node::Map(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
        }
        deserializer.deserialize_any(AnyNode)
    }
}

/// Where `path`, for example `spec.schedule[1].cron`, stands; where its nearest ancestor does, if it is absent.
pub(super) fn place_of(document: &Spanned<Node>, path: &str) -> Place {
    let mut place = Place::from(document.referenced);
    let mut node = &document.value;
    let mut rest = path;
    while !rest.is_empty() {
        let Some((found_place, found, after)) = step(node, rest) else { break };
        (place, node, rest) = (found_place, found, after);
    }
    place
}

/// Keys may hold dots themselves (labels do), so the longest key that the path starts with is taken.
fn step<'a, 'p>(node: &'a Node, path: &'p str) -> Option<(Place, &'a Node, &'p str)> {
    let path = path.strip_prefix('.').unwrap_or(path);
    match node {
        Node::Map(entries) => entries
            .iter()
            .filter_map(|(key, value)| {
                let after = path.strip_prefix(key.value.as_str())?;
                let is_whole = after.is_empty() || after.starts_with(['.', '[']);
                is_whole.then(|| (Place::from(value.referenced), &value.value, after))
            })
            .min_by_key(|(_, _, after)| after.len()),
        Node::List(items) => {
            let (index, after) = path.strip_prefix('[')?.split_once(']')?;
            let item = items.get(index.parse::<usize>().ok()?)?;
            Some((Place::from(item.referenced), &item.value, after))
        }
        Node::Leaf => None,
    }
}

/// The path of the field whose name or value stands at `place`, if there is one; the deepest such field.
pub(super) fn path_at(document: &Spanned<Node>, place: Place) -> Option<String> {
    search(&document.value, "", place)
}

fn search(node: &Node, path: &str, place: Place) -> Option<String> {
    match node {
        Node::Map(entries) => entries.iter().find_map(|(key, value)| {
            let inner = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
            search(&value.value, &inner, place).or_else(|| {
                let is_here = Place::from(key.referenced) == place || Place::from(value.referenced) == place;
                is_here.then_some(inner)
            })
        }),
        Node::List(items) => items.iter().enumerate().find_map(|(index, item)| {
            let inner = format!("{path}[{index}]");
            search(&item.value, &inner, place).or_else(|| (Place::from(item.referenced) == place).then_some(inner))
        }),
        Node::Leaf => None,
    }
}
