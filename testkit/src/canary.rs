//! Secrets made to be looked for.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem;

use crate::error::{Context, Error, Result};

/// A secret of high entropy, put where a secret belongs, and looked for everywhere else afterwards.
///
/// It is found raw, in UTF-16, in hex of either case, in base64 of either alphabet at each of the three alignments,
/// percent-encoded, escaped as Rust shows bytes, and as a list of numbers. Each half counts as a find by itself, so a secret that was cut in two is found as well. Compressed
/// or encrypted bytes are not opened: decode them first and give the result to [`Canary::assert_absent_in`].
///
/// ```
/// let canary = testkit::Canary::new("upstream-password");
/// canary.assert_absent_in("a log line", b"login failed for `app`");
/// assert!(canary.find_in(canary.secret().as_bytes()).is_some());
/// ```
pub struct Canary {
    label: String,
    secret: String,
    needles: Vec<(String, Vec<u8>)>,
}

impl Canary {
    /// A fresh secret of 32 letters and digits; the label stands in messages in its place.
    pub fn new(label: &str) -> Self {
        Self::of(label, &random_text(SECRET_LENGTH)).expect("the secret is long enough")
    }

    /// Looks for a secret that exists already, such as a password a server generated.
    ///
    /// # Errors
    /// When the secret is shorter than 16 bytes: halves of less than 8 bytes would be found by chance.
    pub fn of(label: &str, secret: &str) -> Result<Self> {
        Self::build(label, secret.to_owned(), secret.as_bytes())
    }

    /// Looks for a secret that is not text, such as a key; [`secret`](Self::secret) gives it in hex.
    ///
    /// # Errors
    /// As [`Canary::of`].
    pub fn of_bytes(label: &str, secret: &[u8]) -> Result<Self> {
        Self::build(label, hex(secret), secret)
    }

    fn build(label: &str, text: String, secret: &[u8]) -> Result<Self> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(Error::new(format!(
                "the canary `{label}` is shorter than {MIN_SECRET_BYTES} bytes, use a longer secret"
            )));
        }
        let (first, second) = secret.split_at(secret.len() / 2);
        let mut needles = Vec::new();
        for (half, bytes) in [("first half", first), ("second half", second)] {
            needles
                .extend(encodings(bytes).into_iter().map(|(how, needle)| (format!("{half}, {how}"), needle)));
        }
        Ok(Self { label: label.to_owned(), secret: text, needles })
    }

    /// The secret itself, to hand to the code under test.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Tells which part was found in which encoding, or `None`.
    pub fn find_in(&self, bytes: &[u8]) -> Option<&str> {
        self.needles
            .iter()
            .find(|(_, needle)| memmem::find(bytes, needle).is_some())
            .map(|(how, _)| how.as_str())
    }

    /// Looks through every regular file under a folder; symbolic links are not followed.
    ///
    /// # Errors
    /// When a file is gone or unreadable: what cannot be read has not been searched.
    pub fn find_under(&self, folder: &Path) -> Result<Option<String>> {
        for entry in fs::read_dir(folder).context(&format!("list `{}`", folder.display()))? {
            let entry = entry.context(&format!("list `{}`", folder.display()))?;
            let (path, kind) = (entry.path(), entry.file_type().context("read a file's type")?);
            let found = if kind.is_dir() {
                self.find_under(&path)?
            } else if kind.is_file() {
                self.find_in_file(&path)?
            } else {
                None
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Asserts that the bytes hold no part of the secret.
    ///
    /// # Panics
    /// When a part is found; the message names place and encoding, never the secret.
    #[track_caller]
    pub fn assert_absent_in(&self, place: &str, bytes: &[u8]) {
        if let Some(how) = self.find_in(bytes) {
            panic!("the secret `{}` is in {place} ({how})", self.label);
        }
    }

    /// Asserts that no file under the folder holds a part of the secret.
    ///
    /// # Panics
    /// When a part is found, or a file cannot be read.
    #[track_caller]
    pub fn assert_absent_under(&self, folder: &Path) {
        match self.find_under(folder) {
            Ok(None) => {}
            Ok(Some(place)) => panic!("the secret `{}` is in {place}", self.label),
            Err(error) => panic!("the search for `{}` is incomplete: {error}", self.label),
        }
    }

    fn find_in_file(&self, path: &Path) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .context(&format!("read `{}`", path.display()))?;
        Ok(self.find_in(&bytes).map(|how| format!("`{}` ({how})", path.display())))
    }
}

impl std::fmt::Debug for Canary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Canary").field("label", &self.label).finish_non_exhaustive()
    }
}

