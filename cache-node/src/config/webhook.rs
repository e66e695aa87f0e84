//! Directives of webhooks.

use std::path::{Path, PathBuf};

#[cfg(feature = "webhooks")]
use crate::webhook::{SecretFile, TARGETS_MAX, Target, WebhookSettings};

/// Where events are told and with what they are signed, as the directives say it. It was checked when it was set.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct WebhookConfig {
    /// With their paths, which may be secret.
    addresses: Vec<String>,
    secret_file: Option<PathBuf>,
}

impl WebhookConfig {
    /// Takes the place of the addresses; a text may hold several.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn set_addresses(&mut self, values: &[&str]) -> Result<(), String> {
        let addresses: Vec<String> = values.iter().flat_map(|value| value.split_whitespace()).map(str::to_owned).collect();
        check(&addresses)?;
        self.addresses = addresses;
        Ok(())
    }

    /// These addresses behind `others`; none at all, if these are none. One that is among `others` is not told twice: after CONFIG REWRITE the
    /// file has what the command line says again.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn add_to(&mut self, others: &WebhookConfig) -> Result<(), String> {
        if !self.addresses.is_empty() {
            self.addresses.retain(|address| !others.addresses.contains(address));
            self.addresses.splice(..0, others.addresses.iter().cloned());
        }
        check(&self.addresses)
    }

    /// "" for none. It is opened when the node starts and not here: CONFIG REWRITE sets what a file says again.
    ///
    /// # Errors
    /// None.
    pub(super) fn set_secret_file(&mut self, path: &str) -> Result<(), String> {
        self.secret_file = (!path.is_empty()).then(|| PathBuf::from(path));
        Ok(())
    }

    /// As a line of a file has them.
    pub(super) fn addresses(&self) -> String {
        self.addresses.join(" ")
    }

    /// The same without paths.
    pub(super) fn shown(&self) -> String {
        #[cfg(feature = "webhooks")]
        let shown =
            |address: &String| address.parse().map(|target: Target| format!("{}/...", target.shown())).unwrap_or_default();
        #[cfg(not(feature = "webhooks"))]
        let shown = String::clone;
        self.addresses.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn secret_file(&self) -> Option<&Path> {
        self.secret_file.as_deref()
    }

    /// What is to be told, and how. `None`: nothing.
    ///
    /// # Errors
    /// When there is no secret, or it cannot be read any more. The text says what to do.
    #[cfg(feature = "webhooks")]
    pub(crate) fn settings(&self) -> Result<Option<WebhookSettings>, String> {
        let secrets = self.secret_file.as_deref().map(|path| {
            SecretFile::open(path).map_err(|error| format!("webhook-secret-file {}: expected {error}", path.display()))
        });
        let secrets = secrets.transpose()?;
        if self.addresses.is_empty() {
            return Ok(None);
        }
        let targets = self.addresses.iter().map(|address| address.parse::<Target>()).collect::<Result<_, _>>();
        let targets = targets.map_err(|expected| format!("webhook: expected {expected}"))?;
        let secrets = secrets.ok_or("webhook needs webhook-secret-file: every request is signed with what is in it")?;
        Ok(Some(WebhookSettings { targets, secrets }))
    }
}

/// Paths are not printed.
impl std::fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WebhookConfig({} from {:?})", self.shown(), self.secret_file)
    }
}

#[cfg(feature = "webhooks")]
fn check(addresses: &[String]) -> Result<(), String> {
    if addresses.len() > TARGETS_MAX {
        return Err(format!("{TARGETS_MAX} addresses at the most"));
    }
    addresses.iter().try_for_each(|address| address.parse::<Target>().map(drop).map_err(str::to_owned))
}

#[cfg(not(feature = "webhooks"))]
fn check(addresses: &[String]) -> Result<(), String> {
    if addresses.is_empty() { Ok(()) } else { Err("none: this program was built without its feature 'webhooks'".to_owned()) }
}

#[cfg(all(test, feature = "webhooks"))]
mod tests {
    use crate::Config;

    #[test]
    fn addresses_add_up_and_are_shown_without_their_paths() {
        let mut config = Config::default();
        for address in ["https://example.com/hooks/hush", "http://10.0.0.7:8080/hush http://other/hush?hush"] {
            config.read("webhook", &[address]).expect("addresses");
        }
        let shown = "https://example.com/... http://10.0.0.7:8080/... http://other/...";
        assert_eq!(config.get("webhook").as_deref(), Some(shown));
        assert!(!format!("{config:?}").contains("hush"));
        config.read("webhook", &["http://other/hush?hush"]).expect("one that is there already");
        assert_eq!(config.get("webhook").as_deref(), Some(shown));
        let six: Vec<String> = (0..6).map(|number| format!("http://x/hush/{number}")).collect();
        let error = config.read("webhook", &[&six.join(" ")]).expect_err("more than there may be").to_string();
        assert!(error.contains("8 addresses") && !error.contains("hush"), "{error}");
        let error = config.set("webhook", &["ftp://hush"]).expect_err("no address of http").to_string();
        assert!(error.contains("https://example.com/hooks/cache") && !error.contains("hush"), "{error}");
        config.read("webhook", &[""]).expect("none");
        assert_eq!(config.get("webhook").as_deref(), Some(""));
    }
}
