//! Pictures that a tenant's retention keeps: one folder for each tenant, files named after what they show, encrypted if
//! there is a key.
//!
//! An encrypted file is `CGP1`, the length of the key's name in one byte, the name, a nonce of 12 bytes, and the PNG file
//! under AES-256-GCM. All before the nonce, the tenant's name and the file's name are authenticated with it, so that a file
//! that was put into another's place does not open.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cluegate_gate::policy::RetainedPictures;
use cluegate_gate::{Decision, DecisionRecord, Judgment, Outcome, Reason};
use cluegate_perception::Picture;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::canonical::{hex, sha256};
use crate::entry::{KeptPicture, PictureRole};
use crate::error::{AuditError, Result};
use crate::file::sync_folder;
use crate::keys::{Key, Keyring};
use crate::settings::PictureSettings;

const MAGIC: &[u8; 4] = b"CGP1";
/// Largest file in bytes that is read.
const MAX_BYTES: u64 = 512 << 20;
/// What files end with while they are written.
const PART: &str = "part";
/// A file that was still being written after this many seconds was left by a crash.
const ABANDONED_S: u64 = 3600;

/// The pictures of all tenants.
#[derive(Debug, Clone)]
pub struct PictureStore {
    folder: PathBuf,
    keys: Option<Keyring>,
}

impl PictureStore {
    /// Opens the store, or makes its folder, which only its owner may open.
    ///
    /// # Errors
    /// If the folder cannot be made or the key file cannot be used.
    pub fn open(settings: &PictureSettings) -> Result<Self> {
        let keys = settings.key_file.as_deref().map(Keyring::load).transpose()?;
        make_folder(&settings.folder)?;
        Ok(Self { folder: settings.folder.clone(), keys })
    }

    /// Keeps the pictures of a decision that its tenant's retention asks for. They are on the disk when this returns.
    ///
    /// # Errors
    /// If one cannot be kept.
    pub(crate) fn keep(&self, decision: &Decision<'_>) -> Result<Vec<KeptPicture>> {
        let mut kept = Vec::new();
        if !is_to_be_kept(decision.record, &decision.policy.retention) {
            return Ok(kept);
        }
        let judged = decision.judged.map(|picture| (PictureRole::Judged, picture));
        let other = decision
            .released
            .filter(|picture| decision.judged.is_none_or(|judged| judged.hash() != picture.hash()));
        for (role, picture) in judged.into_iter().chain(other.map(|picture| (PictureRole::Released, picture)))
        {
            let picture_hash = picture.hash().to_hex();
            let name = self.put(&decision.record.tenant, picture, &picture_hash)?;
            kept.push(KeptPicture { role, name, picture: picture_hash });
        }
        Ok(kept)
    }

    /// Writes a picture unless it is there; then it only counts as new again. Gives its name.
    fn put(&self, tenant: &str, picture: &Picture, picture_hash: &str) -> Result<String> {
        let name = name_of(tenant, picture_hash);
        let path = self.path(tenant, &name);
        if let Ok(file) = fs::File::options().append(true).open(&path) {
            file.set_modified(SystemTime::now()).map_err(AuditError::io(&path, "touched"))?;
            // It may have expired in between; a file that was removed keeps what was done to it for itself.
            if path.exists() {
                return Ok(name);
            }
        }
        let png = picture.png().map_err(|source| refused(&name, source.to_string()))?;
        let bytes = match &self.keys {
            Some(keys) => seal(keys.current(), tenant, &name, &png)?,
            None => png.to_vec(),
        };
        let folder = path.parent().unwrap_or(&self.folder);
        make_folder(folder)?;
        let part = folder.join(format!("{name}.{}.{PART}", uuid::Uuid::now_v7().simple()));
        let written = write_new(&part, &bytes)
            .and_then(|()| fs::rename(&part, &path).map_err(AuditError::io(&path, "written")))
            .and_then(|()| sync_folder(&path));
        if written.is_err() {
            // May never have been made; the error that matters is the first one.
            let _ = fs::remove_file(&part);
        }
        written.map(|()| name)
    }

