//! Keys in a file: `[[key]]` with `id`, `tenant` or `role`, and `hash`; and changes to such a file that leave the rest of
//! it as it is written.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use toml::value::Datetime;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table};

use super::{Key, KeyError, KeyKind, KeyRing, NewKey, Role, SCHEME, hash_text, parse_hash};

/// Longest key file in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// What the name of a file ends with while it is written.
const PART: &str = ".part";

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawKeyFile {
    #[serde(default)]
    key: Vec<RawKey>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    /// Name of the key, for logs.
    id: String,
    /// Whose policy applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// What a key of the administration may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    /// `sha256:` and 64 hexadecimal digits, over the key's bytes.
    hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before: Option<Datetime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Datetime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<Datetime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Reads key files.
#[derive(Debug, Clone, Copy)]
pub struct KeyFile;

impl KeyFile {
    /// Reads a key file.
    ///
    /// # Errors
    /// If it cannot be read, is not of the form `[[key]]` with `id`, `tenant` or `role`, and `hash`, or as [`KeyRing::new`].
    pub fn load(path: impl AsRef<Path>, kind: KeyKind) -> Result<KeyRing, KeyError> {
        let path = path.as_ref();
        Self::parse(&read(path)?, kind, &path.display().to_string())
    }

    /// Reads keys from text; `origin` says in errors where it came from.
    ///
    /// # Errors
    /// As [`KeyFile::load`].
    pub fn parse(text: &str, kind: KeyKind, origin: &str) -> Result<KeyRing, KeyError> {
        KeyRing::new(keys(text, origin)?, kind, origin)
    }

    /// The keys of a text in the order in which they stand.
    ///
    /// # Errors
    /// If it is not of the form of a key file.
    pub fn keys(text: &str, origin: &str) -> Result<Vec<Key>, KeyError> {
        keys(text, origin)
    }
}

fn read(path: &Path) -> Result<String, KeyError> {
    let fail = |problem: String| KeyError::new(path.display().to_string(), problem);
    let size = fs::metadata(path).map_err(|source| fail(source.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(fail(format!("the file has {size} bytes, more than {MAX_FILE_BYTES}")));
    }
    fs::read_to_string(path).map_err(|source| fail(source.to_string()))
}

fn keys(text: &str, origin: &str) -> Result<Vec<Key>, KeyError> {
    // The parser's message quotes the line, which may hold a key that somebody wrote in place of its hash.
    let raw: RawKeyFile =
        toml::from_str(text).map_err(|source| KeyError::new(origin, source.message().to_owned()))?;
    let mut ids = HashSet::new();
    for RawKey { id, .. } in &raw.key {
        // Of all tenants: whoever changes the file names a key by its id alone.
        if !ids.insert(id) {
            return Err(KeyError::new(
                origin,
                format!("there are two keys with the id {id:?}; give each its own"),
            ));
        }
    }
    raw.key.into_iter().map(|raw| build(raw, origin)).collect()
}

fn build(raw: RawKey, origin: &str) -> Result<Key, KeyError> {
    let RawKey { id, tenant, role, hash, not_before, expires, revoked, note } = raw;
    let fail = |problem: String| KeyError::new(origin, format!("the key {id:?}: {problem}"));
    let hash = parse_hash(&hash).ok_or_else(|| {
        fail(format!(
            "expected `hash` to be {SCHEME} and 64 hexadecimal digits (`cluegate keys new` prints them); a key itself \
             does not belong here"
        ))
    })?;
    let time = |name: &str, value: Option<Datetime>| match value.map(|value| value.to_string()) {
        None => Ok(None),
        Some(text) => text.parse::<Timestamp>().map(Some).map_err(|_| {
            fail(format!(
                "expected `{name}` to be a date and a time with its offset, such as 2027-01-01T00:00:00Z"
            ))
        }),
    };
    let (not_before, expires, revoked) =
        (time("not_before", not_before)?, time("expires", expires)?, time("revoked", revoked)?);
    if let (Some(begin), Some(end)) = (not_before, expires)
        && begin >= end
    {
        return Err(fail("it expires before it begins to hold".to_owned()));
    }
    Ok(Key { id: id.clone(), tenant, role, hash, not_before, expires, revoked, note })
}

/// The entry of a key in a file.
pub(super) fn entry(key: &Key) -> String {
    format!("[[key]]\n{}", table(key))
}

fn table(key: &Key) -> Table {
    let mut table = Table::new();
    let mut put = |name: &str, value: Option<toml_edit::Value>| {
        if let Some(value) = value {
            table.insert(name, Item::Value(value));
        }
    };
    put("id", Some(key.id.as_str().into()));
    put("tenant", key.tenant.as_deref().map(Into::into));
    put("role", key.role.map(|role| role.as_str().into()));
    put("hash", Some(hash_text(&key.hash).into()));
    put("not_before", key.not_before.and_then(time_value));
    put("expires", key.expires.and_then(time_value));
    put("revoked", key.revoked.and_then(time_value));
    put("note", key.note.as_deref().map(Into::into));
    table
}

/// A time in whole seconds, as TOML writes it.
fn time_value(time: Timestamp) -> Option<toml_edit::Value> {
    let text = format!("{time:.0}");
    text.parse::<toml_edit::Datetime>().ok().map(Into::into)
}

/// A change to a key file.
#[derive(Debug, Clone)]
pub enum KeyEdit {
    /// One more key.
    Add(Key),
    /// The key of this id does not hold any more.
    Revoke {
        /// Which key.
        id: String,
        /// Since when.
        at: Timestamp,
    },
    /// A new key in the place of one that holds until then.
    Rotate {
        /// Which key is replaced.
        id: String,
        /// The new key's id, if it is not to be made of the old one's.
        new_id: Option<String>,
        /// SHA-256 over the new key.
        hash: [u8; 32],
        /// Until when the old key holds.
        until: Timestamp,
    },
}

/// Changes a key file, or makes one where a key is added and there is none, and returns the key that the change is about
/// (a new one's own). The rest of the file stays as it is written, comments included. The file is whole at any time, and
/// of two who change it at once one is refused.
///
/// # Errors
/// If the file cannot be read or written, there is no such key, or the result would not be a key file of this kind; the
/// file is as it was then.
pub fn edit_key_file(path: &Path, kind: KeyKind, edit: KeyEdit) -> Result<Key, KeyError> {
    let origin = path.display().to_string();
    let fail = |problem: String| KeyError::new(origin.clone(), problem);
    let lock = Part::create(path).map_err(|(part, error)| {
        fail(match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "{} is there: another command is changing the file, or one was cut short; if none is, remove it",
                part.display()
            ),
            _ => format!("cannot write {}: {error}", part.display()),
        })
    })?;
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && matches!(edit, KeyEdit::Add(_)) => {
            String::new()
        }
        Err(error) => return Err(fail(format!("cannot be read: {error}"))),
    };
    let (text, key) = edited(&text, kind, edit, &origin)?;
    lock.replace(path, text.as_bytes()).map_err(|error| fail(format!("cannot be written: {error}")))?;
    Ok(key)
}

