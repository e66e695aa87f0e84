//! Replies as values. Two values are equal when their bytes on the wire are.

use std::fmt;

/// A reply of RESP2 or RESP3.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `_`
    Null,
    Double(String),
    Boolean(bool),
    Verbatim(Vec<u8>),
    Array(Vec<Value>),
    Set(Vec<Value>),
    Map(Vec<Value>),
    Push(Vec<Value>),
}

impl Value {
    /// Reads one reply from the start of `bytes`; `None` while it is incomplete.
    pub fn parse(bytes: &[u8]) -> Option<(Value, usize)> {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&bytes[1..end]).expect("a header line is text");
        let mut position = end + 2;
        let length = || line.parse::<i64>().expect("a length is a number");
        let value = match bytes[0] {
            b'+' => Value::Simple(line.to_owned()),
            b'-' => Value::Error(line.to_owned()),
            b':' => Value::Integer(length()),
            b',' => Value::Double(line.to_owned()),
            b'#' => Value::Boolean(line == "t"),
            b'_' => Value::Null,
            b'$' if line == "-1" => Value::NullBulk,
            b'*' if line == "-1" => Value::NullArray,
            b'$' | b'=' => {
                let length = length() as usize;
                let body = bytes.get(position..position + length)?.to_vec();
                position += length + 2;
                if bytes.len() < position {
                    return None;
                }
                if bytes[0] == b'$' { Value::Bulk(body) } else { Value::Verbatim(body) }
            }
            kind @ (b'*' | b'~' | b'%' | b'>') => {
                let count = length() * if kind == b'%' { 2 } else { 1 };
                let mut elements = Vec::new();
                for _ in 0..count {
                    let (element, taken) = Value::parse(&bytes[position..])?;
                    elements.push(element);
                    position += taken;
                }
                match kind {
                    b'*' => Value::Array(elements),
                    b'~' => Value::Set(elements),
                    b'%' => Value::Map(elements),
                    _ => Value::Push(elements),
                }
            }
            other => panic!("no reply begins with {:?}: {:?}", char::from(other), String::from_utf8_lossy(bytes)),
        };
        Some((value, position))
    }

    pub fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    pub fn ok() -> Value {
        Value::Simple("OK".to_owned())
    }

    /// The text of a string of any kind; panics for anything else.
    pub fn text(&self) -> String {
        match self {
            Value::Simple(text) | Value::Error(text) | Value::Double(text) => text.clone(),
            Value::Bulk(bytes) | Value::Verbatim(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?} is no text"),
        }
    }

    pub fn integer(&self) -> i64 {
        match self {
            Value::Integer(number) => *number,
            other => panic!("{other:?} is no integer"),
        }
    }

    pub fn elements(&self) -> &[Value] {
        match self {
            Value::Array(elements) | Value::Set(elements) | Value::Map(elements) | Value::Push(elements) => elements,
            other => panic!("{other:?} has no elements"),
        }
    }

    pub fn elements_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::Array(elements) | Value::Set(elements) | Value::Map(elements) | Value::Push(elements) => Some(elements),
            _ => None,
        }
    }

    pub fn is_error(&self, prefix: &str) -> bool {
        matches!(self, Value::Error(text) if text.split(' ').next() == Some(prefix))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Simple(text) => write!(f, "+{text}"),
            Value::Error(text) => write!(f, "-{text}"),
            Value::Integer(number) => write!(f, ":{number}"),
            Value::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Value::Verbatim(bytes) => write!(f, "=\"{}\"", bytes.escape_ascii()),
            Value::NullBulk => f.write_str("$-1"),
            Value::NullArray => f.write_str("*-1"),
            Value::Null => f.write_str("_"),
            Value::Double(text) => write!(f, ",{text}"),
            Value::Boolean(is_true) => write!(f, "#{is_true}"),
            Value::Array(elements) => f.debug_list().entries(elements).finish(),
            Value::Set(elements) => write!(f, "~{elements:?}"),
            Value::Map(elements) => write!(f, "%{elements:?}"),
            Value::Push(elements) => write!(f, ">{elements:?}"),
        }
    }
}
