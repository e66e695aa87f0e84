//! Static files: part of the binary, named by their content, cached for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::shop::failure::Failure;

struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

static ASSETS: [Asset; 5] = [
    Asset {
        name: "pico.css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("../../../templates/static/pico-2.1.1.min.css"),
    },
    Asset { name: "shop.css", kind: "text/css; charset=utf-8", bytes: include_bytes!("../../../templates/static/shop.css") },
    Asset { name: "shop.js", kind: "text/javascript; charset=utf-8", bytes: include_bytes!("../../../templates/static/shop.js") },
    Asset { name: FONT, kind: "font/woff2", bytes: include_bytes!("../../../templates/static/fraunces-600.woff2") },
    Asset { name: "mark.svg", kind: "image/svg+xml", bytes: include_bytes!("../../../templates/static/mark.svg") },
];

const FONT: &str = "fraunces-600.woff2";
/// The style sheet names the font, and cannot know its hash: its address has the release's number instead.
const FONT_VERSION: &str = "5.3.0";

/// What stands in each file's address, in the order of [`ASSETS`]: the content's hash.
static HASHES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let version = |asset: &Asset| if asset.name == FONT { FONT_VERSION.to_owned() } else { hash(asset.bytes) };
    ASSETS.iter().map(version).collect()
});

/// A year, the longest that RFC 9111 caches are asked to keep anything.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// The address of a file, with its content's hash in it. An unknown name is a mistake in a template, which the
/// tests of the pages find as an answer of 404.
pub(crate) fn url(name: &str) -> String {
    let hash = ASSETS.iter().zip(HASHES.iter()).find(|(asset, _)| asset.name == name).map_or("unknown", |(_, hash)| hash);
    format!("/static/{hash}/{name}")
}

pub(crate) async fn serve(Path((asked, name)): Path<(String, String)>, headers: HeaderMap) -> Result<Response, Failure> {
    let (asset, hash) =
        ASSETS.iter().zip(HASHES.iter()).find(|(asset, hash)| asset.name == name && **hash == asked).ok_or(Failure::NotFound)?;
    Ok(cached(&headers, hash, asset.kind, FOR_EVER, asset.bytes))
}

/// An answer with an ETag, or 304 when the client has it already.
pub(crate) fn cached(
    headers: &HeaderMap,
    hash: &str,
    kind: &'static str,
    cache: &'static str,
    bytes: impl IntoResponse,
) -> Response {
    let etag = format!("\"{hash}\"");
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().trim_start_matches("W/") == etag);
    let caching = [(header::ETAG, etag), (header::CACHE_CONTROL, cache.to_owned())];
    if known {
        (StatusCode::NOT_MODIFIED, caching).into_response()
    } else {
        (caching, [(header::CONTENT_TYPE, kind)], bytes).into_response()
    }
}

/// The first 8 bytes of the SHA-256, in hex.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