/// The text after a change, and the key that it is about.
fn edited(text: &str, kind: KeyKind, edit: KeyEdit, origin: &str) -> Result<(String, Key), KeyError> {
    let known = keys(text, origin)?;
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error: toml_edit::TomlError| KeyError::new(origin, error.message().to_owned()))?;
    let list = document.entry("key").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let list = list
        .as_array_of_tables_mut()
        .ok_or_else(|| KeyError::new(origin, "expected `key` to be written as [[key]]"))?;
    let find = |id: &str| {
        let place = known.iter().position(|key| key.id == id);
        place.and_then(|place| Some((place, known.get(place)?.clone()))).ok_or_else(|| {
            let ids: Vec<&str> = known.iter().map(|key| key.id.as_str()).collect();
            KeyError::new(
                origin,
                format!("there is no key with the id {id:?}; known are: {}", ids.join(", ")),
            )
        })
    };
    let set = |list: &mut ArrayOfTables, place: usize, name: &str, time: Timestamp| {
        if let (Some(table), Some(value)) = (list.get_mut(place), time_value(time)) {
            table.insert(name, Item::Value(value));
        }
    };
    let about = match edit {
        KeyEdit::Add(key) => {
            list.push(spaced(&key, list.is_empty() && text.trim().is_empty()));
            key
        }
        KeyEdit::Revoke { id, at } => {
            let (place, key) = find(&id)?;
            set(list, place, "revoked", at);
            Key { revoked: Some(at), ..key }
        }
        KeyEdit::Rotate { id, new_id, hash, until } => {
            let (place, old) = find(&id)?;
            let key = rotated(&old, new_id, hash, |id| known.iter().any(|key| key.id == id));
            if old.expires.is_none_or(|expires| expires > until) {
                set(list, place, "expires", until);
            }
            list.push(spaced(&key, false));
            key
        }
    };
    let text = document.to_string();
    // What the server could not read is not written.
    KeyFile::parse(&text, kind, origin)?;
    Ok((text, about))
}

