//! The URL of a store: which kind it is, where it is, who logs in, and settings in its query.

use std::{fmt, path::PathBuf};

use percent_encoding::percent_decode_str;

use crate::{StoreError, nodes::Address};

/// Where Redis listens when nothing else is said.
const PORT_DEFAULT: u16 = 6379;
/// Where a Sentinel listens when nothing else is said.
const SENTINEL_PORT_DEFAULT: u16 = 26379;
/// Sentinels or nodes of a cluster that a URL may name.
const HOSTS_MAX: usize = 64;
/// What must be written to go without the check of the server's certificate.
const INSECURE: &str = "accept-any-certificate";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Standalone(Address),
    Sentinel { sentinels: Vec<Address>, name: String },
    Cluster { seeds: Vec<Address> },
}

#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How TLS is spoken, all of it optional.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TlsSettings {
    /// The authorities that may have signed the server's certificate, instead of the system's.
    pub(crate) ca: Option<PathBuf>,
    /// The client's certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Any certificate will do.
    pub(crate) insecure: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreUrl {
    pub(crate) target: Target,
    pub(crate) login: Login,
    pub(crate) sentinel_login: Login,
    pub(crate) database: i64,
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) prefix: Option<String>,
    pub(crate) pool_size: Option<usize>,
    /// Whether reads may go to the replicas that Sentinels or a cluster name.
    pub(crate) read_from_replicas: bool,
    /// Where copies of one node are read.
    pub(crate) reader: Option<Address>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standalone,
    Unix,
    Sentinel,
    Cluster,
}

impl StoreUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        parse(text).map_err(|reason| StoreError::InvalidUrl { reason })
    }

    /// A host and perhaps a port, as they are in a URL.
    pub(crate) fn address(text: &str) -> Result<Address, StoreError> {
        address(text, PORT_DEFAULT).map_err(|reason| StoreError::InvalidSettings { reason })
    }

    /// Nothing but where it leads.
    pub(crate) fn to(target: Target) -> Self {
        Self {
            target,
            login: Login::default(),
            sentinel_login: Login::default(),
            database: 0,
            tls: None,
            prefix: None,
            pool_size: None,
            read_from_replicas: false,
            reader: None,
        }
    }
}

fn parse(text: &str) -> Result<StoreUrl, String> {
    let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
    let (kind, tls) = scheme_of(scheme)?;
    let (rest, fragment) = split(rest, '#');
    if fragment.is_some() {
        return Err(format!("what follows `#` is not understood; to accept any certificate, write ?insecure={INSECURE}"));
    }
    let (rest, query) = split(rest, '?');
    let mut url = StoreUrl::to(Target::Cluster { seeds: Vec::new() });
    url.tls = tls.then(TlsSettings::default);
    if kind == Kind::Unix {
        if !rest.starts_with('/') {
            return Err("the path of a socket must begin with `/`: unix:///path/to/socket".to_owned());
        }
        url.target = Target::Standalone(Address::Unix(decoded(rest, "path")?.into()));
    } else {
        let (authority, path) = split(rest, '/');
        let (userinfo, hosts) = match authority.rsplit_once('@') {
            Some((userinfo, hosts)) => (Some(userinfo), hosts),
            None => (None, authority),
        };
        url.login = userinfo.map_or_else(|| Ok(Login::default()), login)?;
        let port = if kind == Kind::Sentinel { SENTINEL_PORT_DEFAULT } else { PORT_DEFAULT };
        let addresses = addresses(hosts, port)?;
        let mut path = path.unwrap_or_default().split('/');
        url.target = match kind {
            Kind::Standalone | Kind::Unix => {
                let [address] = <[Address; 1]>::try_from(addresses).map_err(
                    |_| "several hosts need redis+sentinel:// or redis+cluster://, so that it is known how they work together",
                )?;
                Target::Standalone(address)
            }
            Kind::Cluster => Target::Cluster { seeds: addresses },
            Kind::Sentinel => {
                let name = decoded(path.next().unwrap_or_default(), "name of the primary")?;
                if name.is_empty() {
                    return Err("the name under which the Sentinels watch the primary is missing: \
                                redis+sentinel://host1,host2,host3/name"
                        .to_owned());
                }
                Target::Sentinel { sentinels: addresses, name }
            }
        };
        if let Some(database) = path.next().filter(|database| !database.is_empty()) {
            url.database = number(database, "database")?;
        }
        if path.any(|part| !part.is_empty()) {
            return Err("the path has more parts than are understood".to_owned());
        }
    }
    settings(&mut url, kind, query.unwrap_or_default())?;
    if url.database != 0 && kind == Kind::Cluster {
        return Err("a cluster has no database but 0".to_owned());
    }
    Ok(url)
}

