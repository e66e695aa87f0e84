//! Placeholder.
#[derive(Clone, Debug, Default)]
pub(crate) struct List;
impl List {
    pub(crate) fn len(&self) -> usize {
        0
    }
    pub(crate) fn heap_bytes(&self) -> usize {
        0
    }
}
