//! JSON into a [`Tree`].

use super::Unreadable;
use super::tree::Tree;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Values in a payload that need no bytes to stand for them…
const VALUES: usize = 65_536;
/// …and one more for so many bytes of it: each takes 16 to 32 bytes of memory on a small device, and none of the fields
/// that exist takes less than these.
const BYTES_PER_VALUE: usize = 8;

/// How many values a peer's payload may have.
pub(super) fn limit(text: &str) -> usize {
    VALUES + text.len() / BYTES_PER_VALUE
}

/// Reads `text` with at most `values` values in it, at any depth.
pub(super) fn parse(text: &str, values: usize) -> Result<Tree<'_>, Unreadable> {
    let mut json = Deserializer::from_str(text);
    let mut budget = Budget { left: values };
    let tree = budget.deserialize(&mut json).and_then(|tree| {
        json.end()?;
        Ok(tree)
    });
    tree.map_err(Unreadable::custom)
}

/// Reads a list of at most `limit` items one by one: there are never trees of more than one of them.
pub(super) fn read_list<T: DeserializeOwned>(
    text: &str,
    limit: usize,
) -> Result<Vec<T>, Unreadable> {
    let mut json = Deserializer::from_str(text);
    let each = Each(limit, PhantomData);
    let list = serde::Deserializer::deserialize_seq(&mut json, each).and_then(|list| {
        json.end()?;
        Ok(list)
    });
    list.map_err(Unreadable::custom)
}

/// Values that may follow.
struct Budget {
    left: usize,
}

impl<'de> DeserializeSeed<'de> for &mut Budget {
    type Value = Tree<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Tree<'de>, D::Error> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err(D::Error::custom("too many values")),
        }
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Budget {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree<'de>, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree<'de>, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree<'de>, E> {
        Ok(Tree::Unsigned(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree<'de>, E> {
        Ok(Tree::Signed(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree<'de>, E> {
        Ok(Tree::Float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut json: A) -> Result<Tree<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = json.next_element_seed(&mut *self)? {
            list.push(item);
        }
        // A vector begins with room for four.
        list.shrink_to_fit();
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut json: A) -> Result<Tree<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = json.next_key_seed(Name)? {
            fields.push((name, json.next_value_seed(&mut *self)?));
        }
        fields.shrink_to_fit();
        Ok(Tree::Map(fields))
    }
}

/// The name of a field, where it stands if it can.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Cow<'de, str>, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// The items of a list, and how many there may be.
struct Each<T>(usize, PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for Each<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut json: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(tree) = json.next_element_seed(&mut Budget { left: VALUES })? {
            if list.len() >= self.0 {
                return Err(A::Error::custom(format!("more than {} entries", self.0)));
            }
            list.push(T::deserialize(tree).map_err(A::Error::custom)?);
        }
        Ok(list)
    }
}