fn scheme_of(scheme: &str) -> Result<(Kind, bool), String> {
    // Valkey's own clients write its name where Redis's write theirs.
    let kind = match scheme.replace("valkey", "redis").as_str() {
        "redis" => (Kind::Standalone, false),
        "rediss" => (Kind::Standalone, true),
        "unix" | "redis+unix" => (Kind::Unix, false),
        "redis+sentinel" | "redis-sentinel" => (Kind::Sentinel, false),
        "rediss+sentinel" | "rediss-sentinel" => (Kind::Sentinel, true),
        "redis+cluster" | "redis-cluster" => (Kind::Cluster, false),
        "rediss+cluster" | "rediss-cluster" => (Kind::Cluster, true),
        _ => return Err(format!("the scheme `{scheme}://` is not one of a store")),
    };
    if kind.1 && !cfg!(feature = "tls") {
        return Err(format!("`{scheme}://` needs the feature `tls` of session-store, which this build is without"));
    }
    Ok(kind)
}

fn login(userinfo: &str) -> Result<Login, String> {
    let (user, password) = split(userinfo, ':');
    let part = |text: &str, what| Ok::<_, String>(Some(decoded(text, what)?).filter(|text| !text.is_empty()));
    let login = Login { user: part(user, "user")?, password: part(password.unwrap_or_default(), "password")? };
    if login.user.is_some() && login.password.is_none() {
        return Err("it has a user and no password; a password alone is written as redis://:password@host".to_owned());
    }
    Ok(login)
}

fn addresses(hosts: &str, port_default: u16) -> Result<Vec<Address>, String> {
    let addresses = hosts.split(',').map(|host| address(host, port_default)).collect::<Result<Vec<_>, _>>()?;
    if addresses.len() > HOSTS_MAX {
        return Err(format!("it names {} hosts; {HOSTS_MAX} are allowed, and three are enough", addresses.len()));
    }
    Ok(addresses)
}

fn address(host: &str, port_default: u16) -> Result<Address, String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']').ok_or_else(|| format!("the host `{host}` has no closing bracket"))?;
            (name, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or(rest)) })
        }
        None => split(host, ':'),
    };
    if !host.starts_with('[') && host.matches(':').count() > 1 {
        return Err(format!("the address `{host}` needs brackets: [::1]:6379"));
    }
    if name.is_empty() {
        return Err("a host is missing".to_owned());
    }
    if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("the host `{name}` cannot be one"));
    }
    let port = match port {
        None => port_default,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("the port `{port}` is not a number from 1 to 65535"))?,
    };
    Ok(Address::tcp(name, port))
}

fn settings(url: &mut StoreUrl, kind: Kind, query: &str) -> Result<(), String> {
    let mut certificate = None;
    let mut key = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = split(pair, '=');
        let value = decoded(value.unwrap_or_default(), name)?;
        let is_sentinel = kind == Kind::Sentinel;
        match (name, &mut url.tls) {
            ("prefix", _) => url.prefix = Some(value),
            ("pool_size", _) => url.pool_size = Some(number(&value, name)?),
            ("db", _) => url.database = number(&value, "database")?,
            ("user", _) => url.login.user = Some(value),
            ("password" | "pass", _) => url.login.password = Some(value),
            ("sentinel_user", _) if is_sentinel => url.sentinel_login.user = Some(value),
            ("sentinel_password", _) if is_sentinel => url.sentinel_login.password = Some(value),
            ("read_from", _) if value != "replicas" => {
                return Err(format!("`read_from={value}` is not understood: write read_from=replicas, or leave it out"));
            }
            ("read_from", _) if matches!(kind, Kind::Sentinel | Kind::Cluster) => url.read_from_replicas = true,
            ("read_from", _) => {
                return Err("of one node it is not known where its replicas are: write reader=host:port".to_owned());
            }
            ("reader", _) if kind == Kind::Standalone => url.reader = Some(address(&value, PORT_DEFAULT)?),
            ("reader", _) => {
                return Err("`reader` is for redis://; with Sentinels or a cluster write read_from=replicas".to_owned());
            }
            ("ca", Some(tls)) => tls.ca = Some(value.into()),
            ("cert", Some(_)) => certificate = Some(value),
            ("key", Some(_)) => key = Some(value),
            ("insecure", Some(tls)) if value == INSECURE => tls.insecure = true,
            ("insecure", Some(_)) => {
                return Err(format!(
                    "without the check of the certificate anyone in between can read every session; if that is \
                     meant, write insecure={INSECURE}, and otherwise ca=/path/to/ca.pem"
                ));
            }
            ("ca" | "cert" | "key" | "insecure", None) => {
                return Err(format!("`{name}` is for TLS, and the scheme is one without: write rediss"));
            }
            ("sentinel_user" | "sentinel_password", _) => return Err(format!("`{name}` is for redis+sentinel://")),
            _ => {
                return Err(format!(
                    "the setting `{name}` is not known; those of a URL are prefix, pool_size, db, user, password, \
                     read_from, reader, sentinel_user, sentinel_password, ca, cert, key and insecure"
                ));
            }
        }
    }
    match (certificate, key, &mut url.tls) {
        (Some(certificate), Some(key), Some(tls)) => tls.identity = Some((certificate.into(), key.into())),
        (None, None, _) => {}
        _ => return Err("a client's certificate needs both: cert=/path/to/cert.pem&key=/path/to/key.pem".to_owned()),
    }
    Ok(())
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

fn decoded(text: &str, what: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| format!("the {what} is not UTF-8 after decoding"))?;
    Ok(decoded.into_owned())
}

