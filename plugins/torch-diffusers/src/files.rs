//! A model's folder: what is read from it, within bounds, and a digest of all of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Result, TorchError};

/// Most bytes of a file that is not weights: tokenizers of published models have 4 MB.
const MAX_TEXT: u64 = 64 << 20;

/// A folder of files, by names relative to it.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    digest: Sha256,
}

impl Files {
    /// The folder at `root`.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        if root.is_dir() {
            return Ok(Self { root: root.to_path_buf(), digest: Sha256::new() });
        }
        let problem = "expected the folder of a StableDiffusionPipeline, and there is no such folder";
        Err(TorchError::Read { path: root.to_path_buf(), problem: problem.to_owned() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).is_file()
    }

    /// The bytes of a file of weights, as many as there are.
    pub(crate) fn weights(&mut self, name: &str) -> Result<Vec<u8>> {
        self.read(name, u64::MAX - 1)
    }

    /// The bytes of any other file.
    pub(crate) fn bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        self.read(name, MAX_TEXT)
    }

    /// A file of JSON.
    pub(crate) fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        let bytes = self.bytes(name)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| TorchError::malformed(&self.path(name), error.to_string()))
    }

    /// A digest of all that was read so far, in lower-case hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        self.digest.clone().finalize().iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn read(&mut self, name: &str, most: u64) -> Result<Vec<u8>> {
        let path = self.path(name);
        let failed =
            |error: std::io::Error| TorchError::Read { path: path.clone(), problem: error.to_string() };
        let file = File::open(&path).map_err(failed)?;
        let mut bytes = Vec::with_capacity(file.metadata().map_or(0, |known| known.len().min(most)) as usize);
        file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > most {
            return Err(TorchError::malformed(&path, format!("expected at most {most} bytes")));
        }
        // With both lengths, so that no two folders run together to the same bytes.
        for part in [name.as_bytes(), &bytes] {
            self.digest.update((part.len() as u64).to_le_bytes());
            self.digest.update(part);
        }
        Ok(bytes)
    }
}

/// Largest number of a configuration file: channels, layers, tokens.
const MAX_NUMBER: i64 = 1_000_000;

/// The options of one configuration file. Each is taken by name; what is left in the end is refused, so that no option
/// changes in silence what a model computes.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) path: PathBuf,
    left: BTreeMap<String, Value>,
}

impl Options {
    /// Reads the file `name`.
    pub(crate) fn read(files: &mut Files, name: &str) -> Result<Self> {
        Ok(Self { left: files.json(name)?, path: files.path(name) })
    }

