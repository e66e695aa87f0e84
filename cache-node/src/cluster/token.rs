//! Who may give commands: whoever can read a file in the cluster's folder. A web page in the user's browser cannot.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

const FILE: &str = "control.token";

/// The secret that commands carry. Its letters are never printed.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    /// The folder's secret; a new one where there is none.
    pub(super) fn of(folder: &Path) -> io::Result<Token> {
        let path = folder.join(FILE);
        match Token::read(&path) {
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::InvalidData].contains(&error.kind()) => {}
            found => return found,
        }
        let secret = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        // Aside and renamed: a crash leaves a whole one or none.
        let aside = path.with_extension("new");
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(secret.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        Ok(Token(secret))
    }

    /// The secret in a cluster's folder, for a command.
    pub(super) fn in_folder(folder: &Path) -> io::Result<Token> {
        Token::read(&folder.join(FILE))
    }

    /// The secret in a file.
    pub(super) fn read(path: &Path) -> io::Result<Token> {
        let text = fs::read_to_string(path)?;
        match text.trim() {
            "" => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty; the next start of the controller makes a new one"))
            }
            secret => Ok(Token(secret.to_owned())),
        }
    }

    /// As the Authorization header carries it.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether a header carries it. Looks at every byte, so that the time tells nothing of where it differs.
    pub(super) fn is_in(&self, header: &[u8]) -> bool {
        let expected = self.header();
        let differences = expected.bytes().zip(header).fold(0, |differences, (a, b)| differences | (a ^ b));
        expected.len() == header.len() && differences == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::Token;

    #[test]
    fn it_stays_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::of(folder.path()).unwrap();
        let again = Token::of(folder.path()).unwrap();
        assert!(token.is_in(again.header().as_bytes()));
        assert!(!token.is_in(b"") && !token.is_in(b"Bearer ") && !token.is_in(format!("{}0", token.header()).as_bytes()));
        let mode = folder.path().join("control.token").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_empty_one_lets_nobody_in_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("control.token"), "").unwrap();
        assert!(Token::in_folder(folder.path()).unwrap_err().to_string().contains("empty"));
        let token = Token::of(folder.path()).unwrap();
        assert!(!token.is_in(b"Bearer "));
        assert!(token.is_in(Token::in_folder(folder.path()).unwrap().header().as_bytes()));
    }
}