fn number<N: std::str::FromStr>(text: &str, what: &str) -> Result<N, String> {
    // Only digits: `+1` and `-1` would be numbers, too.
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| format!("the {what} `{text}` is not a number that can be one"))
}

#[cfg(test)]
mod tests {
    use super::{StoreUrl, Target, TlsSettings};
    use crate::nodes::Address;

    fn parsed(url: &str) -> StoreUrl {
        StoreUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn one_node() {
        let url = parsed("redis://ada:p%40ss@node-1:7000/3?prefix=book&pool_size=9");
        assert_eq!(url.target, Target::Standalone(Address::tcp("node-1", 7000)));
        assert_eq!((url.login.user.as_deref(), url.login.password.as_deref()), (Some("ada"), Some("p@ss")));
        assert_eq!((url.database, url.prefix.as_deref(), url.pool_size, &url.tls), (3, Some("book"), Some(9), &None));
        assert_eq!(parsed("redis://:secret@[::1]").target, Target::Standalone(Address::tcp("::1", 6379)));
        assert_eq!(parsed("valkey://h").target, Target::Standalone(Address::tcp("h", 6379)));
        assert_eq!(parsed("redis://h?reader=r:7").reader, Some(Address::tcp("r", 7)));
        let unix = parsed("unix:///run/redis%20a.sock?db=2&password=x");
        assert_eq!(unix.target, Target::Standalone(Address::Unix("/run/redis a.sock".into())));
        assert_eq!((unix.database, unix.login.password.as_deref()), (2, Some("x")));
    }

    #[test]
    fn several_nodes() {
        let url = parsed("redis+sentinel://u:p@a,b:27000,[::2]:27001/main/4?sentinel_user=watch&sentinel_password=er");
        let sentinels = vec![Address::tcp("a", 26379), Address::tcp("b", 27000), Address::tcp("::2", 27001)];
        assert_eq!(url.target, Target::Sentinel { sentinels, name: "main".to_owned() });
        assert_eq!((url.database, url.login.user.as_deref(), url.sentinel_login.user.as_deref()), (4, Some("u"), Some("watch")));
        assert!(!url.read_from_replicas && parsed("redis+sentinel://a/main?read_from=replicas").read_from_replicas);
        let cluster = parsed("redis+cluster://a,b:7001");
        assert_eq!(cluster.target, Target::Cluster { seeds: vec![Address::tcp("a", 6379), Address::tcp("b", 7001)] });
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls() {
        let url = parsed("rediss+cluster://h?ca=/ca.pem&cert=/c.pem&key=/k.pem");
        let expected =
            TlsSettings { ca: Some("/ca.pem".into()), identity: Some(("/c.pem".into(), "/k.pem".into())), insecure: false };
        assert_eq!(url.tls, Some(expected));
        let insecure = TlsSettings { insecure: true, ..TlsSettings::default() };
        assert_eq!(parsed("rediss://h?insecure=accept-any-certificate").tls, Some(insecure));
    }

    #[test]
    fn what_is_wrong_is_said_and_the_password_is_not() {
        let mut cases = vec![
            ("127.0.0.1:6379", "no scheme"),
            ("http://:secret@h", "`http://`"),
            ("redis://", "host is missing"),
            ("redis://:secret@", "host is missing"),
            ("redis://:secret@h:99999", "port `99999`"),
            ("redis://:secret@h:0", "port `0`"),
            ("redis://:secret@a,b", "redis+sentinel:// or redis+cluster://"),
            ("redis://h/one", "database `one`"),
            ("redis://h/-1", "database `-1`"),
            ("redis://h/1/2", "more parts"),
            ("redis://ada@h", "a user and no password"),
            ("redis://:secret@h?poolsize=3", "`poolsize` is not known"),
            ("redis://h?pool_size=many", "pool_size `many`"),
            ("redis://h?ca=/x", "is for TLS"),
            ("redis://h?sentinel_user=x", "is for redis+sentinel://"),
            ("redis://h#insecure", "what follows `#`"),
            ("redis://h?read_from=replicas", "write reader=host:port"),
            ("redis://h?reader=h:x", "port `x`"),
            ("redis+cluster://h?reader=h", "write read_from=replicas"),
            ("redis+cluster://h?read_from=primary", "`read_from=primary` is not understood"),
            ("redis+sentinel://a,b,c", "redis+sentinel://host1,host2,host3/name"),
            ("redis+sentinel://a,,c/x", "host is missing"),
            ("redis+cluster://a/1", "no database but 0"),
            ("unix://socket", "must begin with `/`"),
            ("redis://::1", "needs brackets"),
            ("redis://a b", "cannot be one"),
            ("redis://[::1", "closing bracket"),
            ("redis://:%ff@h", "not UTF-8"),
        ];
        if cfg!(feature = "tls") {
            cases.push(("rediss://h?insecure=true", "insecure=accept-any-certificate"));
            cases.push(("rediss://h?cert=/c.pem", "needs both"));
        }
        for (url, part) in cases {
            let error = StoreUrl::parse(url).expect_err(url).to_string();
            assert!(error.contains(part) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
