//! Where a reply ends: just enough of the protocols to tell one reply from the next.

use anyhow::{Result, bail};

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// RESP2 and RESP3.
    Resp,
    /// memcached's text protocol.
    Memcached,
}

/// A longer line, string or array than any workload asks for: the server has gone wrong.
const LENGTH_MAX: usize = 64 * 1024 * 1024;

/// The length of the first reply in `bytes`, or `None` when it has not arrived as a whole.
///
/// # Errors
/// When the bytes cannot be the beginning of a reply.
pub(crate) fn scan(protocol: Protocol, bytes: &[u8]) -> Result<Option<usize>> {
    match protocol {
        Protocol::Resp => scan_resp(bytes),
        Protocol::Memcached => scan_memcached(bytes),
    }
}

fn scan_resp(bytes: &[u8]) -> Result<Option<usize>> {
    let mut position = 0;
    // Nested arrays need no stack: each only adds to the number of elements still to come.
    let mut missing: usize = 1;
    while missing > 0 {
        let Some((line, next)) = line(bytes, position)? else { return Ok(None) };
        missing -= 1;
        position = next;
        let Some((&kind, rest)) = line.split_first() else { bail!("an empty line instead of a reply") };
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'=' | b'!' => {
                if let Some(length) = length(rest)? {
                    position += length + 2;
                }
            }
            b'*' | b'~' | b'>' => missing += length(rest)?.unwrap_or(0),
            b'%' => missing += 2 * length(rest)?.unwrap_or(0),
            other => bail!("a reply that begins with byte {other:#04x}"),
        }
        if position > bytes.len() {
            return Ok(None);
        }
    }
    Ok(Some(position))
}

fn scan_memcached(bytes: &[u8]) -> Result<Option<usize>> {
    let mut position = 0;
    loop {
        let Some((line, next)) = line(bytes, position)? else { return Ok(None) };
        position = next;
        let Some(value) = line.strip_prefix(b"VALUE ") else { return Ok(Some(position)) };
        // VALUE <key> <flags> <bytes>
        let Some(size) = value.split(|&byte| byte == b' ').nth(2) else { bail!("a VALUE line without a length") };
        let Some(length) = length(size)? else { bail!("a VALUE line with a negative length") };
        position += length + 2;
        if position > bytes.len() {
            return Ok(None);
        }
    }
}

/// The line that begins at `start`, and where the next one does.
fn line(bytes: &[u8], start: usize) -> Result<Option<(&[u8], usize)>> {
    let rest = bytes.get(start..).unwrap_or_default();
    let Some(length) = rest.iter().position(|&byte| byte == b'\r') else {
        if rest.len() > LENGTH_MAX {
            bail!("a line of more than {LENGTH_MAX} bytes");
        }
        return Ok(None);
    };
    match rest.get(length + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some((&rest[..length], start + length + 2))),
        Some(_) => bail!("a line that ends in CR without LF"),
    }
}

/// A length as the protocols write it; `None` for the -1 of an absent value.
fn length(digits: &[u8]) -> Result<Option<usize>> {
    if digits == b"-1" {
        return Ok(None);
    }
    if digits.is_empty() {
        bail!("a length without digits");
    }
    let mut length = 0_usize;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            bail!("a length that is no number: '{}'", digits.escape_ascii());
        }
        length = length * 10 + usize::from(digit - b'0');
        if length > LENGTH_MAX {
            bail!("a length above {LENGTH_MAX}");
        }
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

    use super::{Protocol, scan};

    /// Each reply is found whatever follows it, and never before its last byte is there.
    fn check(protocol: Protocol, reply: &[u8]) {
        for end in 0..reply.len() {
            assert_eq!(scan(protocol, &reply[..end]).unwrap(), None, "at byte {end} of {}", reply.escape_ascii());
        }
        let followed = [reply, b"+next\r\n"].concat();
        assert_eq!(scan(protocol, &followed).unwrap(), Some(reply.len()), "{}", reply.escape_ascii());
    }

    #[test]
    fn ends_of_resp_replies_are_found_at_every_cut() {
        for reply in [
            &b"+OK\r\n"[..],
            b"-ERR no\r\n",
            b":17\r\n",
            b"$-1\r\n",
            b"$0\r\n\r\n",
            b"$5\r\na\r\nb\r\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b"*2\r\n$1\r\na\r\n:1\r\n",
            b"*2\r\n*2\r\n:1\r\n*1\r\n$2\r\n\r\n\r\n+x\r\n",
            b"%1\r\n+a\r\n_\r\n",
            b"_\r\n",
        ] {
            check(Protocol::Resp, reply);
        }
    }

    #[test]
    fn ends_of_memcached_replies_are_found_at_every_cut() {
        for reply in [
            &b"STORED\r\n"[..],
            b"END\r\n",
            b"VALUE k 0 5\r\nEND\r\n\r\nEND\r\n",
            b"VALUE a 0 0\r\n\r\nVALUE b 7 1\r\n\r\r\nEND\r\n",
        ] {
            check(Protocol::Memcached, reply);
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for reply in [&b"\r\n"[..], b"OK\r\n", b"$x\r\n", b"$\r\n", b"$99999999999999999999\r\n", b"+a\rb\r\n", b"*-2\r\n"] {
            assert!(scan(Protocol::Resp, reply).is_err(), "{}", reply.escape_ascii());
        }
        assert!(scan(Protocol::Memcached, b"VALUE k 0\r\n").is_err());
    }
}
