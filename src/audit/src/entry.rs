//! One entry of the log: OPA's shape, and a place in a hash chain.
//!
//! What an entry says is hashed in two steps, so that parts of it, or all of it, can be removed later while its chain
//! still verifies:
//!
//! ```text
//! part   = SHA-256(salt || canonical(value))                 for every erasable part; salt: 16 random bytes
//! body   = SHA-256(canonical(entry without `chain`, `salts`, `erased` and without the erasable parts))
//! hash   = SHA-256(canonical({"body": body, "instance": instance, "prev": prev, "seq": seq}))
//! ```
//!
//! Digests stand in hexadecimal digits; `prev` is the `hash` of the entry before, 64 zeros for the first. `commitments`,
//! which holds the digests of the parts by JSON pointer, belongs to what is hashed as body.

use std::collections::BTreeMap;

use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::canonical::{Digest, digest_of, hash, hex, sha256, unhex};
use crate::error::{AuditError, Result};

/// Largest entry in bytes; a longer line is no entry.
pub const MAX_ENTRY_BYTES: usize = 16 << 20;
/// `path` of an entry about a picture or a preview.
pub const DECISION: &str = "cluegate/decision";
/// `path` of an entry that says what was erased.
pub const ERASED: &str = "cluegate/log/erased";
/// `path` of an entry that says what was removed because of its age.
pub const EXPIRED: &str = "cluegate/log/expired";
/// `path` of an entry that names decisions whose writing failed after some part of it had been kept: nothing was
/// released because of them.
pub const WITHDRAWN: &str = "cluegate/log/withdrawn";
/// `path` of an entry that says that the writer found the traces of a crash and went on.
pub const RECOVERED: &str = "cluegate/log/recovered";
/// What changes when something is erased, and the place in the chain, are hashed apart from the rest.
const UNHASHED: [&str; 3] = ["/chain", "/salts", "/erased"];
/// Bytes of a salt.
const SALT_BYTES: usize = 16;
/// What may be erased of an entry, as JSON pointers.
pub(crate) const PARTS: [&str; 6] = [PROMPT, PROMPT_HASH, SUBJECT, TEXTS, PICTURES, "/result/message"];
pub(crate) const PROMPT: &str = "/input/request/prompt";
const PROMPT_HASH: &str = "/input/request/prompt_hash";
pub(crate) const SUBJECT: &str = "/input/subject";
const TEXTS: &str = "/input/texts";
const PICTURES: &str = "/input/pictures";
/// A place in a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The writer, which has a chain of its own.
    pub instance: String,
    /// Number of the entry, from 1.
    pub seq: u64,
    /// Hash of the entry, 64 hexadecimal digits.
    pub hash: String,
}

/// How an entry hangs in its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The writer, which has a chain of its own.
    pub instance: String,
    /// Number of the entry, from 1.
    pub seq: u64,
    /// Hash of the entry before, 64 hexadecimal digits; zeros for the first.
    pub prev: String,
    /// Digest of what the entry says, without its erasable parts.
    pub body: String,
    /// Hash over the four above.
    pub hash: String,
}

/// Revision of a constitution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Hash over its content.
    pub revision: String,
}

/// A picture that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptPicture {
    /// `judged`: as it was given to the judge; `released`: as it was handed out, if something in it is hidden.
    pub role: PictureRole,
    /// Its name in the tenant's folder of the picture store.
    pub name: String,
    /// BLAKE3 over size and pixels.
    pub picture: String,
}

/// Which picture of a decision was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PictureRole {
    /// The one that was judged.
    Judged,
    /// The one that was handed out.
    Released,
}

/// An entry, in the members that OPA's decision logs have and those that hold its chain together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// UUID of version 7.
    pub decision_id: String,
    /// Who decided, and for whom: `tenant`, where there is one; `product`, `version`, and the labels of the settings.
    pub labels: BTreeMap<String, String>,
    /// The constitutions that were applied, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bundles: BTreeMap<String, Bundle>,
    /// What kind of entry it is, such as [`DECISION`].
    pub path: String,
    /// What was asked.
    pub input: Value,
    /// What came of it.
    pub result: Value,
    /// Id of the API key that the request came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// When, RFC 3339 in UTC.
    pub timestamp: String,
    /// JSON pointers to what was removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub erased: Vec<String>,
    /// JSON pointers to what was replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<String>,
    /// Digests of the erasable parts by JSON pointer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub commitments: BTreeMap<String, String>,
    /// Salts of the digests of those parts that are still there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub salts: BTreeMap<String, String>,
    /// Its place in the chain.
    pub chain: Link,
}

