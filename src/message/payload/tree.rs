//! A payload between its text, JSON or XML, and its type.
//!
//! serde makes code for each pair of a type and a format. Both formats come to this one, so that each type has its code
//! once (`docs/size.md`).

use super::Unreadable;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Error as _, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use std::borrow::Cow;
use std::vec::IntoIter;

/// Under this name `serde_json::Value` takes a text for JSON and reads that too, each time with its whole depth: texts
/// inside of texts would use up the stack.
const RAW: &str = "$serde_json::private::RawValue";

/// Names and values in their order; a name may stand twice, until they are read.
pub(super) type Fields<'a> = Vec<(Cow<'a, str>, Tree<'a>)>;

/// A value. JSON says what each is; XML leaves that to whoever reads it.
#[derive(Debug)]
pub(super) enum Tree<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// In XML, elements of one name behind one another.
    List(Vec<Tree<'a>>),
    Map(Fields<'a>),
    /// An XML element without children: a text, a number, a truth value, or an empty map.
    Word(String),
    /// An XML element with children: a map.
    Element(Fields<'a>),
}

enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

/// As which number a word is read.
#[derive(Clone, Copy)]
enum Kind {
    Unsigned,
    Signed,
    Float,
}

/// What is the same for all types stands here, outside of what is made for each.
impl<'a> Tree<'a> {
    fn invalid(&self, expected: &dyn Expected) -> Unreadable {
        let seen = match self {
            Self::Null => Unexpected::Other("null"),
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Unsigned(number) => Unexpected::Unsigned(*number),
            Self::Signed(number) => Unexpected::Signed(*number),
            Self::Float(number) => Unexpected::Float(*number),
            Self::Text(text) => Unexpected::Str(text),
            Self::Word(text) => Unexpected::Str(text.trim()),
            Self::List(_) => Unexpected::Seq,
            Self::Map(_) | Self::Element(_) => Unexpected::Map,
        };
        Unreadable::invalid_type(seen, expected)
    }

    fn number(&self, kind: Kind, expected: &dyn Expected) -> Result<Number, Unreadable> {
        let number = match (self, kind) {
            (Self::Unsigned(number), _) => Some(Number::Unsigned(*number)),
            (Self::Signed(number), _) => Some(Number::Signed(*number)),
            (Self::Float(number), _) => Some(Number::Float(*number)),
            (Self::Word(text), Kind::Unsigned) => text.trim().parse().ok().map(Number::Unsigned),
            (Self::Word(text), Kind::Signed) => text.trim().parse().ok().map(Number::Signed),
            (Self::Word(text), Kind::Float) => {
                let number = text.trim().parse().ok();
                // JSON has no others either.
                number.filter(|n: &f64| n.is_finite()).map(Number::Float)
            }
            _ => None,
        };
        number.ok_or_else(|| self.invalid(expected))
    }

    fn truth(&self, expected: &dyn Expected) -> Result<bool, Unreadable> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::Word(text) if matches!(text.trim(), "true" | "1") => Ok(true),
            Self::Word(text) if matches!(text.trim(), "false" | "0") => Ok(false),
            _ => Err(self.invalid(expected)),
        }
    }

    fn text(self, expected: &dyn Expected) -> Result<Cow<'a, str>, Unreadable> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Word(text) => Ok(text.into()),
            _ => Err(self.invalid(expected)),
        }
    }

    /// One of some words that are known.
    fn word(&self, expected: &dyn Expected) -> Result<&str, Unreadable> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Word(text) => Ok(text.trim()),
            _ => Err(self.invalid(expected)),
        }
    }

    fn list(self, expected: &dyn Expected) -> Result<Items<'a>, Unreadable> {
        let list = match self {
            Self::List(list) => list,
            // It may be a list of one.
            Self::Word(_) | Self::Element(_) => vec![self],
            _ => return Err(self.invalid(expected)),
        };
        let rest = list.into_iter();
        Ok(Items { rest, passed: 0 })
    }

    /// A list is no map, though serde would take the values for fields in their order.
    fn fields(self, expected: &dyn Expected) -> Result<Pairs<'a>, Unreadable> {
        let fields = match self {
            Self::Map(fields) | Self::Element(fields) => fields,
            Self::Word(text) if text.trim().is_empty() => Vec::new(),
            _ => return Err(self.invalid(expected)),
        };
        // Which of the two was meant nobody knows.
        let mut names: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(Unreadable::custom(format!("duplicate field `{name}`")));
        }
        Ok(Pairs {
            rest: fields.into_iter(),
            name: Cow::Borrowed(""),
            value: None,
        })
    }
}

