//! Real parts for the end-to-end tests: processes that end with the test, HTTP visitors with a cookie jar, a browser.
//!
//! Every server is started on a free loopback port and is ended when its guard is dropped, on a panic too. A program
//! that is missing is an error that names the command which installs it; nothing is ever skipped.
#![forbid(unsafe_code)]

pub mod browser;
pub mod cache_node;
pub mod form;
pub mod nginx;
pub mod port;
pub mod postgres;
pub mod proc;
pub mod program;
pub mod redis_server;
pub mod replica;
pub mod scenario;
pub mod server;
pub mod shop;
pub mod site;
pub mod traffic;
pub mod visitor;
pub mod wait;
