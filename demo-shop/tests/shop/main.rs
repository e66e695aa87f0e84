//! The replica as its visitors meet it: real processes, a real Redis, SQLite files and a real PostgreSQL.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod account;
mod api;
mod cart;
mod encryption;
mod orders;
mod outage;
mod pages;
mod postgres;
mod process;
mod support;