/// Random letters and digits from the system's generator; about 5.9 bits each.
///
/// # Panics
/// When the system's random generator fails.
pub fn random_text(length: usize) -> String {
    let random = SystemRandom::new();
    let mut text = String::with_capacity(length);
    let mut bytes = [0_u8; 64];
    while text.len() < length {
        random.fill(&mut bytes).expect("the system's random generator works");
        // 248 = 4 * 62: bytes from there on would make some letters likelier than others.
        let letters =
            bytes.iter().filter(|&&byte| byte < 248).map(|&byte| char::from(LETTERS[usize::from(byte % 62)]));
        text.extend(letters.take(length - text.len()));
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encodings(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let wide = |order: fn(u16) -> [u8; 2]| bytes.iter().flat_map(|&byte| order(byte.into())).collect();
    let mut all = vec![
        ("raw".to_owned(), bytes.to_vec()),
        ("UTF-16LE".to_owned(), wide(u16::to_le_bytes)),
        ("UTF-16BE".to_owned(), wide(u16::to_be_bytes)),
        ("upper-case hex".to_owned(), hex(bytes).to_uppercase().into_bytes()),
        ("hex".to_owned(), hex(bytes).into_bytes()),
        ("percent-encoded".to_owned(), percent(bytes, |_| true)),
        ("percent-encoded where needed".to_owned(), percent(bytes, |byte| !is_unreserved(byte))),
        ("escaped".to_owned(), bytes.escape_ascii().to_string().into_bytes()),
        ("numbers".to_owned(), numbers(bytes, ", ")),
        ("numbers in JSON".to_owned(), numbers(bytes, ",")),
    ];
    for alignment in 0..3 {
        let base64 = base64_core(&STANDARD, bytes, alignment);
        all.push((
            format!("percent-encoded base64 at {alignment}"),
            percent(&base64, |byte| !is_unreserved(byte)),
        ));
        all.push((format!("base64 at {alignment}"), base64));
        all.push((format!("URL-safe base64 at {alignment}"), base64_core(&URL_SAFE, bytes, alignment)));
    }
    let mut known = std::collections::BTreeSet::new();
    all.retain(|(_, needle)| known.insert(needle.clone()));
    all
}

/// RFC 3986 section 2.1.
fn percent(bytes: &[u8], encoded: impl Fn(u8) -> bool) -> Vec<u8> {
    let one = |&byte: &u8| if encoded(byte) { format!("%{byte:02X}").into_bytes() } else { vec![byte] };
    bytes.iter().flat_map(one).collect()
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn numbers(bytes: &[u8], between: &str) -> Vec<u8> {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(between).into_bytes()
}

/// The characters of the encoding that depend on these bytes alone when `alignment` bytes stand before them.
fn base64_core(engine: &impl Engine, bytes: &[u8], alignment: usize) -> Vec<u8> {
    let mut padded = vec![0; alignment];
    padded.extend_from_slice(bytes);
    let encoded = engine.encode(&padded).into_bytes();
    // Six bits a character: the first that holds no bit of the prefix, and the last with all its bits inside.
    let (start, end) = ((alignment * 8).div_ceil(6), padded.len() * 8 / 6);
    encoded[start..end].to_vec()
}

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// 190 bits: found by chance never, and short enough for any password field.
const SECRET_LENGTH: usize = 32;
const MIN_SECRET_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn found_behind_and_before_anything(before in prop::collection::vec(any::<u8>(), 0..9),
                                            after in prop::collection::vec(any::<u8>(), 0..9),
                                            cut in any::<bool>()) {
            let canary = Canary::new("test");
            let secret = canary.secret().as_bytes();
            let middle = if cut { &secret[secret.len() / 2..] } else { secret };
            let all = [&before[..], middle, &after[..]].concat();
            let hex: String = all.iter().map(|byte| format!("{byte:02X}")).collect();
            prop_assert!(canary.find_in(&all).is_some());
            prop_assert!(canary.find_in(STANDARD.encode(&all).as_bytes()).is_some());
            prop_assert!(canary.find_in(URL_SAFE.encode(&all).as_bytes()).is_some());
            prop_assert!(canary.find_in(hex.as_bytes()).is_some());
            prop_assert!(canary.find_in(hex.to_lowercase().as_bytes()).is_some());
        }

        #[test]
        fn not_found_where_it_is_not(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let canary = Canary::new("test");
            prop_assert_eq!(canary.find_in(&bytes), None);
        }
    }

    #[test]
    fn a_key_is_found_however_it_is_written() {
        let key: Vec<u8> = (0..32).map(|n| n * 7 + 3).collect();
        let canary = Canary::of_bytes("key", &key).unwrap();
        let percent: String = key.iter().map(|byte| format!("%{byte:02X}")).collect();
        let form = STANDARD.encode(&key).replace('+', "%2B").replace('/', "%2F");
        for place in [
            key.clone(),
            format!("{key:?}").into_bytes(),
            serde_json::to_vec(&key).unwrap(),
            key.escape_ascii().to_string().into_bytes(),
            percent.into_bytes(),
            form.into_bytes(),
            canary.secret().as_bytes().to_vec(),
        ] {
            assert!(canary.find_in(&place).is_some(), "{}", place.escape_ascii());
        }
        assert_eq!(canary.find_in(b"something else, of some length, that holds no key"), None);
    }

    #[test]
    fn found_in_nested_files() {
        let folder = tempfile::tempdir().unwrap();
        let canary = Canary::new("test");
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/harmless"), "nothing").unwrap();
        canary.assert_absent_under(folder.path());
        fs::write(folder.path().join("a/b/log"), STANDARD.encode(format!("x{}", canary.secret()))).unwrap();
        let place = canary.find_under(folder.path()).unwrap().unwrap();
        assert!(place.contains("a/b/log") && !place.contains(canary.secret()));
    }

    #[test]
    #[should_panic(expected = "the secret `test` is in the reply (first half, raw)")]
    fn a_find_stops_the_test() {
        let canary = Canary::new("test");
        canary.assert_absent_in("the reply", canary.secret().as_bytes());
    }

    #[test]
    fn short_secrets_are_refused_and_debug_is_silent() {
        assert!(Canary::of("test", "hunter2").is_err());
        let canary = Canary::new("test");
        assert_eq!(canary.find_in(format!("{canary:?}").as_bytes()), None);
    }
}
