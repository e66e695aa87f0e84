//! One try: a connection, a request, the status of its answer.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use crate::webhook::{SecretFile, Target, limits::TRY_MAX, secret::Secrets};

/// Why a try did not succeed.
#[derive(Debug, Error)]
pub(super) enum PostError {
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("no request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("no answer: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("no answer within {TRY_MAX:?}")]
    Late,
    #[error("the answer was {0}")]
    Refused(StatusCode),
}

impl PostError {
    /// Whether the receiver wants no event any more.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, PostError::Refused(StatusCode::GONE))
    }
}

/// Sends requests to one target, each over a connection of its own: events are rare.
#[derive(Clone)]
pub(super) struct Post {
    target: Target,
    secrets: SecretFile,
    /// `None` for http.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Post {
    pub(super) fn new(target: Target, secrets: SecretFile) -> Result<Post, String> {
        let tls = if target.0.is_https {
            let name =
                ServerName::try_from(target.0.host.clone()).map_err(|error| format!("--webhook {}: {error}", target.shown()))?;
            Some((connector()?, name))
        } else {
            None
        };
        Ok(Post { target, secrets, tls })
    }

    pub(super) fn shown(&self) -> String {
        self.target.shown()
    }

    /// Sends `body` as the message `id`, which stays the same when it is sent again. A redirection is not followed: the receiver is the one
    /// that the operator named.
    pub(super) async fn send(&self, id: &str, body: &Bytes) -> Result<(), PostError> {
        timeout(TRY_MAX, self.exchange(id, body)).await.unwrap_or(Err(PostError::Late))
    }

    async fn exchange(&self, id: &str, body: &Bytes) -> Result<(), PostError> {
        let secrets = self.secrets.secrets().await;
        let request = self.request(&secrets, id, body)?;
        let parts = &self.target.0;
        let stream = TcpStream::connect((parts.host.as_str(), parts.port)).await.map_err(PostError::Connect)?;
        match &self.tls {
            None => exchange_over(stream, request).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(PostError::Connect)?;
                exchange_over(stream, request).await
            }
        }
    }

    fn request(&self, secrets: &Secrets, id: &str, body: &Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let parts = &self.target.0;
        Request::post(&parts.path)
            .header(HOST, &parts.authority)
            .header(CONNECTION, "close")
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("cache-node/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", secrets.sign(id, timestamp, body))
            .body(Full::new(body.clone()))
    }
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Post({:?})", self.target)
    }
}

async fn exchange_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(), PostError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let sent = sender.send_request(request);
    tokio::pin!(sent, connection);
    // The connection ends with this call, with what the receiver still has to say.
    let response = tokio::select! {
        biased;
        response = &mut sent => response?,
        outcome = &mut connection => {
            outcome?;
            sent.await?
        }
    };
    if response.status().is_success() { Ok(()) } else { Err(PostError::Refused(response.status())) }
}

/// Trusts the authorities that the system trusts; `SSL_CERT_FILE` names others.
fn connector() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "--webhook: this machine has no certificates of authorities for https; install ca-certificates, or name a file \
                    with them in SSL_CERT_FILE"
                .to_owned(),
        );
    }
    // Not the provider of the process, which may be another one or none.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
