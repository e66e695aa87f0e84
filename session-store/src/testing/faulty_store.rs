//! Any store, with faults.

use async_trait::async_trait;
use tower_sessions::{
    SessionStore,
    session::{Id, Record},
    session_store::{Error, Result},
};

use super::Faults;

/// A `tower_sessions::SessionStore` whose calls meet [`Faults`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use session_store::testing::{Fault, Faults, FaultyStore, MemoryNode};
/// use tower_sessions::{SessionStore as _, session::Id};
///
/// let faults = Faults::seeded(1);
/// let store = FaultyStore::new(MemoryNode::new().store(), faults.clone());
/// faults.next(Fault::Error);
/// assert!(store.load(&Id::default()).await.is_err());
/// assert!(store.load(&Id::default()).await.is_ok());
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FaultyStore<S> {
    store: S,
    faults: Faults,
}

impl<S> FaultyStore<S> {
    /// This store, whose calls meet these faults.
    ///
    /// ```
    /// use session_store::testing::{Faults, FaultyStore, MemoryNode};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let store = FaultyStore::new(MemoryNode::new().store(), Faults::seeded(1));
    /// # }
    /// ```
    pub fn new(store: S, faults: Faults) -> Self {
        Self { store, faults }
    }
}

fn error(reason: &'static str) -> Error {
    Error::Backend(reason.to_owned())
}

#[async_trait]
impl<S: SessionStore> SessionStore for FaultyStore<S> {
    async fn create(&self, record: &mut Record) -> Result<()> {
        let asked = record.clone();
        let create = || async {
            let mut created = asked.clone();
            self.store.create(&mut created).await?;
            Ok(created)
        };
        *record = self.faults.around(create, error).await?;
        Ok(())
    }

    async fn save(&self, record: &Record) -> Result<()> {
        self.faults.around(|| self.store.save(record), error).await
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        self.faults.around(|| self.store.load(id), error).await
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        self.faults.around(|| self.store.delete(id), error).await
    }
}
