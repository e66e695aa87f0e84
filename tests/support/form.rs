//! The forms of the shop's pages, as a browser sees them.

use anyhow::{Context, ensure};

use crate::visitor::{Answer, Visitor};

/// A form, filled as the page has filled it.
#[derive(Debug, Clone)]
pub struct Form {
    action: String,
    fields: Vec<Field>,
}

#[derive(Debug, Clone)]
struct Field {
    name: String,
    kind: String,
    value: String,
    required: bool,
    /// What a select offers.
    options: Vec<String>,
}

impl Form {
    /// The first form of a page that posts to a path that starts with `action`.
    ///
    /// # Errors
    /// When the page has no such form.
    pub fn find(page: &Answer, action: &str) -> anyhow::Result<Self> {
        let text = page.text();
        let form = text.split("<form").skip(1).map(|form| form.split("</form").next().unwrap_or(form)).find(|form| {
            let tag = form.split('>').next().unwrap_or_default();
            attribute(tag, "action").is_some_and(|found| found.starts_with(action))
                && attribute(tag, "method").is_some_and(|method| method.eq_ignore_ascii_case("post"))
        });
        let form = form.with_context(|| format!("no form that posts to {action} on this page:\n{text}"))?;
        let tag = form.split('>').next().unwrap_or_default();
        Ok(Self { action: attribute(tag, "action").unwrap_or_default(), fields: fields(form) })
    }

    /// Types into the field with this name.
    ///
    /// # Errors
    /// When the form has no such field.
    pub fn fill(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        let found = self.fields.iter_mut().find(|field| field.name == name);
        let field = found.with_context(|| format!("the form for {} has no field {name}", self.action))?;
        value.clone_into(&mut field.value);
        Ok(())
    }

    /// Types something fitting into every required field that is still empty.
    pub fn fill_the_rest(&mut self, email: &str, password: &str) {
        for field in &mut self.fields {
            if !field.value.is_empty() || !field.required {
                continue;
            }
            field.value = match (field.kind.as_str(), field.name.as_str()) {
                ("email", _) | (_, "email") => email.to_owned(),
                ("select", _) => field.options.iter().find(|option| !option.is_empty()).cloned().unwrap_or_default(),
                ("password", _) => password.to_owned(),
                ("number", _) => "1".to_owned(),
                (_, "postcode" | "zip" | "postal_code") => "10115".to_owned(),
                (_, name) => format!("Test {name}"),
            };
        }
    }

    /// The value of a field.
    ///
    /// # Errors
    /// When the form has no such field.
    pub fn value(&self, name: &str) -> anyhow::Result<&str> {
        let found = self.fields.iter().find(|field| field.name == name);
        let field = found.with_context(|| format!("the form for {} has no field {name}", self.action))?;
        Ok(&field.value)
    }

    /// Sends the form to `shop`; a redirect is not followed.
    ///
    /// # Errors
    /// As [`Visitor::send`].
    pub async fn submit(&self, visitor: &Visitor, shop: &str) -> anyhow::Result<Answer> {
        let fields: Vec<(&str, &str)> = self.fields.iter().map(|field| (field.name.as_str(), field.value.as_str())).collect();
        visitor.form(&format!("{shop}{}", self.action), &fields).await
    }
}

/// Makes an account at `shop` through the page for it; the visitor is logged in after.
///
/// # Errors
/// When the shop refuses.
pub async fn register(visitor: &Visitor, shop: &str, email: &str, password: &str) -> anyhow::Result<()> {
    send_account_form(visitor, shop, "/register", email, password).await
}

/// Logs in at `shop` through the page for it.
///
/// # Errors
/// When the shop refuses.
pub async fn log_in(visitor: &Visitor, shop: &str, email: &str, password: &str) -> anyhow::Result<()> {
    send_account_form(visitor, shop, "/login", email, password).await
}

/// Logs out at `shop` through the form that a logged-in visitor's page has.
///
/// # Errors
/// When there is no such form or the shop refuses.
pub async fn log_out(visitor: &Visitor, shop: &str) -> anyhow::Result<()> {
    let page = visitor.page(&format!("{shop}/account")).await?.success()?;
    let answer = Form::find(&page, "/logout")?.submit(visitor, shop).await?.success()?;
    ensure!(answer.status.is_redirection(), "a logout answers with a redirect, not {}", answer.status);
    Ok(())
}

async fn send_account_form(visitor: &Visitor, shop: &str, path: &str, email: &str, password: &str) -> anyhow::Result<()> {
    let page = visitor.page(&format!("{shop}{path}")).await?.success()?;
    let mut form = Form::find(&page, path)?;
    form.fill_the_rest(email, password);
    let answer = form.submit(visitor, shop).await?.success()?;
    ensure!(answer.status.is_redirection(), "{path}: {}: {}", answer.status, answer.text());
    Ok(())
}

fn fields(form: &str) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for piece in form.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or((piece, ""));
        let element = tag.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or_default();
        let value = attribute(tag, "value");
        match element {
            "input" | "select" | "textarea" => {
                let Some(name) = attribute(tag, "name") else {
                    continue;
                };
                let kind = attribute(tag, "type").unwrap_or_else(|| element.to_owned());
                let unchecked = matches!(kind.as_str(), "checkbox" | "radio") && !has_attribute(tag, "checked");
                if unchecked || kind == "submit" {
                    continue;
                }
                fields.push(Field {
                    name,
                    kind,
                    value: value.unwrap_or_default(),
                    required: has_attribute(tag, "required"),
                    options: Vec::new(),
                });
            }
            "option" => {
                let Some(select) = fields.last_mut().filter(|field| field.kind == "select") else {
                    continue;
                };
                // Without the attribute, its text is its value.
                let value = value.unwrap_or_else(|| text.trim().to_owned());
                if has_attribute(tag, "selected") {
                    select.value.clone_from(&value);
                }
                select.options.push(value);
            }
            _ => {}
        }
    }
    fields
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = format!(" {name}=\"");
    let flat = tag.replace(['\n', '\t'], " ");
    let (_, rest) = flat.split_once(&start)?;
    let (value, _) = rest.split_once('"')?;
    Some(value.replace("&quot;", "\"").replace("&#39;", "'").replace("&lt;", "<").replace("&amp;", "&"))
}

fn has_attribute(tag: &str, name: &str) -> bool {
    tag.split_whitespace().any(|word| word.trim_end_matches('/') == name || word.starts_with(&format!("{name}=")))
}
