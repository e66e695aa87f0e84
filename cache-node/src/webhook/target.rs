//! Where a webhook goes.

use std::str::FromStr;

use hyper::Uri;

/// An address of http or https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) is_https: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query; it may hold what only the receiver is to know.
    pub(super) path: String,
    /// As the header Host has it.
    pub(super) authority: String,
}

/// The receiver of events.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target(pub(super) Parts);

impl Target {
    /// For logs and figures: without the path.
    pub(crate) fn shown(&self) -> String {
        format!("{}://{}", if self.0.is_https { "https" } else { "http" }, self.0.authority)
    }
}

/// Its path is never printed.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}/..)", self.shown())
    }
}

impl FromStr for Target {
    /// What was expected.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Target, &'static str> {
        const EXPECTED: &str = "an address such as https://example.com/hooks/cache";
        let uri: Uri = text.parse().map_err(|_| EXPECTED)?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(EXPECTED),
        };
        let authority = uri.authority().ok_or(EXPECTED)?;
        if authority.as_str().contains('@') {
            return Err("an address without a name and password: every request is signed, see --webhook-secret-file");
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(EXPECTED);
        }
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Target(Parts {
            is_https,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            path: path.to_owned(),
            authority: authority.as_str().to_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::Target;

    #[test]
    fn addresses_are_taken_apart_and_bad_ones_refused() {
        let target: Target = "https://hooks.example.com/services/T0/secret?x=1".parse().unwrap();
        let parts = &target.0;
        assert_eq!((parts.is_https, parts.host.as_str(), parts.port), (true, "hooks.example.com", 443));
        assert_eq!(parts.path, "/services/T0/secret?x=1");
        assert_eq!(target.shown(), "https://hooks.example.com");
        assert!(!format!("{target:?}").contains("secret"));
        let target: Target = "http://[::1]:8080".parse().unwrap();
        assert_eq!((target.0.host.as_str(), target.0.port, target.0.path.as_str()), ("::1", 8080, "/"));
        for bad in ["", "example.com", "/hook", "ftp://example.com/", "http://", "http://a b/", "redis://x"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        assert!("http://user:pass@example.com/".parse::<Target>().unwrap_err().contains("--webhook-secret-file"));
    }
}
