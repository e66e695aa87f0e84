//! What every handler of one replica shares.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use metrics_exporter_prometheus::PrometheusHandle;
use session_store::CacheStore;

use crate::shop::database::Database;
use crate::shop::passwords::Passwords;

/// One replica. It keeps nothing of any visitor: that is in the store and in the database.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) store: CacheStore,
    pub(crate) database: Database,
    pub(crate) passwords: Passwords,
    pub(crate) metrics: PrometheusHandle,
    /// What the last readiness check found.
    pub(crate) store_answers: AtomicBool,
    pub(crate) database_answers: AtomicBool,
}

impl App {
    pub(crate) fn new(name: String, store: CacheStore, database: Database, metrics: PrometheusHandle) -> Self {
        App(Arc::new(Parts {
            name,
            pid: std::process::id(),
            store,
            database,
            passwords: Passwords::new(),
            metrics,
            store_answers: AtomicBool::new(true),
            database_answers: AtomicBool::new(true),
        }))
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
