//! What is for sale.

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, FromRow, Row};

use crate::shop::catalogue::Category;
use crate::shop::database::{Database, is_storable};

/// A product as the database has it now.
#[derive(Debug, Clone)]
pub(crate) struct Product {
    pub(crate) sku: String,
    pub(crate) name: String,
    pub(crate) category: String,
    pub(crate) description: String,
    pub(crate) price_cents: i64,
    pub(crate) stock: i64,
}

/// Words of a search that count; the rest is ignored.
const SEARCH_WORDS_MAX: usize = 4;
/// More products than a page shows: a bound for the query, not a paging scheme.
const PRODUCTS_MAX: i64 = 500;

impl Product {
    /// The category's name for people.
    pub(crate) fn category_name(&self) -> &str {
        Category::parse(&self.category).map_or(self.category.as_str(), |category| category.name())
    }
}

impl<'r> FromRow<'r, AnyRow> for Product {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Product {
            sku: row.try_get("sku")?,
            name: row.try_get("name")?,
            category: row.try_get("category")?,
            description: row.try_get("description")?,
            price_cents: row.try_get("price_cents")?,
            stock: row.try_get("stock")?,
        })
    }
}

impl Database {
    /// The products of a category (all when `None`) that contain every word of `search`.
    pub(crate) async fn products(&self, category: Option<Category>, search: &str) -> Result<Vec<Product>, sqlx::Error> {
        let mut patterns = search.split_whitespace().map(pattern).take(SEARCH_WORDS_MAX);
        let mut next = || patterns.next().unwrap_or_else(|| "%".to_owned());
        sqlx::query_as(
            "SELECT sku, name, category, description, price_cents, stock FROM products \
             WHERE ($1 = '' OR category = $1) \
             AND LOWER(name || ' ' || category || ' ' || description) LIKE $2 ESCAPE '\\' \
             AND LOWER(name || ' ' || category || ' ' || description) LIKE $3 ESCAPE '\\' \
             AND LOWER(name || ' ' || category || ' ' || description) LIKE $4 ESCAPE '\\' \
             AND LOWER(name || ' ' || category || ' ' || description) LIKE $5 ESCAPE '\\' \
             ORDER BY position, sku LIMIT $6",
        )
        .bind(category.map_or("", Category::slug))
        .bind(next())
        .bind(next())
        .bind(next())
        .bind(next())
        .bind(PRODUCTS_MAX)
        .fetch_all(&self.pool)
        .await
    }

    /// The products with these SKUs, in no order; those that do not exist are left out.
    pub(crate) async fn products_of(&self, skus: &[&str]) -> Result<Vec<Product>, sqlx::Error> {
        if skus.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<String> = (1..=skus.len()).map(|place| format!("${place}")).collect();
        // Nothing but placeholders is put into the text.
        let sql = AssertSqlSafe(format!(
            "SELECT sku, name, category, description, price_cents, stock FROM products WHERE sku IN ({})",
            places.join(", ")
        ));
        let query = skus.iter().fold(sqlx::query_as(sql), |query, sku| query.bind(*sku));
        query.fetch_all(&self.pool).await
    }

    /// One product, `None` when there is no such SKU.
    pub(crate) async fn product(&self, sku: &str) -> Result<Option<Product>, sqlx::Error> {
        if !is_storable(sku) {
            return Ok(None);
        }
        sqlx::query_as("SELECT sku, name, category, description, price_cents, stock FROM products WHERE sku = $1")
            .bind(sku)
            .fetch_optional(&self.pool)
            .await
    }
}

fn pattern(word: &str) -> String {
    let mut pattern = String::from("%");
    for character in word.to_lowercase().chars().filter(|character| !character.is_control()) {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn wildcards_of_like_are_searched_as_they_are() {
        assert_eq!(pattern("100%_\\"), "%100\\%\\_\\\\%");
    }
}
