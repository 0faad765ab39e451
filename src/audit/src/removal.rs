//! Removing from a log what must not be kept, while its chains still verify.
//!
//! In a file, a line is overwritten in place with what is left of it and blanks, so that nothing moves and the gateway
//! goes on writing. What is about to be overwritten is written to a journal first: a crash in between is finished by the
//! next removal. In the database, rows are changed a page at a time, together with the entry that says so.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::chain::Chain;
use crate::database::{Change, Page};
use crate::entry::{Entry, Line};
use crate::error::{AuditError, Result};
use crate::file::{LogFile, sync_folder};
use crate::head::write_at;
use crate::places::{LogPlaces, file_maintenance, maintenance_path, tables_maintenance};
use crate::query::Query;
use crate::ranges::Ranges;
use crate::reader::{Lines, log_files};

/// Entries that are changed together.
const AT_ONCE: usize = 256;
/// Bytes of changed lines that are held together.
const BYTES_AT_ONCE: usize = 8 << 20;
/// Names of pictures that one entry lists.
const NAMES_AT_ONCE: usize = 1000;

/// How much is removed of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Extent {
    /// Its erasable parts.
    Parts,
    /// All but its place in the chain.
    Whole,
}

/// What is removed, and what the log says of it.
pub(crate) struct Removal<'a> {
    pub(crate) query: &'a Query,
    pub(crate) extent: Extent,
    /// `path` of the entry that says so.
    pub(crate) path: &'static str,
    /// What the entry says beside the numbers of the entries.
    pub(crate) note: Value,
    pub(crate) tenant: &'a str,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Entries of which something was removed, once for each place where they were kept.
    pub entries: u64,
    /// Pictures.
    pub pictures: u64,
}

/// A line that is about to be overwritten.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Overwrite {
    file: PathBuf,
    offset: u64,
    length: usize,
    instance: String,
    seq: u64,
    line: String,
}

/// What the journal holds: lines, and what the log is to say of them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    path: String,
    tenant: String,
    input: Value,
    lines: Vec<Overwrite>,
}

/// The one who removes from the files of a log; there is one at a time.
struct FileRemover {
    journal: PathBuf,
    maintenance: LogFile,
    chain: Chain,
}

impl LogPlaces {
    /// Removes from every place what `removal` names, and the pictures with it.
    pub(crate) fn remove(&self, removal: &Removal<'_>) -> Result<Removed> {
        let mut removed = Removed::default();
        let mut names = HashSet::new();
        if let Some(log) = &self.file {
            removed.entries += self.remove_from_files(log, removal, &mut names)?;
        }
        if self.tables.is_some() {
            removed.entries += self.remove_from_tables(removal, &mut names)?;
        }
        if !names.is_empty() && self.pictures.is_some() {
            removed.pictures += self.remove_pictures(removal, names)?;
        }
        Ok(removed)
    }

    fn remove_from_files(
        &self,
        log: &Path,
        removal: &Removal<'_>,
        names: &mut HashSet<String>,
    ) -> Result<u64> {
        let mut remover = self.file_remover(log)?;
        remover.finish_journal(self, log)?;
        let mut count = 0;
        for path in log_files(log)? {
            let mut lines = Lines::open(&path, 0)?;
            let (mut batch, mut bytes) = (Vec::new(), 0);
            loop {
                let line = lines.next_line().map_err(AuditError::io(&path, "read"))?;
                let ended = line.is_none_or(|line| !line.ended);
                if let Some(line) = line.filter(|line| line.ended)
                    && let Some(overwrite) = overwrite(&path, &line, removal, names)?
                {
                    bytes += overwrite.line.len();
                    batch.push(overwrite);
                }
                if !batch.is_empty() && (ended || batch.len() >= AT_ONCE || bytes >= BYTES_AT_ONCE) {
                    count += batch.len() as u64;
                    remover.overwrite(self, log, removal, std::mem::take(&mut batch))?;
                    bytes = 0;
                }
                if ended {
                    break;
                }
            }
        }
        Ok(count)
    }

    fn file_remover(&self, log: &Path) -> Result<FileRemover> {
        let (maintenance, standing) = LogFile::open(&maintenance_path(log), self.head_keys.clone())?;
        let instance = file_maintenance(&self.instance);
        let last = standing.last.filter(|last| last.instance == instance);
        let chain = Chain::after(&instance, last.as_ref())?;
        Ok(FileRemover { journal: journal_path(log), maintenance, chain })
    }

