//! Orders: stock, order and lines in one transaction, once for each checkout form.

use sqlx::any::AnyRow;
use sqlx::{Any, FromRow, Row, Transaction};

use crate::shop::database::{Database, Product, is_storable, now_ms};

/// Where an order goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Address {
    pub(crate) email: String,
    pub(crate) recipient: String,
    pub(crate) street: String,
    pub(crate) postcode: String,
    pub(crate) city: String,
    pub(crate) country: String,
}

/// An order to be placed.
#[derive(Debug)]
pub(crate) struct NewOrder<'a> {
    pub(crate) id: &'a str,
    /// The checkout form's token: a second order with it is the first one.
    pub(crate) token: &'a str,
    pub(crate) owner: &'a str,
    pub(crate) address: &'a Address,
    /// SKU and quantity.
    pub(crate) lines: Vec<(String, u32)>,
}

/// An order as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) owner: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub(crate) placed_at: i64,
    pub(crate) total_cents: i64,
    /// Whether what was ordered has left the cart.
    pub(crate) cart_cleared: bool,
    pub(crate) address: Address,
    pub(crate) lines: Vec<OrderLine>,
}

/// A line as it was when the order was placed.
#[derive(Debug, Clone)]
pub(crate) struct OrderLine {
    pub(crate) sku: String,
    pub(crate) name: String,
    pub(crate) price_cents: i64,
    pub(crate) quantity: u32,
}

/// What became of an order.
#[derive(Debug)]
pub(crate) enum Placed {
    /// Stock is taken, the order stands.
    New,
    /// The form's token has an order already; nothing was taken again.
    Already,
}

/// Why an order was not placed. Nothing was taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("only {available} left of {sku}")]
    OutOfStock { sku: String, name: String, available: i64 },
    #[error("{sku} is no longer for sale")]
    Gone { sku: String },
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Orders that the history shows.
const HISTORY_MAX: i64 = 100;

impl OrderLine {
    pub(crate) fn total_cents(&self) -> i64 {
        self.price_cents.saturating_mul(i64::from(self.quantity))
    }
}

impl Database {
    /// Places an order, once for its token, whichever replica is asked and however often.
    pub(crate) async fn place_order(&self, mut order: NewOrder<'_>) -> Result<Placed, PlaceError> {
        // In one order of SKUs everywhere, so that two orders never wait for each other's rows.
        order.lines.sort();
        // A transaction that is dropped rolls back: every early return leaves the stock as it was.
        let mut transaction = self.begin_to_write().await?;
        // The order first: on PostgreSQL a second submit waits here for the first one's outcome.
        if insert_order(&mut transaction, &order).await? == 0 {
            transaction.rollback().await?;
            return Ok(Placed::Already);
        }
        let mut total_cents = 0_i64;
        for (sku, quantity) in &order.lines {
            let product = take_stock(&mut transaction, sku, *quantity).await?;
            total_cents = total_cents.saturating_add(product.price_cents.saturating_mul(i64::from(*quantity)));
            sqlx::query("INSERT INTO order_lines (order_id, sku, name, price_cents, quantity) VALUES ($1, $2, $3, $4, $5)")
                .bind(order.id)
                .bind(sku.as_str())
                .bind(product.name)
                .bind(product.price_cents)
                .bind(i64::from(*quantity))
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("UPDATE orders SET total_cents = $1 WHERE id = $2")
            .bind(total_cents)
            .bind(order.id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Placed::New)
    }

    pub(crate) async fn order(&self, id: &str) -> Result<Option<Order>, sqlx::Error> {
        if !is_storable(id) {
            return Ok(None);
        }
        let order = sqlx::query_as("SELECT * FROM orders WHERE id = $1").bind(id).fetch_optional(&self.pool).await?;
        self.with_lines(order).await
    }

    pub(crate) async fn order_by_token(&self, token: &str) -> Result<Option<Order>, sqlx::Error> {
        let order = sqlx::query_as("SELECT * FROM orders WHERE token = $1").bind(token).fetch_optional(&self.pool).await?;
        self.with_lines(order).await
    }

    /// The newest orders of an owner, without their lines.
    pub(crate) async fn orders_of(&self, owner: &str) -> Result<Vec<Order>, sqlx::Error> {
        sqlx::query_as("SELECT * FROM orders WHERE owner = $1 ORDER BY placed_at DESC, id LIMIT $2")
            .bind(owner)
            .bind(HISTORY_MAX)
            .fetch_all(&self.pool)
            .await
    }

    /// Remembers that what was ordered has left the cart.
    pub(crate) async fn mark_cart_cleared(&self, id: &str) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE orders SET cart_cleared = 1 WHERE id = $1").bind(id).execute(&self.pool).await.map(drop)
    }