    /// The picture that an entry of `tenant` names, checked against the entry.
    ///
    /// # Errors
    /// If it is gone, was changed, or its key is not here.
    pub fn read(&self, tenant: &str, kept: &KeptPicture) -> Result<Picture> {
        let name = &kept.name;
        if name_of(tenant, &kept.picture) != *name {
            return Err(refused(name, "its name does not belong to this tenant and picture"));
        }
        let path = self.path(tenant, name);
        let size = fs::metadata(&path).map_err(AuditError::io(&path, "read"))?.len();
        if size > MAX_BYTES {
            return Err(refused(name, format!("{size} bytes are more than the {MAX_BYTES} of a picture")));
        }
        let bytes = fs::read(&path).map_err(AuditError::io(&path, "read"))?;
        let png = match bytes.strip_prefix(MAGIC) {
            Some(sealed) => open(self.keys.as_ref(), tenant, name, sealed)?,
            None => bytes,
        };
        let pixels = image::load_from_memory_with_format(&png, image::ImageFormat::Png)
            .map_err(|source| refused(name, source.to_string()))?;
        let picture = Picture::new(pixels.into_rgb8());
        if picture.hash().to_hex() != kept.picture {
            return Err(refused(name, "it shows something else than was judged: it was changed"));
        }
        Ok(picture)
    }

    /// Whether the picture that an entry of `tenant` names is still there.
    pub fn has(&self, tenant: &str, name: &str) -> bool {
        is_name(name) && self.path(tenant, name).exists()
    }

    /// Removes a picture; says whether it was there.
    pub(crate) fn remove(&self, tenant: &str, name: &str) -> Result<bool> {
        if !is_name(name) {
            return Err(refused(name, "this is no name of a picture"));
        }
        let path = self.path(tenant, name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(AuditError::io(&path, "removed")(source)),
        }
    }

    /// Names of the pictures of `tenant` that were last kept before `until`, at most `most`. Removes what a crash left half
    /// written.
    pub(crate) fn older(&self, tenant: &str, until: SystemTime, most: usize) -> Result<Vec<String>> {
        let folder = self.folder.join(folder_of(tenant));
        let mut old = Vec::new();
        for shelf in list(&folder)? {
            for item in list(&shelf)? {
                if old.len() == most {
                    return Ok(old);
                }
                let modified = fs::metadata(&item).and_then(|found| found.modified());
                // Whoever else removes it spares us the work.
                let Ok(modified) = modified else { continue };
                let name = item.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let age = SystemTime::now().duration_since(modified).unwrap_or_default().as_secs();
                if item.extension().is_some_and(|end| end == PART) {
                    if age > ABANDONED_S {
                        let _ = fs::remove_file(&item);
                    }
                } else if modified < until && is_name(&name) {
                    old.push(name);
                }
            }
        }
        Ok(old)
    }

    /// Removes a picture unless it was kept again since `until`; says whether it was removed.
    pub(crate) fn remove_older(&self, tenant: &str, name: &str, until: SystemTime) -> Result<bool> {
        let modified = fs::metadata(self.path(tenant, name)).and_then(|found| found.modified());
        if modified.is_ok_and(|modified| modified < until) { self.remove(tenant, name) } else { Ok(false) }
    }

    fn path(&self, tenant: &str, name: &str) -> PathBuf {
        self.folder.join(folder_of(tenant)).join(name.get(..2).unwrap_or("--")).join(name)
    }
}