/// Reads what a number is asked for as.
macro_rules! number {
    ($($deserialize:ident $kind:ident,)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
            match self.number(Kind::$kind, &visitor)? {
                Number::Unsigned(number) => visitor.visit_u64(number),
                Number::Signed(number) => visitor.visit_i64(number),
                Number::Float(number) => visitor.visit_f64(number),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Tree<'_> {
    type Error = Unreadable;

    number! {
        deserialize_i8 Signed,
        deserialize_i16 Signed,
        deserialize_i32 Signed,
        deserialize_i64 Signed,
        deserialize_u8 Unsigned,
        deserialize_u16 Unsigned,
        deserialize_u32 Unsigned,
        deserialize_u64 Unsigned,
        deserialize_f32 Float,
        deserialize_f64 Float,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Unsigned(number) => visitor.visit_u64(number),
            Self::Signed(number) => visitor.visit_i64(number),
            Self::Float(number) => visitor.visit_f64(number),
            Self::Text(_) | Self::Word(_) => self.deserialize_string(visitor),
            Self::List(_) => self.deserialize_seq(visitor),
            Self::Map(_) | Self::Element(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let value = self.truth(&visitor)?;
        visitor.visit_bool(value)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.text(&visitor)? {
            Cow::Borrowed(text) => visitor.visit_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.deserialize_string(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let mut items = self.list(&visitor)?;
        let value = visitor.visit_seq(&mut items)?;
        items.ended().map(|()| value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let mut pairs = self.fields(&visitor)?;
        let value = visitor.visit_map(&mut pairs)?;
        pairs.ended().map(|()| value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self {
            Self::Null => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_newtype_struct(self)
    }

    /// No payload has variants with content.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        let word = self.word(&visitor)?;
        visitor.visit_enum(StrDeserializer::new(word))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple_struct identifier
    }
}

/// What is left of a list.
struct Items<'a> {
    rest: IntoIter<Tree<'a>>,
    passed: usize,
}

impl Items<'_> {
    fn ended(&self) -> Result<(), Unreadable> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(Unreadable::custom(format!("{more} values too many"))),
        }
    }
}

impl<'de> SeqAccess<'de> for &mut Items<'_> {
    type Error = Unreadable;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unreadable> {
        let Some(item) = self.rest.next() else {
            return Ok(None);
        };
        let index = self.passed;
        self.passed += 1;
        let read = seed.deserialize(item);
        read.map(Some).map_err(|error| error.in_item(index))
    }
}

/// What is left of a map.
struct Pairs<'a> {
    rest: IntoIter<(Cow<'a, str>, Tree<'a>)>,
    /// The name that was given last.
    name: Cow<'a, str>,
    value: Option<Tree<'a>>,
}

impl<'a> Pairs<'a> {
    fn ended(&self) -> Result<(), Unreadable> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(Unreadable::custom(format!("{more} fields too many"))),
        }
    }

    fn name(&mut self) -> Result<Option<&str>, Unreadable> {
        let Some((name, value)) = self.rest.next() else {
            return Ok(None);
        };
        if name == RAW {
            return Err(Unreadable::custom(format!("no field is called {RAW}")));
        }
        self.name = name;
        self.value = Some(value);
        Ok(Some(&self.name))
    }

    fn value(&mut self) -> Result<Tree<'a>, Unreadable> {
        let value = self.value.take();
        value.ok_or_else(|| Unreadable::custom("a value was asked for before its name"))
    }

    fn wrong(&self, why: Unreadable) -> Unreadable {
        why.in_field(&self.name)
    }
}

impl<'de> MapAccess<'de> for &mut Pairs<'_> {
    type Error = Unreadable;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unreadable> {
        match self.name()? {
            Some(name) => seed.deserialize(StrDeserializer::new(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, Unreadable> {
        let value = self.value()?;
        seed.deserialize(value).map_err(|why| self.wrong(why))
    }
}
