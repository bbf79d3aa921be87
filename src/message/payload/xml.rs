//! XML into a [`Tree`]: a list is its element repeated, a map is an element with one child for each key.
//!
//! quick-xml reads the XML. Its own serde part can do much more, such as attributes and mixed content, and comes to
//! three times the code for each type (`docs/size.md`).

use super::Unreadable;
use super::tree::{Fields, Tree};
use crate::message::xml::resolve;
use quick_xml::Reader;
use quick_xml::events::Event;
use serde::de::Error as _;
use std::mem;

/// How deep elements may be nested.
const DEPTH: usize = 64;
/// Elements in a document at most: each takes far more memory than its few bytes.
const ELEMENTS: usize = 10_000;

/// An element that has not ended, without its attributes, which mean nothing here.
#[derive(Default)]
struct Open {
    name: String,
    text: String,
    inner: Fields<'static>,
}

impl Open {
    fn take(&mut self, child: Self) {
        let name = child.name.into();
        let tree = if child.inner.is_empty() {
            Tree::Word(child.text)
        } else {
            Tree::Element(child.inner)
        };
        match self.inner.last_mut() {
            Some((last, Tree::List(many))) if *last == name => many.push(tree),
            Some((last, before)) if *last == name => {
                let first = mem::replace(before, Tree::Null);
                *before = Tree::List(vec![first, tree]);
            }
            _ => self.inner.push((name, tree)),
        }
    }
}

/// Reads `text`, whose root may have any name.
pub(super) fn parse(text: &str) -> Result<Tree<'static>, Unreadable> {
    root(text).map_err(Unreadable::custom)
}

fn root(text: &str) -> Result<Tree<'static>, String> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    // Below the elements that are open, one that holds the root.
    let mut open = vec![Open::default()];
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
                open.push(Open {
                    name: tag.local_name().as_ref().to_owned(),
                    ..Open::default()
                });
            }
            Event::End(_) => {
                if let Some(done) = open.pop()
                    && let Some(outer) = open.last_mut()
                {
                    outer.take(done);
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
        // A list would be several roots.
        (Some((_, root @ (Tree::Word(_) | Tree::Element(_)))), true)
            if around.text.trim().is_empty() =>
        {
            Ok(root)
        }
        _ => Err("expected one root element".to_owned()),
    }
}
