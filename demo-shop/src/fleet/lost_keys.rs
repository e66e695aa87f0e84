//! Keys of encryption that a data folder was used with, and that are not given any more.

use crate::fleet::data::{DataDir, KEYS_FILE};
use crate::shop::EncryptionArgs;

/// What can be read no more of our own store, since a key is not given with which it was encrypted; the key that is used now is remembered.
///
/// # Errors
/// When a key is none, or the data folder cannot be read or written.
pub(super) fn warning(data: &DataDir, encryption: &EncryptionArgs) -> anyhow::Result<Option<String>> {
    let given = encryption.fingerprints()?;
    let lost: Vec<_> = data.remembered_keys()?.into_iter().filter(|key| !given.contains(key)).collect();
    if let Some(first) = given.first().filter(|_| encryption.is_writing()) {
        data.remember_key(first)?;
    }
    let path = data.path().join(KEYS_FILE);
    Ok((!lost.is_empty()).then(|| {
        format!(
            "what was encrypted here with a key that is not given now cannot be read: the carts of those visitors\n  \
             are shown as out of reach. Give that key behind the present one, as in\n  \
             DEMO_SHOP_ENCRYPTION_KEYS=PRESENT,FORMER, or, when nothing of it matters any more, take out its line\n  \
             in {} ({}).",
            path.display(),
            lost.join(", ")
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::warning;
    use crate::fleet::data::DataDir;
    use crate::shop::EncryptionArgs;

    #[test]
    fn a_key_is_missed_until_it_is_given_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataDir::open(folder.path()).expect("a new folder opens");
        let (first, second) = ("0a".repeat(32), "0b".repeat(32));
        let both = format!("{second}, {first}");
        let told = |keys: &str| {
            let keys = Some(keys.to_owned()).filter(|keys| !keys.is_empty());
            let given = EncryptionArgs { encryption_keys: keys, encryption: None };
            warning(&data, &given).expect("the folder can be written")
        };
        assert_eq!([told(""), told(&first), told(&first)], [None, None, None]);
        let missed = [told(""), told(&second)].map(|warning| warning.expect("the first key is not given"));
        assert_eq!(missed[0], missed[1]);
        assert!(missed[0].contains("encryption.keys") && !missed[0].contains(&first), "{}", missed[0]);
        assert_eq!(told(&both), None);
        assert!(told(&first).is_some(), "the second one was used meanwhile");
    }
}
