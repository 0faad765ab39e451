//! Checking a log: every hash, every link, every erasure, and the ends.
//!
//! What is found: an entry that was changed, added, removed or moved; an erasable part that was changed; one that was
//! removed without an entry that says so; an end that was cut off, as far as a head, an anchor or another place of the log
//! knows of it. What cannot be found: a chain that somebody with access to the log *and* its heads made anew from some
//! entry on. Signed heads forbid that to whoever has not the key; an anchor that was kept elsewhere forbids it to everyone.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::canonical::digest_of;
use crate::entry::{DECISION, ERASED, EXPIRED, Entry, Fault, KeptPicture, Line, Link, Position, RECOVERED};
use crate::error::{AuditError, Result};
use crate::head::{Head, Signature};
use crate::places::LogPlaces;
use crate::ranges::Ranges;
use crate::reader::{Lines, log_files};

/// Lines that are read from the database at once.
const PAGE: usize = 500;

/// What is checked.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Entries that are known from elsewhere: each must be there as it is named, and what stands before it in its chain is
    /// not looked at.
    pub anchors: Vec<Position>,
    /// Also open every picture that was kept.
    pub pictures: bool,
}

/// What was found of one chain in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// Where: `files` or `database`.
    pub place: &'static str,
    /// Whose chain.
    pub instance: String,
    /// Number of its first entry that is there. What came before 1 < `first` was not checked: it must be in files that
    /// were moved away.
    pub first: u64,
    /// Its last entry: keep this line, and a later verification can begin from it.
    pub last: Position,
    /// Entries that were checked.
    pub entries: u64,
    /// Entries of which parts were erased.
    pub erased: u64,
    /// Entries that were removed whole.
    pub removed: u64,
    /// The signature of the head, if there is a head.
    pub head: Option<Signature>,
    /// How often an entry is older than the one before: the clock was set back, or work overtook other work.
    pub out_of_time: u64,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Where: a file with a line, or the database.
    pub place: String,
    /// Whose chain, as far as that is known.
    pub instance: Option<String>,
    /// Number of the entry, as far as that is known.
    pub seq: Option<u64>,
    /// What.
    pub problem: Problem,
}