/// An entry of which nothing is left but its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stub {
    /// Its place in the chain.
    pub chain: Link,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// An entry, whole or with parts erased.
    Entry(Box<Entry>),
    /// What is left of one that was removed.
    Stub(Stub),
}

/// What is wrong with one entry, taken by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// The hash of its link is not the digest of the link's other members.
    Hash,
    /// What it says is not what was written.
    Body,
    /// An erasable part is not what was written.
    Part {
        /// JSON pointer.
        pointer: String,
    },
    /// An erasable part is gone, and the entry does not say so.
    PartGone {
        /// JSON pointer.
        pointer: String,
    },
    /// The entry says that a part was erased, and it is there.
    PartBack {
        /// JSON pointer.
        pointer: String,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hash => f.write_str("its hash does not belong to its place in the chain"),
            Self::Body => f.write_str("what it says was changed after it was written"),
            Self::Part { pointer } => write!(f, "{pointer} was changed after it was written"),
            Self::PartGone { pointer } => {
                write!(f, "{pointer} is gone, and the entry does not say that it was erased")
            }
            Self::PartBack { pointer } => {
                write!(f, "{pointer} is there, and the entry says that it was erased")
            }
        }
    }
}

impl Link {
    /// The link that follows `prev`.
    pub(crate) fn new(instance: &str, seq: u64, prev: &Digest, body: &Digest) -> (Self, Digest) {
        let mut link = Self {
            instance: instance.to_owned(),
            seq,
            prev: hex(prev),
            body: hex(body),
            hash: String::new(),
        };
        let digest = link.digest();
        link.hash = hex(&digest);
        (link, digest)
    }

    /// What `hash` must be.
    fn digest(&self) -> Digest {
        let Self { instance, seq, prev, body, .. } = self;
        hash(&json!({ "body": body, "instance": instance, "prev": prev, "seq": seq }))
    }

    /// The place that it gives its entry.
    pub fn position(&self) -> Position {
        Position { instance: self.instance.clone(), seq: self.seq, hash: self.hash.clone() }
    }

    fn is_whole(&self) -> bool {
        digest_of(&self.hash) == Some(self.digest())
    }
}

/// An entry that has no place in a chain yet.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Its JSON text without the closing brace.
    pub(crate) text: String,
    pub(crate) body: Digest,
    pub(crate) index: Index,
}

/// What an entry is found by.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Index {
    pub(crate) decision_id: String,
    pub(crate) path: String,
    pub(crate) tenant: Option<String>,
    /// Microseconds since 1970.
    pub(crate) at: i64,
    pub(crate) outcome: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) request: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) violated: Vec<String>,
}

impl Draft {
    /// The entry with its place, as one line without its end.
    pub(crate) fn place(&self, link: &Link) -> Result<String> {
        let link = serde_json::to_string(link).map_err(|source| AuditError::Entry(source.to_string()))?;
        Ok(format!("{},\"chain\":{link}}}", self.text))
    }
}

/// A random salt for each of `parts`.
fn salts<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Vec<(&'a str, [u8; SALT_BYTES])>> {
    let random = SystemRandom::new();
    parts
        .map(|part| {
            let mut salt = [0; SALT_BYTES];
            random.fill(&mut salt).map_err(|_| AuditError::Random)?;
            Ok((part, salt))
        })
        .collect()
}

fn part_digest(salt: &[u8], value: &Value) -> Digest {
    let mut bytes = salt.to_vec();
    crate::canonical::write(value, &mut bytes);
    sha256(&bytes)
}

/// Removes the member at `pointer`, whose parent is an object.
fn take(value: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, key) = pointer.rsplit_once('/')?;
    // `swap_remove` would change the order of the members, which people read.
    value.pointer_mut(parent)?.as_object_mut()?.shift_remove(key)
}