/// The key that takes the place of `old`. Its id is `new_id`, or else the old one with the next free number.
pub fn rotated(old: &Key, new_id: Option<String>, hash: [u8; 32], taken: impl Fn(&str) -> bool) -> Key {
    let stem = match old.id.rsplit_once('.') {
        Some((stem, digits)) if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            stem
        }
        _ => old.id.as_str(),
    };
    let next = || (2_u32..).map(|number| format!("{stem}.{number}")).find(|id| !taken(id));
    let id = new_id.or_else(next).unwrap_or_default();
    Key { id, hash, not_before: None, expires: None, revoked: None, ..old.clone() }
}

/// A table with an empty line before it, unless it is the first.
fn spaced(key: &Key, first: bool) -> Table {
    let mut table = table(key);
    table.decor_mut().set_prefix(if first { "" } else { "\n" });
    table
}

/// A file that is being written beside the one that it will replace; removed if it never does.
struct Part {
    path: PathBuf,
    file: Option<fs::File>,
}

impl Part {
    fn create(target: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(PART);
        let path = target.with_file_name(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // For the owner only, unless the file that it replaces says otherwise.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&path) {
            Ok(file) => Ok(Self { path, file: Some(file) }),
            Err(error) => Err((path, error)),
        }
    }

    fn replace(mut self, target: &Path, bytes: &[u8]) -> io::Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let written = file.write_all(bytes).and_then(|()| {
            if let Ok(old) = fs::metadata(target) {
                file.set_permissions(old.permissions())?;
            }
            file.sync_all()?;
            fs::rename(&self.path, target)
        });
        if written.is_err() {
            self.file = Some(file);
        }
        written
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // The error that matters is the first one.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl NewKey {
    /// What is kept of it, for the administration: `tenant` limits it to one.
    pub fn of_admin(&self, id: &str, role: Role, tenant: Option<&str>) -> Key {
        Key { tenant: tenant.map(str::to_owned), role: Some(role), ..self.of_tenant(id, "") }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (begin, end) = (at("2026-03-01T00:00:00Z"), at("2026-04-01T12:00:00Z"));
        let key = Key {
            not_before: Some(begin),
            expires: Some(end),
            revoked: Some(begin),
            note: Some("a \"note\"\nof two lines".to_owned()),
            ..NewKey::generate().of_tenant("n \"1\"", "ne\\ws")
        };
        let admin = NewKey::generate().of_admin("ops", Role::Write, None);
        let text = format!("# mine\n{}\n{}", entry(&key), entry(&admin));
        assert_eq!(keys(&text, "keys.toml").unwrap(), [key, admin]);
    }

