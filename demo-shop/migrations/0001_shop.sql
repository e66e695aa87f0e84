-- The common subset of SQLite and PostgreSQL: ids are text made by the application, times are milliseconds since
-- 1970-01-01 UTC, money is in cents.

CREATE TABLE products (
    sku TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    category TEXT NOT NULL,
    description TEXT NOT NULL,
    price_cents BIGINT NOT NULL CHECK (price_cents >= 0),
    -- The last line of defence against selling what is not there; orders check it first.
    stock BIGINT NOT NULL CHECK (stock >= 0),
    position BIGINT NOT NULL
);

CREATE INDEX products_by_category ON products (category, position);

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE orders (
    id TEXT NOT NULL PRIMARY KEY,
    -- The idempotency key of the checkout form: a form sent twice is one order.
    token TEXT NOT NULL UNIQUE,
    -- 'user:ID' or 'guest:ID'.
    owner TEXT NOT NULL,
    placed_at BIGINT NOT NULL,
    total_cents BIGINT NOT NULL,
    -- 0 until what was ordered has left the cart.
    cart_cleared BIGINT NOT NULL,
    email TEXT NOT NULL,
    recipient TEXT NOT NULL,
    street TEXT NOT NULL,
    postcode TEXT NOT NULL,
    city TEXT NOT NULL,
    country TEXT NOT NULL
);

CREATE INDEX orders_by_owner ON orders (owner, placed_at);

CREATE TABLE order_lines (
    order_id TEXT NOT NULL REFERENCES orders (id),
    sku TEXT NOT NULL,
    -- As they were when the order was placed.
    name TEXT NOT NULL,
    price_cents BIGINT NOT NULL,
    quantity BIGINT NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, sku)
);
