//! XML payloads, for serde: a list is its element repeated, a map is an element with one child for each key.
//!
//! quick-xml reads the XML. Its own serde part can do much more, such as attributes and mixed content, and comes to
//! three times the code for each type (`docs/size.md`).

use crate::message::xml::resolve;
use quick_xml::Reader;
use quick_xml::events::Event;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

/// How deep elements may be nested.
const DEPTH: usize = 64;
/// Elements in a document at most: each takes far more memory than its few bytes.
const ELEMENTS: usize = 10_000;

/// Reads `text`, whose root may have any name.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let root = parse(text).map_err(Error::custom)?;
    T::deserialize(Elements(&[root]))
}

/// An element without its attributes, which mean nothing here.
#[derive(Default)]
struct Element {
    name: String,
    text: String,
    inner: Vec<Element>,
}

fn parse(text: &str) -> Result<Element, String> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    // Below the elements that are open, one that holds the root.
    let mut open = vec![Element::default()];
    let mut elements = 0;
    loop {
        let event = reader.read_event().map_err(|e| e.to_string())?;
        let depth = open.len();
        let Some(last) = open.last_mut() else { break };
        match event {
            Event::Start(tag) => {
                if depth > DEPTH {
                    return Err(format!("more than {DEPTH} elements inside one another"));
                }
                elements += 1;
                if elements > ELEMENTS {
                    return Err(format!("more than {ELEMENTS} elements"));
                }
                // A document with broken ones is no XML.
                for attribute in tag.attributes() {
                    attribute.map_err(|e| format!("broken attribute: {e}"))?;
                }
                open.push(Element {
                    name: tag.local_name().as_ref().to_owned(),
                    ..Element::default()
                });
            }
            Event::End(_) => {
                if let Some(done) = open.pop()
                    && let Some(outer) = open.last_mut()
                {
                    outer.inner.push(done);
                }
            }
            Event::Text(text) => last.text.push_str(&text.xml10_content()),
            Event::CData(text) => last.text.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) => last.text.push(resolve(&reference)?),
            Event::Eof => break,
            Event::DocType(_) => return Err("a DOCTYPE is not accepted".to_owned()),
            _ => {}
        }
    }
    let (Some(mut around), None) = (open.pop(), open.pop()) else {
        return Err("the document ends before its root element does".to_owned());
    };
    match (around.inner.pop(), around.inner.is_empty()) {
        (Some(root), true) if around.text.trim().is_empty() => Ok(root),
        _ => Err("expected one root element".to_owned()),
    }
}

/// Elements of one name, one behind the other: one of them is a value, all are a list.
struct Elements<'a>(&'a [Element]);

impl Elements<'_> {
    fn one(&self) -> Result<&Element, Error> {
        match self.0 {
            [one] => Ok(one),
            [first, ..] => Err(Error::custom(format!(
                "the element {} stands more than once",
                first.name
            ))),
            [] => Err(Error::custom("an element is missing")),
        }
    }

    /// The text where it is no number or truth value: the visitor says what it wants.
    fn word(&self) -> Result<&str, Error> {
        let one = self.one()?;
        if one.inner.is_empty() {
            return Ok(one.text.trim());
        }
        Err(Error::custom(format!(
            "the element {} holds elements where a value should be",
            one.name
        )))
    }
}

/// Hands over a number where the text is one; else the visitor says what it wants.
macro_rules! number {
    ($($deserialize:ident $visit:ident $type:ty,)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let word = self.word()?;
            match word.parse::<$type>() {
                Ok(n) => visitor.$visit(n),
                Err(_) => visitor.visit_str(word),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Elements<'_> {
    type Error = Error;

    number! {
        deserialize_i32 visit_i64 i64,
        deserialize_i64 visit_i64 i64,
        deserialize_u32 visit_u64 u64,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let word = self.word()?;
        match word.parse::<f64>() {
            // JSON has no others either.
            Ok(n) if n.is_finite() => visitor.visit_f64(n),
            _ => visitor.visit_str(word),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.word()? {
            "true" | "1" => visitor.visit_bool(true),
            "false" | "0" => visitor.visit_bool(false),
            word => visitor.visit_str(word),
        }
    }

    /// Several are a list; one with children is a map, anything else a text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.len() > 1 {
            return self.deserialize_seq(visitor);
        }
        let one = self.one()?;
        if one.inner.is_empty() {
            visitor.visit_str(&one.text)
        } else {
            self.deserialize_map(visitor)
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let one = self.one()?;
        if one.inner.is_empty() && !one.text.trim().is_empty() {
            return visitor.visit_str(&one.text);
        }
        visitor.visit_map(Children {
            rest: &one.inner,
            value: &[],
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(StrDeserializer::new(self.word()?))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u128 f32 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct identifier
    }
}

struct Items<'a>(&'a [Element]);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some((one, rest)) = self.0.split_at_checked(1) else {
            return Ok(None);
        };
        self.0 = rest;
        seed.deserialize(Elements(one)).map(Some)
    }
}

struct Children<'a> {
    rest: &'a [Element],
    value: &'a [Element],
}

impl<'de> MapAccess<'de> for Children<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some(first) = self.rest.first() else {
            return Ok(None);
        };
        let same = self.rest.iter().take_while(|e| e.name == first.name);
        (self.value, self.rest) = self.rest.split_at(same.count());
        seed.deserialize(StrDeserializer::new(&first.name))
            .map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(Elements(self.value))
    }
}
