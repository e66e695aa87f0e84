//! Whose servers a test runs.

/// Redis 7.0 or Valkey 8: the same protocol, and programs of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Redis,
    Valkey,
}

impl Engine {
    /// What tests run that name none: Redis, unless `TEST_ENGINE` is `valkey`.
    pub fn usual() -> Self {
        match std::env::var("TEST_ENGINE").as_deref() {
            Ok("valkey") => Self::Valkey,
            Ok("redis") | Err(_) => Self::Redis,
            Ok(other) => panic!("TEST_ENGINE is redis or valkey, not {other}"),
        }
    }

    /// One of its programs: `server`, `sentinel`, `cli`.
    pub fn program(self, what: &str) -> String {
        match self {
            Self::Redis => format!("redis-{what}"),
            Self::Valkey => format!("valkey-{what}"),
        }
    }
}
