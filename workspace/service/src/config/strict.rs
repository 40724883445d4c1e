//! Turns values into types without guessing.
//!
//! The deserializer of `config` rounds a float to an integer and reads `true` as 1; this one
//! refuses. Text is accepted for numbers, booleans and lists (separated by commas), because a
//! variable is always text. Errors carry the found value apart from what was expected, so that a
//! secret's value can be left out.

use std::fmt;

use config::{Value, ValueKind};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

/// What an error says about the value that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The value, ready for a message.
    Value(String),
    /// The message needs no value: something is missing or too much.
    Nothing,
    /// A message of the type's own, to which the value may be added.
    Unsaid,
}

/// Why a value does not fit its type.
#[derive(Clone, Debug)]
pub(super) struct Mismatch {
    /// Path from the root, innermost first while the error travels up.
    path: Vec<String>,
    pub(super) found: Found,
    pub(super) rest: String,
}

impl Mismatch {
    fn expected(found: &Value, expected: &str) -> Self {
        Self {
            path: Vec::new(),
            found: Found::Value(super::problem::shown(found)),
            rest: format!("expected {expected}"),
        }
    }

    fn below(mut self, segment: String) -> Self {
        self.path.push(segment);
        self
    }

    fn key(&self) -> String {
        let mut key = String::new();
        for segment in self.path.iter().rev() {
            if !key.is_empty() && !segment.starts_with('[') {
                key.push('.');
            }
            key.push_str(segment);
        }
        key
    }

    /// The part of the path below `key`: `[2].name` for an entry of a list.
    pub(super) fn inside(&self, key: &str) -> String {
        self.key().strip_prefix(key).unwrap_or_default().to_owned()
    }

    /// The error as a sentence with its whole path.
    pub(super) fn sentence(&self) -> String {
        let predicate = match &self.found {
            Found::Value(_) => format!("does not fit, {}", self.rest),
            Found::Nothing => self.rest.clone(),
            Found::Unsaid => format!("is not accepted: {}", self.rest),
        };
        if self.path.is_empty() {
            predicate
        } else {
            format!("`{}` {predicate}", self.key())
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: Vec::new(),
            found: Found::Unsaid,
            rest: message.to_string(),
        }
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self {
            path: Vec::new(),
            found: Found::Value(unexpected.to_string()),
            rest: format!("expected {expected}"),
        }
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self {
            path: Vec::new(),
            found: Found::Value(format!("`{variant}`")),
            rest: format!("expected {}", one_of(expected)),
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let rest = format!("has an unknown key `{field}`, expected {}", one_of(expected));
        Self {
            path: Vec::new(),
            found: Found::Nothing,
            rest,
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            path: Vec::new(),
            found: Found::Nothing,
            rest: format!("lacks the key `{field}`"),
        }
    }
}

fn one_of(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(" or ")
}

/// A value that deserializes strictly.
pub(super) struct Strict(pub(super) Value);

impl Strict {
    fn integer(&self) -> Option<i128> {
        match &self.0.kind {
            ValueKind::I64(value) => Some(i128::from(*value)),
            ValueKind::U64(value) => Some(i128::from(*value)),
            ValueKind::I128(value) => Some(*value),
            ValueKind::U128(value) => i128::try_from(*value).ok(),
            ValueKind::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn float(&self) -> Option<f64> {
        match &self.0.kind {
            ValueKind::Float(value) => Some(*value),
            ValueKind::String(text) => text.trim().parse().ok(),
            #[expect(
                clippy::as_conversions,
                clippy::cast_precision_loss,
                reason = "a float was asked for"
            )]
            _ => self.integer().map(|value| value as f64),
        }
    }

    fn boolean(&self) -> Option<bool> {
        match &self.0.kind {
            ValueKind::Boolean(value) => Some(*value),
            ValueKind::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(true),
                "false" | "no" | "off" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $kind:ty;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match self.integer().map(<$kind>::try_from) {
                Some(Ok(value)) => visitor.$visit(value),
                _ => Err(Mismatch::expected(
                    &self.0,
                    &format!("an integer from {} to {}", <$kind>::MIN, <$kind>::MAX),
                )),
            }
        }
    )* };
}

impl<'de> Deserializer<'de> for Strict {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(value) => visitor.visit_bool(value),
            ValueKind::I64(value) => visitor.visit_i64(value),
            ValueKind::I128(value) => visitor.visit_i128(value),
            ValueKind::U64(value) => visitor.visit_u64(value),
            ValueKind::U128(value) => visitor.visit_u128(value),
            ValueKind::Float(value) => visitor.visit_f64(value),
            ValueKind::String(text) => visitor.visit_string(text),
            ValueKind::Array(items) => visitor.visit_seq(Items {
                items: items.into_iter(),
                index: 0,
            }),
            ValueKind::Table(table) => visitor.visit_map(Fields {
                fields: table.into_iter(),
                current: None,
            }),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.boolean() {
            Some(value) => visitor.visit_bool(value),
            None => Err(Mismatch::expected(&self.0, "`true` or `false`")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.float() {
            Some(value) => visitor.visit_f64(value),
            None => Err(Mismatch::expected(&self.0, "a number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0.kind {
            ValueKind::String(text) => visitor.visit_string(text),
            _ => Err(Mismatch::expected(&self.0, "text in quotes")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0.kind {
            ValueKind::String(ref text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let source = self.0.origin().unwrap_or_default().to_owned();
                let items: Vec<Value> = parts
                    .map(|part| Value::new(Some(&source), ValueKind::String(part.to_owned())))
                    .collect();
                visitor.visit_seq(Items {
                    items: items.into_iter(),
                    index: 0,
                })
            }
            ValueKind::Array(_) => self.deserialize_any(visitor),
            _ => Err(Mismatch::expected(&self.0, "a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0.kind {
            ValueKind::Table(_) => self.deserialize_any(visitor),
            _ => Err(Mismatch::expected(&self.0, "a table")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0.kind {
            ValueKind::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.0.kind {
            ValueKind::String(text) => visitor.visit_enum(text.into_deserializer()),
            ValueKind::Table(table) => {
                let fields = Fields {
                    fields: table.into_iter(),
                    current: None,
                };
                visitor.visit_enum(de::value::MapAccessDeserializer::new(fields))
            }
            _ => Err(Mismatch::expected(&self.0, &one_of(variants))),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items {
    items: std::vec::IntoIter<Value>,
    index: usize,
}

impl<'de> de::SeqAccess<'de> for Items {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some(item) = self.items.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Strict(item))
            .map(Some)
            .map_err(|error| error.below(format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<I> {
    fields: I,
    current: Option<(String, Value)>,
}

impl<'de, I: Iterator<Item = (String, Value)>> de::MapAccess<'de> for Fields<I> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        // A key without a value is absent: `#[serde(default)]` decides.
        self.current = self
            .fields
            .by_ref()
            .find(|(_, value)| value.kind != ValueKind::Nil);
        let Some((key, _)) = &self.current else {
            return Ok(None);
        };
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let Some((key, value)) = self.current.take() else {
            return Err(<Mismatch as de::Error>::custom("a value without its key"));
        };
        seed.deserialize(Strict(value)).map_err(|error| error.below(key))
    }
}
