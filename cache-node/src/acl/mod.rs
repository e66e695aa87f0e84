//! Access control lists: users, their rules in Redis's words, and what they may do. Nothing here knows sockets, files or a clock.
//!
//! A user never changes: a new one takes its place ([`Acl`]), and each connection looks at a number to see whether
//! that happened. A connection whose user may do everything asks nothing at all.

mod access;
mod catalog;
mod category;
mod file;
mod foreign;
mod log;
mod password;
mod pattern;
mod rule;
mod selector;
mod user;
mod users;

use catalog::Commands;
pub(crate) use catalog::{Catalog, Entry};
pub(crate) use category::Categories;
pub(crate) use file::{Unwritable, UserLine, ensure_same, parse_file, text_of};
pub(crate) use log::{AclLog, DenialContext, Denied};
pub(crate) use rule::{RuleError, Unmatched, join_selectors};
pub(crate) use selector::{Denial, Reason, Selector};
pub(crate) use user::{DEFAULT, User, is_name};
pub(crate) use users::{Acl, ChangeError, RULES_MAX};
