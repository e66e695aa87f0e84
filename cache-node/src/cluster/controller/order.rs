//! What the controller is asked to do, one thing at a time.

use tokio::sync::oneshot;

use crate::cluster::controller::Controller;

/// How an order ended: what was done, or why not.
pub(in crate::cluster) type Outcome = Result<String, String>;

/// One thing to do.
#[derive(Debug)]
pub(in crate::cluster) enum Order {
    /// Give the primary's role to a replica.
    FailOver { reply: oneshot::Sender<Outcome> },
}

impl Controller {
    pub(super) async fn obey(&mut self, order: Order) {
        match order {
            Order::FailOver { reply } => {
                let outcome = self.hand_over().await;
                // Whoever asked may have gone away.
                let told = reply.send(outcome);
                drop(told);
            }
        }
    }
}
