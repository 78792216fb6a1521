//! A JSON document that keeps the order of its keys.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Value;

use super::key::{Key, RESOURCES, Step};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// An object, in its order.
    Object(Vec<(String, Node)>),
    /// A list.
    List(Vec<Node>),
    /// Anything else.
    Leaf(Value),
}

impl Node {
    pub(super) fn text(text: &str) -> Node {
        Node::Leaf(Value::String(text.to_owned()))
    }

    pub(super) fn null() -> Node {
        Node::Leaf(Value::Null)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Node> {
        key.steps().iter().try_fold(self, |node, step| match (node, step) {
            (Node::Object(entries), Step::Name(name)) => {
                entries.iter().find(|(key, _)| key == name).map(|(_, node)| node)
            }
            (Node::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        })
    }

    /// Sets `key`; what leads to it is made.
    pub(super) fn set(&mut self, key: &Key, value: Node) -> Result<(), String> {
        let mut node = self;
        for (done, step) in key.steps().iter().enumerate() {
            let above = || match done {
                0 => "the document".to_owned(),
                _ => key.steps()[..done].iter().map(step_text).collect::<Vec<_>>().join("."),
            };
            node = match step {
                Step::Name(name) => node.entry(name).ok_or_else(|| format!("{} is no object", above()))?,
                Step::Index(index) => {
                    node.item(*index).map_err(|problem| format!("{}: {problem}", above()))?
                }
            };
        }
        *node = value;
        Ok(())
    }

    fn entry(&mut self, name: &str) -> Option<&mut Node> {
        if *self == Node::null() {
            *self = Node::Object(Vec::new());
        }
        let Node::Object(entries) = self else { return None };
        let at = entries.iter().position(|(key, _)| key == name).unwrap_or_else(|| {
            entries.push((name.to_owned(), Node::null()));
            entries.len() - 1
        });
        Some(&mut entries[at].1)
    }

    fn item(&mut self, index: usize) -> Result<&mut Node, String> {
        if *self == Node::null() {
            *self = Node::List(Vec::new());
        }
        let Node::List(items) = self else { return Err("it is no list".to_owned()) };
        if index == items.len() {
            items.push(Node::null());
        }
        let there = items.len();
        items.get_mut(index).ok_or_else(|| format!("the list has {there} items; the next one is [{there}]"))
    }

    /// Removes `key`, if it is there. A limit takes what was only there for it along; elsewhere an empty object says
    /// something: a mount without options is a mount.
    pub(super) fn remove(&mut self, key: &Key) {
        let limits = matches!(key.steps(), [Step::Name(first), ..] if first == RESOURCES);
        self.remove_steps(key.steps(), limits);
    }

    fn remove_steps(&mut self, steps: &[Step], tidy: bool) {
        let [step, rest @ ..] = steps else { return };
        let Some((at, child)) = self.child(step) else { return };
        if !rest.is_empty() {
            child.remove_steps(rest, tidy);
            if !(tidy && matches!(child, Node::Object(entries) if entries.is_empty())) {
                return;
            }
        }
        match self {
            Node::Object(entries) => drop(entries.remove(at)),
            Node::List(items) => drop(items.remove(at)),
            Node::Leaf(_) => {}
        }
    }

    fn child(&mut self, step: &Step) -> Option<(usize, &mut Node)> {
        match (self, step) {
            (Node::Object(entries), Step::Name(name)) => {
                let at = entries.iter().position(|(key, _)| key == name)?;
                Some((at, &mut entries[at].1))
            }
            (Node::List(items), Step::Index(index)) => Some((*index, items.get_mut(*index)?)),
            _ => None,
        }
    }

    /// As a file.
    pub(super) fn to_text(&self) -> String {
        // Keys are texts and numbers finite: there is nothing that cannot be written.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

fn step_text(step: &Step) -> String {
    match step {
        Step::Name(name) => name.clone(),
        Step::Index(index) => format!("[{index}]"),
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Object(entries) => serializer.collect_map(entries.iter().map(|(key, node)| (key, node))),
            Node::List(items) => serializer.collect_seq(items),
            Node::Leaf(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::text(text))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::null())
    }
}
