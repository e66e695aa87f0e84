//! Addresses on the command line.

use std::net::SocketAddr;

/// An IP address and a port; `localhost` is 127.0.0.1, since more than one address cannot be listened on.
///
/// # Errors
/// In words, how an address is written.
pub(crate) fn parse(text: &str) -> Result<SocketAddr, String> {
    let port_here = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = port_here.as_deref().unwrap_or(text).parse();
    parsed.map_err(|_| format!("`{text}` is no address; write it as 127.0.0.1:8081, with a port of at most 65535"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(parse("localhost:8081").map(|address| address.to_string()), Ok("127.0.0.1:8081".to_owned()));
        assert_eq!(parse("[::1]:0").map(|address| address.to_string()), Ok("[::1]:0".to_owned()));
        for wrong in ["8081", "127.0.0.1", "localhost", "localhost:", "127.0.0.1:99999", "shop.example:80"] {
            assert!(parse(wrong).is_err_and(|error| error.contains(wrong) && error.contains("127.0.0.1:8081")), "{wrong}");
        }
    }
}