impl Entry {
    /// An entry about the log itself.
    pub(crate) fn about_log(path: &str, input: Value, labels: &BTreeMap<String, String>) -> Self {
        Self {
            decision_id: uuid::Uuid::now_v7().to_string(),
            labels: labels.clone(),
            bundles: BTreeMap::new(),
            path: path.to_owned(),
            input,
            result: Value::Null,
            requested_by: None,
            timestamp: jiff::Timestamp::now().to_string(),
            erased: Vec::new(),
            masked: Vec::new(),
            commitments: BTreeMap::new(),
            salts: BTreeMap::new(),
            chain: unplaced(),
        }
    }

    /// Commits to the erasable parts and hashes the rest.
    pub(crate) fn draft(mut self) -> Result<Draft> {
        let unwritten = |source: serde_json::Error| AuditError::Entry(source.to_string());
        let index = self.index();
        // Moved, because they are nearly all of it and every decision waits for this.
        let moved =
            [("input", std::mem::take(&mut self.input)), ("result", std::mem::take(&mut self.result))];
        let mut whole = self.to_value()?;
        for (key, value) in moved {
            if let Some(place) = whole.get_mut(key) {
                *place = value;
            }
        }
        take(&mut whole, "/chain");
        let (mut commitments, mut open) = (Map::new(), Map::new());
        for (part, salt) in salts(PARTS.into_iter().filter(|part| whole.pointer(part).is_some()))? {
            if let Some(value) = whole.pointer(part) {
                commitments.insert(part.to_owned(), hex(&part_digest(&salt, value)).into());
                open.insert(part.to_owned(), hex(&salt).into());
            }
        }
        let parts: Vec<String> = commitments.keys().cloned().collect();
        if let Some(members) = whole.as_object_mut().filter(|_| !parts.is_empty()) {
            members.insert("commitments".to_owned(), Value::Object(commitments));
            members.insert("salts".to_owned(), Value::Object(open));
        }
        let mut text = serde_json::to_string(&whole).map_err(unwritten)?;
        if text.len() > MAX_ENTRY_BYTES / 2 {
            return Err(AuditError::TooLarge { found: text.len(), most: MAX_ENTRY_BYTES / 2 });
        }
        // The closing brace comes after the link.
        text.pop();
        for pointer in UNHASHED.into_iter().chain(parts.iter().map(String::as_str)) {
            take(&mut whole, pointer);
        }
        Ok(Draft { text, body: hash(&whole), index })
    }