    fn remove_from_tables(&self, removal: &Removal<'_>, names: &mut HashSet<String>) -> Result<u64> {
        let Some(tables) = &self.tables else { return Ok(0) };
        let instance = tables_maintenance(&self.instance);
        let mut after = None;
        let mut count = 0;
        loop {
            let rows =
                self.wait(tables.page(removal.query, Page { after: after.as_ref(), most: AT_ONCE }))?;
            let full = rows.len() == AT_ONCE;
            let mut changes = Vec::new();
            let mut ranges = Ranges::default();
            for row in rows {
                if let Line::Entry(entry) = Line::parse(row.entry.as_bytes())?
                    && let Some(entry_text) = remains(*entry, removal.extent, names)?
                {
                    ranges.insert(&row.place.instance, row.place.seq);
                    changes.push(Change {
                        instance: row.place.instance.clone(),
                        seq: row.place.seq,
                        entry: entry_text,
                    });
                }
                after = Some(row.place);
            }
            if !changes.is_empty() {
                count += changes.len() as u64;
                let draft =
                    self.note(removal.path, removal.tenant, with_entries(&removal.note, &ranges)).draft()?;
                let whole = removal.extent == Extent::Whole;
                self.wait(tables.change(&instance, &changes, whole, draft))?;
            }
            if !full {
                return Ok(count);
            }
        }
    }

