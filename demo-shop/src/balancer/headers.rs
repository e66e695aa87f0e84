//! Which header fields pass, and which ones the balancer writes itself.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Fields that belong to one connection and not to the message (RFC 9110 section 7.6.1, RFC 2616 section 13.5.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that only a proxy may set: a client's own would let it choose the address that the shop believes.
const FORWARDED: [&str; 7] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
];

/// Removes what belongs to one connection, and what its `Connection` field names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Makes a client's header fields into those for a replica.
pub(crate) fn prepare_request(headers: &mut HeaderMap, client: SocketAddr) {
    remove_hop_by_hop(headers);
    for name in FORWARDED {
        headers.remove(name);
    }
    // The length is that of the body we send, which the client writes; the continue was answered by our own server.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    let host = headers.get(header::HOST).cloned();
    insert(headers, "x-forwarded-for", &client.ip().to_string());
    insert(headers, "x-forwarded-proto", "http");
    let mut forwarded = format!("for={}", forwarded_node(client.ip()));
    if let Some(host) = host {
        // Only a plain host goes between the quotes; anything else is kept out of the field.
        if let Some(text) = host.to_str().ok().filter(|text| is_plain_host(text)) {
            forwarded.push_str(&format!(";host=\"{text}\""));
        }
        headers.insert("x-forwarded-host", host);
    }
    forwarded.push_str(";proto=http");
    insert(headers, "forwarded", &forwarded);
}

/// RFC 7239 section 6: an IPv6 address is bracketed and quoted.
fn forwarded_node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    }
}

fn is_plain_host(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']' | b'_'))
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::http::HeaderMap;

    use crate::balancer::headers::{prepare_request, remove_hop_by_hop};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a header value of the test"));
        }
        headers
    }

    #[test]
    fn fields_of_one_connection_are_removed() {
        let mut headers = headers(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("cookie", "sid=1"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("cookie"));
    }

    #[test]
    fn a_client_cannot_choose_its_address() {
        let mut headers = headers(&[
            ("host", "shop.example:8080"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
        ]);
        prepare_request(&mut headers, SocketAddr::from(([192, 0, 2, 7], 5_000)));
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-host"], "shop.example:8080");
        assert_eq!(headers["forwarded"], "for=192.0.2.7;host=\"shop.example:8080\";proto=http");
        assert!(!headers.contains_key("x-real-ip"));
        assert_eq!(headers["host"], "shop.example:8080");
    }

    #[test]
    fn an_odd_host_and_an_ipv6_client_are_written_safely() {
        let mut headers = headers(&[("host", "a\";proto=https")]);
        prepare_request(&mut headers, "[2001:db8::1]:9".parse().expect("an address of the test"));
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";proto=http");
    }
}