    fn to_value(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|source| AuditError::Entry(source.to_string()))
    }

    /// Digest of what it says, without its erasable parts.
    pub(crate) fn body(&self) -> Result<Digest> {
        let mut value = self.to_value()?;
        for pointer in UNHASHED.into_iter().chain(self.commitments.keys().map(String::as_str)) {
            take(&mut value, pointer);
        }
        Ok(hash(&value))
    }

    /// What is wrong with it, taken by itself.
    ///
    /// # Errors
    /// If it cannot be written as JSON, which cannot be for an entry that was read.
    pub fn fault(&self) -> Result<Option<Fault>> {
        if !self.chain.is_whole() {
            return Ok(Some(Fault::Hash));
        }
        if digest_of(&self.chain.body) != Some(self.body()?) {
            return Ok(Some(Fault::Body));
        }
        for (pointer, commitment) in &self.commitments {
            let pointer = pointer.clone();
            let said_erased = self.erased.contains(&pointer);
            let fault = match (self.part(&pointer), self.salts.get(&pointer)) {
                (None, None) if said_erased => None,
                (None, _) => Some(Fault::PartGone { pointer }),
                (Some(_), _) if said_erased => Some(Fault::PartBack { pointer }),
                (Some(value), Some(salt)) => {
                    let found = unhex(salt).map(|salt| part_digest(&salt, value));
                    (found.is_none() || found != digest_of(commitment)).then_some(Fault::Part { pointer })
                }
                (Some(_), None) => Some(Fault::Part { pointer }),
            };
            if fault.is_some() {
                return Ok(fault);
            }
        }
        // A part without a commitment was erased before it was written, or never was there.
        let back =
            PARTS.iter().find(|part| !self.commitments.contains_key(**part) && self.part(part).is_some());
        Ok(back.map(|part| Fault::PartBack { pointer: (*part).to_owned() }))
    }

    /// The value at a pointer into `input` or `result`.
    fn part(&self, pointer: &str) -> Option<&Value> {
        match pointer.strip_prefix("/input") {
            Some(rest) => self.input.pointer(rest),
            None => self.result.pointer(pointer.strip_prefix("/result")?),
        }
    }

    /// The erasable parts that were removed after the entry was written.
    pub fn erased_parts(&self) -> impl Iterator<Item = &str> {
        self.erased.iter().map(String::as_str).filter(|pointer| self.commitments.contains_key(*pointer))
    }

    /// Removes every erasable part and its salt. Says whether there was anything to remove.
    pub(crate) fn erase(&mut self) -> bool {
        let mut found = false;
        for pointer in self.commitments.keys() {
            let removed = match pointer.strip_prefix("/input") {
                Some(rest) => take(&mut self.input, rest),
                None => take(&mut self.result, pointer.strip_prefix("/result").unwrap_or(pointer)),
            };
            self.salts.remove(pointer);
            if removed.is_some() {
                found = true;
                self.erased.push(pointer.clone());
            }
        }
        found
    }

    /// What is left when all of it is removed.
    pub(crate) fn stub(&self) -> Stub {
        Stub { chain: self.chain.clone() }
    }

    /// The pictures that were kept, unless their reference was erased.
    pub fn pictures(&self) -> Vec<KeptPicture> {
        let pictures = self.input.get("pictures").cloned().unwrap_or_default();
        serde_json::from_value(pictures).unwrap_or_default()
    }

    /// Whose entry it is.
    pub fn tenant(&self) -> Option<&str> {
        self.labels.get("tenant").map(String::as_str)
    }

    /// Microseconds since 1970; 0 for a timestamp that is none.
    pub fn micros(&self) -> i64 {
        self.timestamp.parse::<jiff::Timestamp>().map(|time| time.as_microsecond()).unwrap_or_default()
    }

    pub(crate) fn index(&self) -> Index {
        let text =
            |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let violated = self.result.get("violated").and_then(Value::as_array).into_iter().flatten();
        Index {
            decision_id: self.decision_id.clone(),
            path: self.path.clone(),
            tenant: self.tenant().map(str::to_owned),
            at: self.micros(),
            outcome: text(&self.result, "/outcome"),
            reason: text(&self.result, "/reason"),
            request: text(&self.input, "/request/id"),
            model: text(&self.input, "/model"),
            subject: text(&self.input, "/subject"),
            violated: violated.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}

impl Line {
    /// Reads a line of a log.
    ///
    /// # Errors
    /// If it is neither an entry nor what is left of one.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if text.len() > MAX_ENTRY_BYTES {
            return Err(AuditError::TooLarge { found: text.len(), most: MAX_ENTRY_BYTES });
        }
        let start = text.trim_ascii_start();
        if start.starts_with(b"{\"chain\"")
            && let Ok(stub) = serde_json::from_slice::<Stub>(start)
        {
            return Ok(Self::Stub(stub));
        }
        let entry = serde_json::from_slice(start).map_err(|source| AuditError::Entry(source.to_string()))?;
        Ok(Self::Entry(Box::new(entry)))
    }

    /// Its place in the chain.
    pub fn chain(&self) -> &Link {
        match self {
            Self::Entry(entry) => &entry.chain,
            Self::Stub(stub) => &stub.chain,
        }
    }

    /// The entry, if it is one.
    pub fn entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(*entry),
            Self::Stub(_) => None,
        }
    }

    /// What is wrong with it, taken by itself.
    ///
    /// # Errors
    /// As [`Entry::fault`].
    pub fn fault(&self) -> Result<Option<Fault>> {
        match self {
            Self::Entry(entry) => entry.fault(),
            Self::Stub(stub) => Ok((!stub.chain.is_whole()).then_some(Fault::Hash)),
        }
    }
}

pub(crate) fn unplaced() -> Link {
    Link { instance: String::new(), seq: 0, prev: String::new(), body: String::new(), hash: String::new() }
}
