//! JSON for what serde derives, made for reviews: what nobody asks for is leapt over unchecked (the API server has
//! written it), which is most of a pod and most of the time `serde_json` takes.

mod leap;

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

/// Reads a whole text. Fails where something that is asked for is not there as it should be, and where brackets or
/// quotes do not close.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    let mut reader = Reader { text, at: 0 };
    let read = T::deserialize(&mut reader).and_then(|value| match reader.peek() {
        None => Ok(value),
        Some(_) => Err(Error::custom("more follows")),
    });
    read.map_err(|error| Error(format!("{error} (at byte {})", reader.at)))
}

/// What is not as it should be, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Error(String);

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A value that has been leapt over, to be read where somebody wants it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a>(pub(super) &'a str);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;

        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, read by this module")
            }

            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Raw(value))
            }
        }

        deserializer.deserialize_newtype_struct(RAW, RawVisitor)
    }
}

/// Tells [`Reader`] that a [`Raw`] is wanted.
const RAW: &str = "raw JSON";

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn take(&mut self, expected: u8) -> Result<(), Error> {
        if self.peek() != Some(expected) {
            return Err(Error(format!("expected {:?}", char::from(expected))));
        }
        self.at += 1;
        Ok(())
    }

    fn since(&self, start: usize) -> Result<&'a str, Error> {
        self.text.get(start..self.at).ok_or_else(|| Error::custom("broken off"))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.take(b'"')?;
        let start = self.at;
        let bent = self.leap_string()?;
        if bent {
            let quoted = self.since(start - 1)?;
            return serde_json::from_str(quoted).map(Cow::Owned).map_err(Error::custom);
        }
        Ok(Cow::Borrowed(self.text.get(start..self.at - 1).unwrap_or_default()))
    }

    /// From behind a quotation mark to behind the closing one; whether there were escape sequences.
    fn leap_string(&mut self) -> Result<bool, Error> {
        let mut bent = false;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let stop = quote_or_backslash(rest).ok_or_else(|| Error::custom("a string does not end"))?;
            if rest.get(stop) == Some(&b'"') {
                self.at += stop + 1;
                return Ok(bent);
            }
            bent = true;
            self.at += stop + 2;
        }
    }

    /// Over the next value.
    fn leap(&mut self) -> Result<&'a str, Error> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => {
                self.at += 1;
                self.leap_string()?;
            }
            Some(b'{' | b'[') => {
                let rest = self.text.as_bytes().get(start..).unwrap_or_default();
                self.at += leap::brackets(rest).ok_or_else(|| Error::custom("a bracket does not close"))?;
            }
            _ => return self.scalar(),
        }
        self.since(start)
    }

    /// A number or a word.
    fn scalar(&mut self) -> Result<&'a str, Error> {
        self.peek();
        let start = self.at;
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        let length =
            rest.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')));
        self.at += length.unwrap_or(rest.len());
        let scalar = self.since(start)?;
        if scalar.is_empty() { Err(Error::custom("expected a value")) } else { Ok(scalar) }
    }
}

const ONES: u64 = u64::from_le_bytes([1; 8]);

/// Where the first of the two is. Eight bytes at a time: a byte that is zero once its like has been taken away borrows
/// from its highest bit.
fn quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|b| matches!(b, b'"' | b'\\')).map(|place| words.len() * 8 + place)
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        Err(Error::invalid_type(serde::de::Unexpected::Other("a value"), &visitor))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.scalar()? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => Err(Error(format!("expected true or false, not {other}"))),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let scalar = self.scalar()?;
        let number = scalar.parse().map_err(|_| Error(format!("expected a whole number, not {scalar}")))?;
        visitor.visit_i64(number)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.string()? {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.peek() != Some(b'n') {
            return visitor.visit_some(self);
        }
        match self.scalar()? {
            "null" => visitor.visit_none(),
            other => Err(Error(format!("expected a value, not {other}"))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == RAW {
            return visitor.visit_borrowed_str(self.leap()?);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.take(b'[')?;
        visitor.visit_seq(Members { reader: self, close: b']', first: true })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.take(b'{')?;
        visitor.visit_map(Members { reader: self, close: b'}', first: true })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leap()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum
    }
}

/// What stands between two brackets.
struct Members<'r, 'de> {
    reader: &'r mut Reader<'de>,
    close: u8,
    first: bool,
}

impl Members<'_, '_> {
    /// Whether there is one more; then the reader stands before it.
    fn more(&mut self) -> Result<bool, Error> {
        if self.reader.peek() == Some(self.close) {
            self.reader.at += 1;
            return Ok(false);
        }
        if !std::mem::take(&mut self.first) {
            self.reader.take(b',')?;
        }
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Members<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.more()? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Members<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.more()? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        self.reader.take(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

#[cfg(test)]
mod tests;