    /// Takes an option; `null` is as if it were not there.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.left.remove(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> TorchError {
        TorchError::malformed(&self.path, format!("`{key}`: expected {expected}, found {found}"))
    }

    /// A whole number from 1 to [`MAX_NUMBER`].
    pub(crate) fn count(&mut self, key: &str, default: i64) -> Result<i64> {
        let Some(value) = self.take(key) else { return Ok(default) };
        self.as_count(key, &value)
    }

    fn as_count(&self, key: &str, value: &Value) -> Result<i64> {
        let number = value.as_i64().filter(|number| (1..=MAX_NUMBER).contains(number));
        number.ok_or_else(|| self.wrong(key, "a whole number from 1 to 1000000", value))
    }

    /// Whole numbers: as many as `count`, or one for all of them.
    pub(crate) fn counts(&mut self, key: &str, default: &[i64], count: Option<usize>) -> Result<Vec<i64>> {
        let numbers = match self.take(key) {
            None => default.to_vec(),
            Some(Value::Array(values)) => {
                values.iter().map(|value| self.as_count(key, value)).collect::<Result<_>>()?
            }
            Some(value) => vec![self.as_count(key, &value)?],
        };
        match count {
            Some(count) if numbers.len() == 1 => Ok(vec![numbers[0]; count]),
            Some(count) if numbers.len() != count => Err(TorchError::malformed(
                &self.path,
                format!("`{key}`: expected {count} numbers, one for each level, found {}", numbers.len()),
            )),
            _ if (1..=8).contains(&numbers.len()) => Ok(numbers),
            _ => Err(TorchError::malformed(
                &self.path,
                format!("`{key}`: expected 1 to 8 numbers, found {}", numbers.len()),
            )),
        }
    }

    /// A finite number.
    pub(crate) fn number(&mut self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.take(key) else { return Ok(default) };
        value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| self.wrong(key, "a number", &value))
    }

    /// True or false.
    pub(crate) fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.take(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false", &value))
    }

    /// A word.
    pub(crate) fn word(&mut self, key: &str, default: &str) -> Result<String> {
        let Some(value) = self.take(key) else { return Ok(default.to_owned()) };
        value.as_str().map(str::to_owned).ok_or_else(|| self.wrong(key, "a text", &value))
    }

    /// Words.
    pub(crate) fn words(&mut self, key: &str, default: &[&str]) -> Result<Vec<String>> {
        let Some(value) = self.take(key) else {
            return Ok(default.iter().map(|&word| word.to_owned()).collect());
        };
        serde_json::from_value(value.clone()).map_err(|_| self.wrong(key, "a list of texts", &value))
    }

    /// Takes an option that has to be `expected`, which is also what it is if the file does not say.
    pub(crate) fn only(&mut self, key: &str, expected: &Value) -> Result<()> {
        match self.take(key) {
            None => Ok(()),
            Some(found) if found == *expected || equal_numbers(&found, expected) => Ok(()),
            Some(found) => {
                let (found, expected) = (found.to_string(), expected.to_string());
                Err(TorchError::unsupported(&self.path, format!("`{key}`"), found, expected))
            }
        }
    }

    /// Refuses what was not taken, unless it is in `ignored`, begins with `_`, or is `null` or `false`.
    pub(crate) fn finish(self, ignored: &[&str]) -> Result<()> {
        let known = |key: &str| key.starts_with('_') || ignored.contains(&key);
        let left = self.left.into_iter();
        let mut strange =
            left.filter(|(key, value)| !known(key) && !value.is_null() && *value != Value::Bool(false));
        match strange.next() {
            None => Ok(()),
            Some((key, value)) => {
                let what = format!("`{key}`, an option that this loader does not know,");
                Err(TorchError::unsupported(&self.path, what, value.to_string(), "null or false"))
            }
        }
    }
}

/// Whether 1 is compared with 1.0.
fn equal_numbers(a: &Value, b: &Value) -> bool {
    matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(file: &str, text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), text).unwrap();
        folder
    }

    fn options(json: &str) -> Options {
        let folder = folder("config.json", json);
        Options::read(&mut Files::open(folder.path()).unwrap(), "config.json").unwrap()
    }

    #[test]
    fn what_was_read_decides_the_fingerprint() {
        let digest = |file: &str, text: &str| {
            let folder = folder(file, text);
            let mut files = Files::open(folder.path()).unwrap();
            files.bytes(file).unwrap();
            files.fingerprint()
        };
        assert_eq!(digest("a", "bc"), digest("a", "bc"));
        assert_ne!(digest("a", "bc"), digest("a", "bd"));
        assert_ne!(digest("a", "bc"), digest("ab", "c"));
    }

    #[test]
    fn options_of_the_wrong_kind_are_refused_by_name() {
        let mut wrong = options(r#"{"a": "x", "b": 0, "c": 2000000, "d": 1, "e": [1, 2, 3], "f": [1, "x"]}"#);
        for (key, error) in [
            ("a", wrong.number("a", 1.0).err()),
            ("b", wrong.count("b", 1).err()),
            ("c", wrong.count("c", 1).err()),
            ("d", wrong.flag("d", true).err()),
            ("e", wrong.counts("e", &[1], Some(2)).err()),
            ("f", wrong.words("f", &[]).err()),
        ] {
            let error = error.unwrap().to_string();
            assert!(error.contains(&format!("`{key}`: expected")), "{error}");
        }
    }

    #[test]
    fn what_nobody_took_is_refused() {
        let mut known = options(r#"{"one": 1.0, "none": null, "off": false, "_x": 1, "dropout": 0.1}"#);
        known.only("one", &Value::from(1)).unwrap();
        known.finish(&["dropout"]).unwrap();
        let mut other = options(r#"{"act_fn": "gelu", "new": 3}"#);
        let error = other.only("act_fn", &Value::from("silu")).unwrap_err().to_string();
        assert!(error.contains("act_fn") && error.contains("\"silu\""), "{error}");
        let error = other.finish(&[]).unwrap_err().to_string();
        assert!(error.contains("`new`") && error.contains("config.json"), "{error}");
    }
}