/// Whether the retention asks for a decision's pictures. Where it names rules whose pictures are never kept, a picture of
/// which nobody knows whether it violates one is not kept either.
fn is_to_be_kept(record: &DecisionRecord, retention: &cluegate_gate::policy::RawRetention) -> bool {
    let asked = match retention.pictures {
        RetainedPictures::None => false,
        RetainedPictures::Withheld => record.outcome != Outcome::Released,
        RetainedPictures::All => true,
    };
    let never = |violated: &[String]| violated.iter().any(|rule| retention.never.contains(rule));
    let forbidden = never(&record.violated) || record.judgments().any(|judgment| never(&judgment.violated));
    let last = record.attempts.last().and_then(|attempt| attempt.judgment.as_ref());
    let unknown = last.is_none_or(|judgment| judgment.verdict == Judgment::Error);
    asked && record.reason != Reason::Preview && !forbidden && (retention.never.is_empty() || !unknown)
}

/// The name of a picture: another one for each tenant, so that nobody can tell that two tenants have the same.
fn name_of(tenant: &str, picture_hash: &str) -> String {
    hex(&sha256(format!("cluegate picture\n{tenant}\n{picture_hash}").as_bytes()))
}

fn is_name(name: &str) -> bool {
    crate::canonical::digest_of(name).is_some()
}

/// The folder of a tenant: its name, or, where that cannot name a folder, a hash that no tenant's name is equal to.
fn folder_of(tenant: &str) -> String {
    let plain = (1..=64).contains(&tenant.len())
        && tenant
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
    if plain { tenant.to_owned() } else { format!("%{}", hex(&sha256(tenant.as_bytes()))) }
}

fn refused(name: &str, problem: impl Into<String>) -> AuditError {
    AuditError::Picture { name: name.to_owned(), problem: problem.into() }
}

/// What is authenticated with a sealed picture.
fn context(key: &Key, tenant: &str, name: &str) -> Vec<u8> {
    [MAGIC, key.id().as_bytes(), b"\n", tenant.as_bytes(), b"\n", name.as_bytes()].concat()
}

fn cipher(key: &Key) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, key.secret()).map_err(|_| AuditError::Random)?;
    Ok(LessSafeKey::new(key))
}

fn seal(key: &Key, tenant: &str, name: &str, png: &[u8]) -> Result<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| AuditError::Random)?;
    let mut sealed = png.to_vec();
    let aad = Aad::from(context(key, tenant, name));
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
        .map_err(|_| refused(name, "it could not be encrypted"))?;
    // A key file holds names of at most 32 bytes.
    let length = [u8::try_from(key.id().len()).unwrap_or(u8::MAX)];
    Ok([MAGIC, &length[..], key.id().as_bytes(), &nonce, &sealed].concat())
}

