//! Requests as bytes: what the log keeps and replicas are sent.

use crate::protocol::DecimalBuffer;

/// Appends a request in the form in which clients send it: an array of bulk strings.
pub(crate) fn encode_request<'a>(bytes: &mut Vec<u8>, arguments: impl ExactSizeIterator<Item = &'a [u8]>) {
    header(bytes, b'*', arguments.len());
    for argument in arguments {
        bytes.reserve(argument.len() + 16);
        header(bytes, b'$', argument.len());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
}

fn header(bytes: &mut Vec<u8>, kind: u8, number: usize) {
    bytes.push(kind);
    bytes.extend_from_slice(DecimalBuffer::default().format(number as i64));
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::encode_request;

    #[test]
    fn a_request_is_an_array_of_bulk_strings() {
        let mut bytes = Vec::new();
        encode_request(&mut bytes, [&b"SET"[..], b"k", b""].into_iter());
        assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}
