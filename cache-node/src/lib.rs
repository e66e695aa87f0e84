//! Cache node.
