//! Tells what happens to a node: on a channel, and by webhooks. On a thread of its own, so that no client waits for a receiver.

mod alarms;
mod channel;
mod watch;

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::{runtime, sync::oneshot, task::JoinSet};

use crate::node::Shared;
#[cfg(feature = "webhooks")]
use crate::webhook::Webhooks;

/// The thread that tells events.
#[derive(Debug)]
pub(crate) struct Announcer {
    /// Dropped when it is to end.
    _lives: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Announcer {
    /// Tells the events that there are already, and those to come.
    ///
    /// # Errors
    /// When webhooks are configured and cannot be sent (the text says why), or the machine gives no thread.
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Announcer> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        #[cfg(feature = "webhooks")]
        let webhooks = {
            let settings = shared.config().webhook.settings().map_err(io::Error::other)?;
            let _entered = runtime.enter();
            Webhooks::start(settings.as_ref(), None, &shared.events).map_err(io::Error::other)?
        };
        #[cfg(feature = "webhooks")]
        shared.webhooks.get_or_init(|| webhooks.tallies());
        let (lives, ended) = oneshot::channel::<()>();
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new().name("cache-node-events".to_owned()).spawn(move || {
            runtime.block_on(async {
                let mut services = JoinSet::new();
                services.spawn(channel::run(shared.events.replay(), Arc::clone(&shared)));
                services.spawn(watch::run(shared));
                // Nothing is ever sent.
                drop(ended.await);
                services.shutdown().await;
                #[cfg(feature = "webhooks")]
                webhooks.end().await;
            });
            // The name of a receiver may still be looked up.
            runtime.shutdown_background();
        })?;
        Ok(Announcer { _lives: lives, thread })
    }

    /// Tells webhooks what waits, for three seconds at the most.
    pub(crate) fn end(self) {
        let Announcer { _lives, thread } = self;
        drop(_lives);
        if thread.join().is_err() {
            tracing::error!("the thread that tells events ended by a panic");
        }
    }
}
