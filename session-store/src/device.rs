//! What is kept of the device and the network from which a user logged in: classes, from which nobody is told apart.

use std::net::IpAddr;

use http::HeaderValue;

/// The classes of browsers, the first match counts: many claim to be others as well.
const BROWSERS: [(&str, &str); 14] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Vivaldi/", "Vivaldi"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
    ("okhttp/", "An app"),
    ("CFNetwork/", "An app"),
];

/// The classes of systems.
const SYSTEMS: [(&str, &str); 9] = [
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "macOS"),
    ("Darwin", "an Apple device"),
    ("Linux", "Linux"),
    ("X11", "Unix"),
];

/// Bytes of a User-Agent that are looked at.
const USER_AGENT_BYTES_MAX: usize = 1_024;
/// Bits of an IPv4 address that are kept: the network of a provider or an office.
const IPV4_BITS: u32 = 24;
/// Bits of an IPv6 address that are kept: what one site gets is at most this long.
const IPV6_BITS: u32 = 48;

/// From where a user logs in, in classes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Device {
    pub(crate) class: String,
    /// Empty when the layer was not told how to find the address.
    pub(crate) network: String,
}

/// What a request tells of its client, not yet looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Client {
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) address: Option<IpAddr>,
}

impl Client {
    pub(crate) fn device(&self) -> Device {
        Device {
            class: class_of_user_agent(self.user_agent.as_ref().map_or(b"", HeaderValue::as_bytes)),
            network: self.address.map(class_of_address).unwrap_or_default(),
        }
    }
}

/// `Firefox on Linux`: one of some hundred classes, whatever the client sends.
fn class_of_user_agent(user_agent: &[u8]) -> String {
    let user_agent = &user_agent[..user_agent.len().min(USER_AGENT_BYTES_MAX)];
    let find = |classes: &[(&str, &'static str)]| {
        let found = classes.iter().find(|(mark, _)| user_agent.windows(mark.len()).any(|window| window == mark.as_bytes()));
        found.map(|(_, class)| *class)
    };
    match (find(&BROWSERS), find(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(class), None) | (None, Some(class)) => class.to_owned(),
        (None, None) => "unknown".to_owned(),
    }
}

/// `203.0.113.0/24`: the network of an address, never the address itself.
fn class_of_address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let network = address.to_bits() & (u32::MAX << (32 - IPV4_BITS));
            format!("{}/{IPV4_BITS}", std::net::Ipv4Addr::from_bits(network))
        }
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << (128 - IPV6_BITS));
            format!("{}/{IPV6_BITS}", std::net::Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{class_of_address, class_of_user_agent};

    #[test]
    fn a_user_agent_becomes_one_of_a_few_classes() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
        for (user_agent, class) in [
            (chrome.to_owned(), "Chrome on Linux"),
            (format!("{chrome} Edg/142.0.0.0"), "Edge on Linux"),
            ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0".into(), "Firefox on Windows"),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 \
                 Mobile/15E148 Safari/604.1"
                    .into(),
                "Safari on iPhone",
            ),
            ("Mozilla/5.0 (Linux; Android 16) Chrome/142.0.0.0 Mobile Safari/537.36".into(), "Chrome on Android"),
            ("curl/8.17.0".into(), "curl"),
            (String::new(), "unknown"),
            ("<script>alert(1)</script>".repeat(10_000), "unknown"),
        ] {
            assert_eq!(class_of_user_agent(user_agent.as_bytes()), class, "{user_agent:.80}");
        }
        assert_eq!(class_of_user_agent(&[0xff; 40]), "unknown");
    }

    #[test]
    fn an_address_becomes_its_network() {
        for (address, class) in [
            ("203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:12:3456::9", "2001:db8:12::/48"),
            ("::ffff:198.51.100.9", "198.51.100.0/24"),
            ("::1", "::/48"),
        ] {
            assert_eq!(class_of_address(address.parse().unwrap()), class);
        }
    }
}