/// Opens what follows the first four bytes.
fn open(keys: Option<&Keyring>, tenant: &str, name: &str, sealed: &[u8]) -> Result<Vec<u8>> {
    let broken = || refused(name, "the file is too short: its end is missing");
    let (length, rest) = sealed.split_first().ok_or_else(broken)?;
    let (id, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(broken)?;
    let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or_else(broken)?;
    let id = String::from_utf8_lossy(id).into_owned();
    let key = keys.and_then(|keys| keys.get(&id)).ok_or_else(|| {
        refused(name, format!("it is encrypted with the key {id:?}; add that key to `log.pictures.key_file`"))
    })?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
    let mut bytes = rest.to_vec();
    let aad = Aad::from(context(key, tenant, name));
    let plain = cipher(key)?
        .open_in_place(nonce, aad, &mut bytes)
        .map_err(|_| refused(name, "it does not open: it was changed, or belongs to another place"))?;
    Ok(plain.to_vec())
}

fn make_folder(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(AuditError::io(folder, "made"))
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(AuditError::io(path, "made"))?;
    file.write_all(bytes).and_then(|()| file.sync_data()).map_err(AuditError::io(path, "written"))
}

/// What lies in a folder; nothing, if there is no folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let items = match fs::read_dir(folder) {
        Ok(items) => items,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(AuditError::io(folder, "read")(source)),
    };
    let mut paths: Vec<PathBuf> = items.filter_map(|item| item.ok().map(|item| item.path())).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use cluegate_gate::fakes;

    use super::*;

    fn keys(text: &str) -> Keyring {
        Keyring::parse(text).unwrap()
    }

    fn kept(tenant: &str, picture: &Picture) -> KeptPicture {
        let picture = picture.hash().to_hex();
        KeptPicture { role: PictureRole::Judged, name: name_of(tenant, &picture), picture }
    }

    #[test]
    fn pictures_are_sealed_for_their_tenant_and_old_keys_still_read() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (format!("a:{}", "11".repeat(32)), format!("b:{}", "22".repeat(32)));
        let store =
            |text: Option<&str>| PictureStore { folder: folder.path().to_owned(), keys: text.map(keys) };
        let picture = fakes::picture(&[1], 3);
        let entry = kept("kids", &picture);
        let name = store(Some(&a)).put("kids", &picture, &entry.picture).unwrap();
        assert_eq!(name, entry.name);
        let path = store(None).path("kids", &name);
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.starts_with(b"CGP1\x01a") && !bytes.windows(4).any(|window| window == b"\x89PNG"));
        let rotated = store(Some(&format!("{b}\n{a}")));
        assert_eq!(rotated.read("kids", &entry).unwrap().hash(), picture.hash());
        let error = store(Some(&b)).read("kids", &entry).unwrap_err().to_string();
        assert!(error.contains("key \"a\""), "{error}");
        assert!(store(None).read("kids", &entry).is_err());
        // In another tenant's folder, and under another name, it does not open.
        let other = kept("news", &picture);
        let there = rotated.path("news", &other.name);
        make_folder(there.parent().unwrap()).unwrap();
        fs::copy(&path, &there).unwrap();
        assert!(rotated.read("news", &other).unwrap_err().to_string().contains("does not open"));
        assert!(rotated.read("news", &entry).unwrap_err().to_string().contains("tenant"));
        for place in [5, 8, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            fs::write(&path, changed).unwrap();
            assert!(rotated.read("kids", &entry).is_err(), "byte {place}");
        }
        fs::write(&path, &bytes[..9]).unwrap();
        assert!(rotated.read("kids", &entry).unwrap_err().to_string().contains("short"));
    }

    #[test]
    fn old_pictures_go_and_those_kept_again_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = PictureStore { folder: folder.path().to_owned(), keys: None };
        let pictures = [fakes::picture(&[0], 1), fakes::picture(&[0], 2), fakes::picture(&[0], 3)];
        let entries = pictures.each_ref().map(|picture| kept("Weird/Tenant", picture));
        let put =
            |index: usize| store.put("Weird/Tenant", &pictures[index], &entries[index].picture).unwrap();
        let day_ago = SystemTime::now() - Duration::from_secs(86_400);
        for (index, entry) in entries.iter().enumerate() {
            put(index);
            let file =
                fs::File::options().append(true).open(store.path("Weird/Tenant", &entry.name)).unwrap();
            file.set_modified(day_ago).unwrap();
        }
        put(1);
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        assert!(store.older("other", hour_ago, 10).unwrap().is_empty());
        let mut gone = store.older("Weird/Tenant", hour_ago, 10).unwrap();
        for entry in &entries {
            let old = gone.contains(&entry.name);
            assert_eq!(store.remove_older("Weird/Tenant", &entry.name, hour_ago).unwrap(), old);
        }
        gone.sort();
        let mut expected = [entries[0].name.clone(), entries[2].name.clone()];
        expected.sort();
        assert_eq!(gone, expected);
        assert!(store.has("Weird/Tenant", &entries[1].name) && !store.has("Weird/Tenant", &entries[0].name));
        assert!(store.remove("Weird/Tenant", "../../x").is_err());
    }

    #[test]
    fn tenants_have_folders_of_their_own() {
        for odd in ["..", ".", "", "a/b", "%00", "Kids", "kids\0", &"x".repeat(65)] {
            assert!(folder_of(odd).starts_with('%') && folder_of(odd).len() == 65, "{odd}");
        }
        assert_eq!(folder_of("kids-1_b"), "kids-1_b");
    }
}