    /// Gives a guest's orders to the account they have signed in to.
    pub(crate) async fn adopt_orders(&self, guest: &str, owner: &str) -> Result<u64, sqlx::Error> {
        let adopted =
            sqlx::query("UPDATE orders SET owner = $1 WHERE owner = $2").bind(owner).bind(guest).execute(&self.pool).await?;
        Ok(adopted.rows_affected())
    }

    async fn with_lines(&self, order: Option<Order>) -> Result<Option<Order>, sqlx::Error> {
        let Some(mut order) = order else {
            return Ok(None);
        };
        order.lines = sqlx::query_as("SELECT sku, name, price_cents, quantity FROM order_lines WHERE order_id = $1")
            .bind(order.id.as_str())
            .fetch_all(&self.pool)
            .await?;
        // Sorted here, since databases do not agree on the order of names.
        order.lines.sort_by(|one, other| (&one.name, &one.sku).cmp(&(&other.name, &other.sku)));
        Ok(Some(order))
    }
}

async fn insert_order(transaction: &mut Transaction<'static, Any>, order: &NewOrder<'_>) -> Result<u64, sqlx::Error> {
    let inserted = sqlx::query(
        "INSERT INTO orders \
         (id, token, owner, placed_at, total_cents, cart_cleared, email, recipient, street, postcode, city, country) \
         VALUES ($1, $2, $3, $4, 0, 0, $5, $6, $7, $8, $9, $10) ON CONFLICT (token) DO NOTHING",
    )
    .bind(order.id)
    .bind(order.token)
    .bind(order.owner)
    .bind(now_ms())
    .bind(order.address.email.as_str())
    .bind(order.address.recipient.as_str())
    .bind(order.address.street.as_str())
    .bind(order.address.postcode.as_str())
    .bind(order.address.city.as_str())
    .bind(order.address.country.as_str())
    .execute(&mut **transaction)
    .await?;
    Ok(inserted.rows_affected())
}

async fn take_stock(transaction: &mut Transaction<'static, Any>, sku: &str, quantity: u32) -> Result<Product, PlaceError> {
    let taken = sqlx::query("UPDATE products SET stock = stock - $1 WHERE sku = $2 AND stock >= $1")
        .bind(i64::from(quantity))
        .bind(sku)
        .execute(&mut **transaction)
        .await?
        .rows_affected();
    let product: Option<Product> =
        sqlx::query_as("SELECT sku, name, category, description, price_cents, stock FROM products WHERE sku = $1")
            .bind(sku)
            .fetch_optional(&mut **transaction)
            .await?;
    match product {
        None => Err(PlaceError::Gone { sku: sku.to_owned() }),
        Some(product) if taken == 0 => {
            Err(PlaceError::OutOfStock { sku: product.sku, name: product.name, available: product.stock })
        }
        Some(product) => Ok(product),
    }
}

impl<'r> FromRow<'r, AnyRow> for Order {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Order {
            id: row.try_get("id")?,
            token: row.try_get("token")?,
            owner: row.try_get("owner")?,
            placed_at: row.try_get("placed_at")?,
            total_cents: row.try_get("total_cents")?,
            cart_cleared: row.try_get::<i64, _>("cart_cleared")? != 0,
            address: Address {
                email: row.try_get("email")?,
                recipient: row.try_get("recipient")?,
                street: row.try_get("street")?,
                postcode: row.try_get("postcode")?,
                city: row.try_get("city")?,
                country: row.try_get("country")?,
            },
            lines: Vec::new(),
        })
    }
}

impl<'r> FromRow<'r, AnyRow> for OrderLine {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(OrderLine {
            sku: row.try_get("sku")?,
            name: row.try_get("name")?,
            price_cents: row.try_get("price_cents")?,
            // The table's check keeps it positive; a cart's limit keeps it small.
            quantity: u32::try_from(row.try_get::<i64, _>("quantity")?).unwrap_or(u32::MAX),
        })
    }
}