    #[test]
    fn files_that_cannot_be_used_say_why_and_show_no_secret() {
        let key = NewKey::generate();
        let problem = |text: &str| {
            let problem = KeyFile::parse(text, KeyKind::Client, "keys.toml").unwrap_err().to_string();
            assert!(!problem.contains(key.reveal()), "{problem}");
            problem
        };
        let plain = format!("[[key]]\nid = \"a\"\ntenant = \"t\"\nhash = \"{}\"\n", key.reveal());
        assert!(problem(&plain).contains("the key \"a\": expected `hash`"));
        problem(&format!("[[key]]\nid = \"a\"\nhash = {}\n", key.reveal()));
        let entry = key.entry("a", "t");
        assert!(
            problem(&format!("{entry}expires = 2027-01-01\n")).contains("`expires` to be a date and a time")
        );
        assert!(problem(&format!("{entry}expires = \"soon\"\n")).contains("datetime"));
        assert!(problem(&format!("{entry}expire = 2027-01-01T00:00:00Z\n")).contains("expire"));
        let backwards = "not_before = 2027-01-01T00:00:00Z\nexpires = 2026-01-01T00:00:00Z\n";
        assert!(problem(&format!("{entry}{backwards}")).contains("expires before it begins"));
        assert!(problem(&format!("{entry}role = \"write\"\n")).contains("`role` is for"));
        let other = NewKey::generate().entry("a", "u");
        assert!(problem(&format!("{entry}{other}")).contains("two keys with the id \"a\""));
    }

    #[test]
    fn a_change_leaves_the_rest_of_the_file_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let edit = |edit| edit_key_file(&path, KeyKind::Client, edit);
        let (first, second) = (NewKey::generate(), NewKey::generate());
        edit(KeyEdit::Add(first.of_tenant("tablet", "kids"))).unwrap();
        let text = fs::read_to_string(&path).unwrap().replace("id = ", "# by hand\nid   = ");
        fs::write(&path, &text).unwrap();
        edit(KeyEdit::Add(second.of_tenant("desk", "news"))).unwrap();
        let both = fs::read_to_string(&path).unwrap();
        assert!(both.starts_with(text.trim_end()), "{both}");

        let (hash, until) = (NewKey::generate().hash(), at("2027-01-01T00:00:00Z"));
        let rotate = |id: &str, hash| KeyEdit::Rotate { id: id.to_owned(), new_id: None, hash, until };
        assert_eq!(edit(rotate("tablet", hash)).unwrap().id, "tablet.2");
        assert_eq!(edit(rotate("tablet.2", NewKey::generate().hash())).unwrap().id, "tablet.3");
        let ring = KeyFile::load(&path, KeyKind::Client).unwrap();
        assert_eq!(ring.check(first.reveal(), at("2026-12-31T23:59:59Z")).unwrap().id, "tablet");
        assert!(ring.check(first.reveal(), until).is_err());

        edit(KeyEdit::Revoke { id: "desk".to_owned(), at: until }).unwrap();
        let ring = KeyFile::load(&path, KeyKind::Client).unwrap();
        assert!(ring.check(second.reveal(), at("2026-12-31T23:59:59Z")).is_err());
        assert!(fs::read_to_string(&path).unwrap().contains("# by hand\nid   = \"tablet\""));

        // What cannot be done leaves the file, and nothing beside it.
        let before = fs::read_to_string(&path).unwrap();
        let unknown = edit(KeyEdit::Revoke { id: "dsek".to_owned(), at: until }).unwrap_err().to_string();
        assert!(unknown.contains("no key with the id \"dsek\"; known are: tablet, desk"), "{unknown}");
        assert!(edit(KeyEdit::Add(second.of_tenant("again", "news"))).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        fs::write(folder.path().join("keys.toml.part"), "").unwrap();
        let busy = edit(KeyEdit::Add(NewKey::generate().of_tenant("c", "t"))).unwrap_err().to_string();
        assert!(busy.contains("another command is changing the file"), "{busy}");
        assert!(folder.path().join("keys.toml.part").exists());
    }

    proptest! {
        #[test]
        fn no_text_is_a_key_file_by_chance_or_panics(text in "[\\[\\]=\"a-z0-9:.\n -]{0,200}") {
            if let Ok(ring) = KeyFile::parse(&text, KeyKind::Client, "keys") {
                prop_assert!(ring.iter().all(|key| key.tenant.is_some()));
            }
        }
    }
}
