//! A field of the application.

use bytes::Bytes;
use serde_json::Value as Json;

use super::field_name;
use crate::{
    StoreError,
    wire::{Place, Reply},
};

/// A field of the application, its name escaped and its value as JSON.
#[derive(Debug, Clone)]
pub(crate) struct RawField {
    /// The name and the value, with what is between them where they came in an answer: a slice of that, so that reading a session copies
    /// nothing. One slice for both, since each is counted up and down.
    bytes: Bytes,
    name_end: usize,
    value_begin: usize,
    /// What the store holds, when that is not the value itself, since it is encrypted.
    pub(crate) stored: Option<Bytes>,
}

impl RawField {
    pub(crate) fn new(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = (name.as_ref(), value.as_ref());
        Self::joined([name, value].concat().into(), name.len())
    }

    /// `bytes`: the name, which ends there, and the value.
    pub(super) fn joined(bytes: Bytes, name_end: usize) -> Self {
        Self { bytes, name_end, value_begin: name_end, stored: None }
    }

    /// Where an answer has the name, and the value behind it.
    pub(super) fn placed(reply: &Reply, name: &Place, value: &Place) -> Self {
        let bytes = reply.kept(&(name.start..value.end));
        Self { bytes, name_end: name.len(), value_begin: value.start - name.start, stored: None }
    }

    /// What is stored for a key of the application.
    pub(super) fn of(key: &str, value: &Json) -> Result<Self, StoreError> {
        let mut bytes = field_name(key).into_owned().into_bytes();
        let name_end = bytes.len();
        serde_json::to_writer(&mut bytes, value).map_err(|error| StoreError::Unwritable { reason: error.to_string() })?;
        Ok(Self::joined(bytes.into(), name_end))
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.bytes[..self.name_end]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.bytes[self.value_begin..]
    }

    /// The value, to be kept: it keeps all that was received with it.
    pub(crate) fn kept_value(&self) -> Bytes {
        self.bytes.slice(self.value_begin..)
    }

    /// The same field with this value, and nothing else in the store.
    pub(crate) fn with_value(&self, value: &[u8]) -> Self {
        Self::new(self.name(), value)
    }

    pub(crate) fn stored(&self) -> &[u8] {
        self.stored.as_deref().unwrap_or(self.value())
    }
}

impl PartialEq for RawField {
    fn eq(&self, other: &Self) -> bool {
        (self.name(), self.value(), &self.stored) == (other.name(), other.value(), &other.stored)
    }
}

impl Eq for RawField {}
