//! The same shop on PostgreSQL.

use end_to_end::postgres::Postgres;

use crate::orders::{sell_the_last_pieces, submit_many_times_at_once};
use crate::support::Shop;

#[tokio::test]
async fn orders_hold_on_postgresql_too() {
    let postgres = Postgres::start().await.unwrap();
    // Three replicas bring the same empty database up to date at the same time.
    let shop = Shop::start_on(3, postgres.url()).await;
    submit_many_times_at_once(&shop).await;
    sell_the_last_pieces(&shop).await;
}
