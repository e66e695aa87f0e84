//! A look at all that a handle holds. `Session` has no list of its keys, but it shows its record to its store when it is saved:
//! while somebody looks, the store only takes note.

use std::{collections::HashMap, future::Future};

use parking_lot::Mutex;
use serde_json::Value as Json;

pub(crate) type Data = HashMap<String, Json>;

tokio::task_local! {
    static SEEN: Mutex<Data>;
}

/// What the handle holds that `save` saves.
pub(crate) async fn look<E>(save: impl Future<Output = Result<(), E>>) -> Result<Data, E> {
    SEEN.scope(Mutex::default(), async {
        save.await?;
        Ok(SEEN.with(|seen| std::mem::take(&mut *seen.lock())))
    })
    .await
}

/// Shows the data when somebody looks; then nothing is to be saved.
pub(crate) fn shows(data: &Data) -> bool {
    SEEN.try_with(|seen| seen.lock().clone_from(data)).is_ok()
}

/// Whether somebody looks; then nothing is to be done.
pub(crate) fn is_under_way() -> bool {
    SEEN.try_with(|_| ()).is_ok()
}