    /// Removes pictures that no entry names any more, after the log says so.
    fn remove_pictures(&self, removal: &Removal<'_>, mut names: HashSet<String>) -> Result<u64> {
        let Some(store) = &self.pictures else { return Ok(0) };
        // The same picture may have been kept for another decision.
        self.query(&Query::for_tenant(removal.tenant), &mut |entry| {
            for kept in entry.pictures() {
                names.remove(&kept.name);
            }
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort();
        let mut count = 0;
        for some in names.chunks(NAMES_AT_ONCE) {
            let mut input = removal.note.clone();
            input["pictures"] = json!(some);
            self.write_note(removal.path, removal.tenant, input)?;
            for name in some {
                count += u64::from(store.remove(removal.tenant, name)?);
            }
        }
        Ok(count)
    }

    /// Writes an entry about the log to the chains of those who remove.
    pub(crate) fn write_note(&self, path: &'static str, tenant: &str, input: Value) -> Result<()> {
        let draft = self.note(path, tenant, input).draft()?;
        if let Some(tables) = &self.tables {
            self.wait(tables.change(&tables_maintenance(&self.instance), &[], false, draft.clone()))?;
        }
        if let Some(log) = &self.file {
            self.file_remover(log)?.note(draft)?;
        }
        Ok(())
    }

    fn note(&self, path: &str, tenant: &str, input: Value) -> Entry {
        let mut labels = self.labels.clone();
        labels.insert("tenant".to_owned(), tenant.to_owned());
        Entry::about_log(path, input, &labels)
    }
}

impl FileRemover {
    /// Overwrites lines and says so, all of it even if this process dies in between and another begins again.
    fn overwrite(
        &mut self,
        places: &LogPlaces,
        log: &Path,
        removal: &Removal<'_>,
        lines: Vec<Overwrite>,
    ) -> Result<()> {
        let mut ranges = Ranges::default();
        lines.iter().for_each(|line| ranges.insert(&line.instance, line.seq));
        let input = with_entries(&removal.note, &ranges);
        let journal =
            Journal { path: removal.path.to_owned(), tenant: removal.tenant.to_owned(), input, lines };
        let text = serde_json::to_vec(&journal).map_err(|problem| AuditError::Entry(problem.to_string()))?;
        let part = self.journal.with_extension("part");
        write_whole(&part, &text)?;
        std::fs::rename(&part, &self.journal).map_err(AuditError::io(&self.journal, "written"))?;
        sync_folder(&self.journal)?;
        self.apply(places, log, journal)
    }

    /// Finishes what an earlier removal began.
    fn finish_journal(&mut self, places: &LogPlaces, log: &Path) -> Result<()> {
        let text = match std::fs::read(&self.journal) {
            Ok(text) => text,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(AuditError::io(&self.journal, "read")(source)),
        };
        let journal = serde_json::from_slice(&text).map_err(|problem| {
            AuditError::content(&self.journal, format!("no journal of a removal: {problem}"))
        })?;
        self.apply(places, log, journal)
    }

    fn apply(&mut self, places: &LogPlaces, log: &Path, journal: Journal) -> Result<()> {
        let mut open: Option<(PathBuf, File)> = None;
        for line in &journal.lines {
            let path = match &open {
                Some((path, _)) if holds(path, line)? => path.clone(),
                _ => find(log, line)?,
            };
            if open.as_ref().is_none_or(|(current, _)| *current != path) {
                if let Some((path, file)) = open.take() {
                    file.sync_data().map_err(AuditError::io(&path, "written"))?;
                }
                let file =
                    OpenOptions::new().write(true).open(&path).map_err(AuditError::io(&path, "opened"))?;
                open = Some((path.clone(), file));
            }
            if let Some((path, file)) = &open {
                let mut text = line.line.clone().into_bytes();
                text.resize(line.length, b' ');
                write_at(file, &text, line.offset).map_err(AuditError::io(path, "overwritten"))?;
            }
        }
        if let Some((path, file)) = open {
            file.sync_data().map_err(AuditError::io(&path, "written"))?;
        }
        self.note(places.note(&journal.path, &journal.tenant, journal.input).draft()?)?;
        std::fs::remove_file(&self.journal).map_err(AuditError::io(&self.journal, "removed"))
    }

    fn note(&mut self, draft: crate::entry::Draft) -> Result<()> {
        let placed = self.chain.place(draft)?;
        self.maintenance.append(format!("{}\n", placed.text).as_bytes())?;
        self.maintenance.keep_head(placed.link.position())?;
        self.maintenance.sync_head()
    }
}

/// Where what is about to be overwritten is kept.
fn journal_path(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".erasing");
    name.into()
}

fn write_whole(path: &Path, text: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(AuditError::io(path, "opened"))?;
    file.write_all(text).and_then(|()| file.sync_data()).map_err(AuditError::io(path, "written"))
}

fn with_entries(note: &Value, ranges: &Ranges) -> Value {
    let mut input = note.clone();
    input["entries"] = ranges.to_json();
    input
}

/// What is left of an entry; none if nothing of it goes.
fn remains(mut entry: Entry, extent: Extent, names: &mut HashSet<String>) -> Result<Option<String>> {
    let pictures = entry.pictures();
    let text = match extent {
        Extent::Parts if !entry.erase() => return Ok(None),
        Extent::Parts => serde_json::to_string(&entry),
        Extent::Whole => serde_json::to_string(&entry.stub()),
    };
    names.extend(pictures.into_iter().map(|kept| kept.name));
    text.map(Some).map_err(|problem| AuditError::Entry(problem.to_string()))
}

fn overwrite(
    path: &Path,
    line: &crate::reader::RawLine<'_>,
    removal: &Removal<'_>,
    names: &mut HashSet<String>,
) -> Result<Option<Overwrite>> {
    let text = line.bytes.trim_ascii();
    if text.is_empty() || text.starts_with(b"{\"chain\"") {
        return Ok(None);
    }
    let parsed = Line::parse(text)
        .map_err(|problem| AuditError::content(path, format!("line {} is {problem}", line.number)))?;
    let Some(entry) = parsed.entry().filter(|entry| removal.query.matches(entry)) else { return Ok(None) };
    let (instance, seq) = (entry.chain.instance.clone(), entry.chain.seq);
    let Some(rest) = remains(entry, removal.extent, names)? else { return Ok(None) };
    let length = line.bytes.len();
    if rest.len() > length {
        let problem =
            format!("what is left of line {} is longer than the line; was the file rewritten?", line.number);
        return Err(AuditError::content(path, problem));
    }
    let file = path.to_path_buf();
    Ok(Some(Overwrite { file, offset: line.offset, length, instance, seq, line: rest }))
}

/// The file that holds the line: the one in which it was found, unless that was rotated away since.
fn find(log: &Path, line: &Overwrite) -> Result<PathBuf> {
    if holds(&line.file, line)? {
        return Ok(line.file.clone());
    }
    for path in log_files(log)? {
        if holds(&path, line)? {
            return Ok(path);
        }
    }
    let problem = format!(
        "entry {} of {} is not where it was when its erasure began; put the file back and erase again",
        line.seq, line.instance
    );
    Err(AuditError::content(&line.file, problem))
}

/// Whether `path` has this entry at this place, or the half of it that a crash left.
fn holds(path: &Path, line: &Overwrite) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let mut lines = Lines::open(path, line.offset)?;
    let Some(found) = lines.next_line().map_err(AuditError::io(path, "read"))? else { return Ok(false) };
    if !found.ended || found.bytes.len() != line.length {
        return Ok(false);
    }
    Ok(match Line::parse(found.bytes.trim_ascii()) {
        Ok(there) => there.chain().instance == line.instance && there.chain().seq == line.seq,
        // The beginning of what is written over it, with the rest of what was there.
        Err(_) => found.bytes.iter().zip(line.line.as_bytes()).take(16).all(|(there, here)| there == here),
    })
}
