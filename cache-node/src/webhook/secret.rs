//! What webhooks are signed with.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::task::spawn_blocking;

/// In front of a secret, so that it is found where it does not belong.
const PREFIX: &str = "whsec_";

/// Bytes of a secret, as Standard Webhooks asks for.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Secrets at once: the new one and those that it replaces.
const SECRETS_MAX: usize = 4;

/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 4096;

/// A file with secrets, which may change while the process runs.
#[derive(Clone, Debug)]
pub(crate) struct SecretFile {
    path: Arc<Path>,
    /// As they were when it was last read and was good.
    last: Arc<Mutex<Secrets>>,
}

impl SecretFile {
    /// # Errors
    /// As [`Secrets::read`].
    pub(crate) fn open(path: &Path) -> Result<SecretFile, String> {
        let secrets = Secrets::read(path)?;
        Ok(SecretFile { path: path.into(), last: Arc::new(Mutex::new(secrets)) })
    }

    /// What is in the file now, or what was there before, while it is being written or is bad.
    pub(super) async fn secrets(&self) -> Secrets {
        let path = Arc::clone(&self.path);
        // Events are rare, and a disk that hangs is to stop nothing but them.
        let read = spawn_blocking(move || Secrets::read(&path)).await;
        let mut last = self.last.lock();
        match read {
            Ok(Ok(secrets)) => *last = secrets,
            Ok(Err(expected)) => {
                tracing::warn!(file = %self.path.display(), "events are signed with the secrets of before: expected {expected}");
            }
            Err(error) => tracing::warn!(%error, "events are signed with the secrets of before"),
        }
        last.clone()
    }
}

/// The text of a regular file of at most [`FILE_BYTES_MAX`]. Of a pipe, such as a shell's `<(...)`, nothing would be left for the next time.
fn text_of(path: &Path) -> Result<String, String> {
    if !fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("It is no regular file, and is read again for each request".to_owned());
    }
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX { Err(format!("It is larger than {FILE_BYTES_MAX} bytes")) } else { Ok(text) }
}

/// The secrets of the file. They are never printed.
#[derive(Clone)]
pub(crate) struct Secrets(Vec<Hmac<Sha256>>);

impl Secrets {
    /// Reads a file with a secret per line.
    ///
    /// # Errors
    /// When it cannot be read or is not of that form; the text says what is expected and holds nothing of the file.
    pub(crate) fn read(path: &Path) -> Result<Secrets, String> {
        let secrets = text_of(path).and_then(|text| Secrets::parse(&text));
        secrets.map_err(|error| {
            format!("a file with secrets; make one with: (printf whsec_; head -c 32 /dev/urandom | base64) > FILE. {error}")
        })
    }

    fn parse(text: &str) -> Result<Secrets, String> {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() || lines.len() > SECRETS_MAX {
            return Err(format!("It has not 1 to {SECRETS_MAX} lines, each {PREFIX} and a secret in base64"));
        }
        let secrets = lines.iter().enumerate().map(|(index, line)| {
            let bytes = line.strip_prefix(PREFIX).and_then(|secret| STANDARD.decode(secret).ok());
            let bytes = bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
            let bytes = bytes.ok_or_else(|| {
                let (min, max) = (SECRET_BYTES.start(), SECRET_BYTES.end());
                format!("Line {} is not {PREFIX} and {min} to {max} bytes in base64", index + 1)
            })?;
            Ok(Hmac::new_from_slice(&bytes).expect("HMAC takes a key of any length"))
        });
        secrets.collect::<Result<_, String>>().map(Secrets)
    }

    /// The header `webhook-signature`: one signature per secret.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|secret| {
            let mut mac = secret.clone();
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::Secrets;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn it_signs_as_the_standards_example_is_signed() {
        let (id, timestamp, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(Secrets::parse(SECRET).unwrap().sign(id, timestamp, body), signature);
        let both = Secrets::parse(&format!("whsec_{}\n\n{SECRET}\n", "A".repeat(32))).unwrap().sign(id, timestamp, body);
        assert!(both.starts_with("v1,") && both.ends_with(&format!(" {signature}")), "{both}");
        assert_ne!(Secrets::parse(SECRET).unwrap().sign(id, timestamp + 1, body), signature);
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_told() {
        let short = format!("whsec_{}", "A".repeat(20));
        for bad in
            ["", "\n", "hunter2hunter2hunter2hunter2hunt", "whsec_", "whsec_!!!!", &short, &format!("{SECRET}\n").repeat(5)]
        {
            let error = Secrets::parse(bad).unwrap_err();
            assert!(!error.contains("hunter2") && !error.contains("AAAA"), "{error}");
        }
        // Neither a device that never ends nor a folder.
        for path in ["/dev/zero", "/"] {
            let error = Secrets::read(path.as_ref()).unwrap_err();
            assert!(error.contains("no regular file"), "{error}");
        }
        assert!(!format!("{:?}", Secrets::parse(SECRET).unwrap()).contains("MfKQ"));
    }
}