/// What may be wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Problem {
    /// A line that is neither an entry nor what is left of one.
    Unreadable {
        /// Why.
        why: String,
    },
    /// A last line without its end: a crash left it, and the next start removes it.
    Torn,
    /// An entry was changed.
    Changed(Fault),
    /// Entries are missing before this one.
    Missing {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// An entry stands where it should not: its number was there before.
    Repeated,
    /// The entry does not follow the one before it.
    Unlinked,
    /// The end is missing.
    CutOff {
        /// The last entry that is known to have been written.
        known: u64,
        /// Who knows.
        by: String,
    },
    /// The entry is another one than the one known elsewhere.
    Differs {
        /// Who knows.
        by: String,
    },
    /// The head was not signed with a key that is known here.
    Forged,
    /// Something was erased, and no entry says so.
    Unexplained,
    /// A picture is gone or was changed, and no entry says so.
    Picture {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { why } => write!(f, "{why}"),
            Self::Torn => {
                f.write_str("its end is missing: a crash left half a line, which the next start removes")
            }
            Self::Changed(fault) => fault.fmt(f),
            Self::Missing { from, to } if from == to => write!(f, "entry {from} is missing before it"),
            Self::Missing { from, to } => write!(f, "entries {from} to {to} are missing before it"),
            Self::Repeated => f.write_str("an entry of this number stands before it"),
            Self::Unlinked => {
                f.write_str("it does not follow the entry before it: one of the two was replaced")
            }
            Self::CutOff { known, by } => {
                write!(f, "it is the last one, but {by} knows of entry {known}: the end was cut off")
            }
            Self::Differs { by } => write!(f, "{by} knows another entry of this number"),
            Self::Forged => f.write_str("the head of its chain is not signed with a known key"),
            Self::Unexplained => f.write_str("something of it was erased, and no entry of the log says so"),
            Self::Picture { name, why } => write!(f, "its picture {name}: {why}"),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if let Some(seq) = self.seq {
            write!(f, ", entry {seq}")?;
        }
        if let Some(instance) = &self.instance {
            write!(f, " of {instance}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The chains.
    pub chains: Vec<ChainReport>,
    /// The first thing that is wrong; none if all is well.
    pub broken: Option<Broken>,
}

/// An end of a chain that somebody knows of.
struct KnownEnd {
    position: Position,
    by: String,
}

/// A chain as far as it was read.
struct State {
    first: u64,
    last: Position,
    at: i64,
    report: ChainReport,
}

/// A verification under way.
struct Verifier<'a> {
    places: &'a LogPlaces,
    options: &'a VerifyOptions,
    chains: BTreeMap<String, State>,
    /// The last entry before an anchor, by chain.
    skipped: BTreeMap<String, u64>,
    known: Vec<KnownEnd>,
    removed: Ranges,
    explained: Ranges,
    missing_pictures: BTreeMap<String, (String, u64, String)>,
    removed_pictures: HashSet<String>,
}

type Check = std::result::Result<(), Box<Broken>>;

impl LogPlaces {
    /// Checks the whole log in every place where it is kept. `progress` is told of every line. Memory does not grow with
    /// the log, but with the ranges of entries from which something was erased. Blocks; never call it on a thread of an
    /// asynchronous runtime.
    ///
    /// # Errors
    /// If a place cannot be read. What is wrong with the log itself is no error but the result.
    pub fn verify(&self, options: &VerifyOptions, progress: &mut dyn FnMut(u64)) -> Result<Verified> {
        let mut reports = Vec::new();
        // Before anything is read, so that what is written meanwhile is not missed.
        let (file_heads, table_heads) = self.heads()?;
        let known = |heads: &[Head], by: &str| -> Vec<(Position, String)> {
            heads.iter().map(|head| (head.position.clone(), by.to_owned())).collect()
        };
        let mut known: Vec<(Position, String)> =
            [known(&file_heads, "the head beside the file"), known(&table_heads, "the head in the database")]
                .concat();
        known.extend(options.anchors.iter().map(|anchor| (anchor.clone(), "the anchor".to_owned())));
        let mut verifier = Verifier {
            places: self,
            options,
            chains: BTreeMap::new(),
            skipped: BTreeMap::new(),
            known: known.into_iter().map(|(position, by)| KnownEnd { position, by }).collect(),
            removed: Ranges::default(),
            explained: Ranges::default(),
            missing_pictures: BTreeMap::new(),
            removed_pictures: HashSet::new(),
        };
        let mut broken = None;
        for place in ["files", "database"] {
            let (checked, heads) = match place {
                "files" => (verifier.files(progress)?, &file_heads),
                _ => (verifier.tables(progress)?, &table_heads),
            };
            let checked = checked.and_then(|()| verifier.ends(place, heads));
            broken = broken.or(checked.err());
            verifier.skipped.clear();
            reports.extend(std::mem::take(&mut verifier.chains).into_values().map(|state| {
                ChainReport {
                    place,
                    head: heads
                        .iter()
                        .find(|head| head.position.instance == state.report.instance)
                        .map(|head| head.signature(self.head_keys.as_ref())),
                    last: state.last,
                    first: state.first,
                    ..state.report
                }
            }));
        }
        let broken = broken.or_else(|| verifier.unexplained().err());
        Ok(Verified { chains: reports, broken: broken.map(|broken| *broken) })
    }

    /// The heads beside the files and those in the database.
    fn heads(&self) -> Result<(Vec<Head>, Vec<Head>)> {
        let mut beside = Vec::new();
        for path in self.files() {
            beside.extend(crate::head::read(path)?);
        }
        let inside = match &self.tables {
            Some(tables) => self.wait(tables.heads())?,
            None => Vec::new(),
        };
        Ok((beside, inside))
    }
}

impl Verifier<'_> {
    fn files(&mut self, progress: &mut dyn FnMut(u64)) -> Result<Check> {
        let mut count = 0;
        for log in self.places.files().map(std::path::Path::to_path_buf).collect::<Vec<_>>() {
            for path in if log.parent().is_some_and(std::path::Path::exists) || log.exists() {
                log_files(&log)?
            } else {
                Vec::new()
            } {
                let mut lines = Lines::open(&path, 0)?;
                while let Some(line) = lines.next_line().map_err(AuditError::io(&path, "read"))? {
                    count += 1;
                    progress(count);
                    let text = line.bytes.trim_ascii();
                    let place = || format!("{} line {}", path.display(), line.number);
                    if !line.ended {
                        let problem = Problem::Torn;
                        return Ok(Err(Box::new(Broken {
                            place: place(),
                            instance: None,
                            seq: None,
                            problem,
                        })));
                    }
                    if !text.is_empty()
                        && let Err(broken) = self.line(text, &place)?
                    {
                        return Ok(Err(broken));
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    fn tables(&mut self, progress: &mut dyn FnMut(u64)) -> Result<Check> {
        let Some(tables) = &self.places.tables else { return Ok(Ok(())) };
        let mut count = 0;
        for instance in self.places.wait(tables.instances())? {
            let mut seq = 0;
            loop {
                let lines = self.places.wait(tables.after(&instance, seq, PAGE))?;
                for (number, text) in &lines {
                    count += 1;
                    progress(count);
                    seq = *number;
                    let place = || format!("{} ({instance}, {number})", tables.database.place());
                    if let Err(broken) = self.line(text.as_bytes(), &place)? {
                        return Ok(Err(broken));
                    }
                }
                if lines.len() < PAGE {
                    break;
                }
            }
        }
        Ok(Ok(()))
    }

    /// Checks one line and its link to the one before.
    fn line(&mut self, text: &[u8], place: &dyn Fn() -> String) -> Result<Check> {
        let line = match Line::parse(text) {
            Ok(line) => line,
            Err(why) => {
                let problem = Problem::Unreadable { why: why.to_string() };
                return Ok(Err(Box::new(Broken { place: place(), instance: None, seq: None, problem })));
            }
        };
        let link = line.chain().clone();
        let broken = |problem: Problem| {
            let (instance, seq) = (Some(link.instance.clone()), Some(link.seq));
            Ok(Err(Box::new(Broken { place: place(), instance, seq, problem })))
        };
        let anchored = self
            .options
            .anchors
            .iter()
            .any(|anchor| anchor.instance == link.instance && link.seq < anchor.seq);
        if anchored {
            // What was removed before the anchor is none of this verification's business.
            self.skipped.insert(link.instance.clone(), link.seq);
            return Ok(Ok(()));
        }
        if let Some(fault) = line.fault()? {
            return broken(Problem::Changed(fault));
        }
        let position = link.position();
        match self.chains.get(&link.instance) {
            Some(state) if link.seq <= state.last.seq => return broken(Problem::Repeated),
            Some(state) if link.seq > state.last.seq + 1 => {
                return broken(Problem::Missing { from: state.last.seq + 1, to: link.seq - 1 });
            }
            Some(state) if link.prev != state.last.hash => return broken(Problem::Unlinked),
            None if self.gap_after_anchor(&link).is_some() => {
                let from = self.gap_after_anchor(&link).unwrap_or(link.seq);
                return broken(Problem::Missing { from, to: link.seq - 1 });
            }
            None if link.seq == 1 && digest_of(&link.prev) != Some([0; 32]) => {
                return broken(Problem::Unlinked);
            }
            _ => {}
        }
        let other = self.known.iter().find(|end| {
            end.position.instance == link.instance
                && end.position.seq == link.seq
                && end.position.hash != link.hash
        });
        if let Some(end) = other {
            return broken(Problem::Differs { by: end.by.clone() });
        }
        let state = self
            .chains
            .entry(link.instance.clone())
            .or_insert_with(|| State::new(&link.instance, position.clone()));
        state.last = position;
        state.report.entries += 1;
        match line {
            Line::Stub(_) => {
                state.report.removed += 1;
                self.removed.insert(&link.instance, link.seq);
            }
            Line::Entry(entry) => {
                let at = entry.micros();
                state.report.out_of_time += u64::from(at < state.at);
                state.at = at;
                if entry.erased_parts().next().is_some() {
                    state.report.erased += 1;
                    self.removed.insert(&link.instance, link.seq);
                }
                self.note(&entry, place);
            }
        }
        Ok(Ok(()))
    }

    /// The first entry that is missing between an anchor and the first entry of its chain that is there. An entry that
    /// follows the anchor proves it.
    fn gap_after_anchor(&self, link: &Link) -> Option<u64> {
        let anchors = self.options.anchors.iter().filter(|anchor| anchor.instance == link.instance);
        let missing = anchors.filter(|anchor| anchor.seq < link.seq && anchor.hash != link.prev);
        missing.map(|anchor| anchor.seq).min()
    }

    /// Takes from an entry what bears on others.
    fn note(&mut self, entry: &Entry, place: &dyn Fn() -> String) {
        match entry.path.as_str() {
            ERASED | EXPIRED => {
                self.explained.extend_from_json(entry.input.get("entries").unwrap_or(&Value::Null));
                let names = entry.input.get("pictures").and_then(Value::as_array).into_iter().flatten();
                if self.options.pictures {
                    self.removed_pictures.extend(names.filter_map(Value::as_str).map(str::to_owned));
                }
            }
            RECOVERED => {
                let after =
                    entry.input.get("after").cloned().and_then(|after| serde_json::from_value(after).ok());
                if let Some(position) = after {
                    self.known.push(KnownEnd {
                        position,
                        by: format!("entry {} of {}", entry.chain.seq, entry.chain.instance),
                    });
                }
            }
            DECISION if self.options.pictures => {
                for kept in entry.pictures() {
                    self.picture(entry, &kept, place);
                }
            }
            _ => {}
        }
    }

    fn picture(&mut self, entry: &Entry, kept: &KeptPicture, place: &dyn Fn() -> String) {
        let tenant = entry.tenant().unwrap_or_default();
        let why = match &self.places.pictures {
            Some(store) => store.read(tenant, kept).err().map(|why| why.to_string()),
            None => Some("the folder of pictures is not given (`log.pictures`)".to_owned()),
        };
        if let Some(why) = why {
            let place = format!("{} ({})", place(), entry.chain.instance);
            self.missing_pictures.insert(kept.name.clone(), (place, entry.chain.seq, why));
        }
    }

    /// Checks the ends of the chains against all that is known of them.
    fn ends(&self, place: &str, heads: &[Head]) -> Check {
        let signed = |head: &Head| head.signature(self.places.head_keys.as_ref());
        if let Some(head) = heads.iter().find(|head| signed(head) == Signature::Invalid) {
            let Position { instance, seq, .. } = head.position.clone();
            let problem = Problem::Forged;
            return Err(Box::new(Broken {
                place: place.to_owned(),
                instance: Some(instance),
                seq: Some(seq),
                problem,
            }));
        }
        for end in &self.known {
            let cut = |last: u64, instance: &str| {
                let problem = Problem::CutOff { known: end.position.seq, by: end.by.clone() };
                let place = place.to_owned();
                Err(Box::new(Broken { place, instance: Some(instance.to_owned()), seq: Some(last), problem }))
            };
            let skipped = self.skipped.get(&end.position.instance).copied();
            match self.chains.get(&end.position.instance) {
                Some(state) if state.last.seq < end.position.seq => {
                    return cut(state.last.seq, &end.position.instance);
                }
                None if skipped.is_some_and(|last| last < end.position.seq) => {
                    return cut(skipped.unwrap_or_default(), &end.position.instance);
                }
                None if skipped.is_some() => {}
                // Whoever is an end of this very place knows that it was here.
                None if heads.iter().any(|head| head.position == end.position) => {
                    return cut(0, &end.position.instance);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that whatever was removed is named by an entry that says so.
    fn unexplained(&self) -> Check {
        if let Some((instance, seq)) = self.removed.first_outside(&self.explained) {
            let problem = Problem::Unexplained;
            let place = "the log".to_owned();
            return Err(Box::new(Broken {
                place,
                instance: Some(instance.to_owned()),
                seq: Some(seq),
                problem,
            }));
        }
        let gone = self.missing_pictures.iter().find(|(name, _)| !self.removed_pictures.contains(*name));
        if let Some((name, (place, seq, why))) = gone {
            let problem = Problem::Picture { name: name.clone(), why: why.clone() };
            return Err(Box::new(Broken { place: place.clone(), instance: None, seq: Some(*seq), problem }));
        }
        Ok(())
    }
}

impl State {
    fn new(instance: &str, position: Position) -> Self {
        let report = ChainReport {
            place: "",
            instance: instance.to_owned(),
            first: position.seq,
            last: position.clone(),
            entries: 0,
            erased: 0,
            removed: 0,
            head: None,
            out_of_time: 0,
        };
        Self { first: position.seq, last: position, at: i64::MIN, report }
    }
}
