//! Reading log files: line by line, in bounded memory, the rotated ones before the current one.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::chain::Placed;
use crate::entry::{Line, MAX_ENTRY_BYTES};
use crate::error::{AuditError, Result};

/// Most files that one log may be spread over.
const MAX_FILES: usize = 100_000;
/// Bytes that are looked at from the end of a file to find its last line.
const TAIL: u64 = MAX_ENTRY_BYTES as u64 + 2;

/// Lines of anything that can be read. A line longer than an entry may be is cut off at that length and counts as one.
#[derive(Debug)]
pub struct Lines<R> {
    from: BufReader<R>,
    offset: u64,
    number: u64,
    /// Bytes of the last line, and whether it had no end.
    length: u64,
    unended: bool,
    buffer: Vec<u8>,
}

/// A line as it stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawLine<'a> {
    /// Its bytes without the end of the line.
    pub bytes: &'a [u8],
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its number, from 1.
    pub number: u64,
    /// Whether it has its end; only a file's last line may have none.
    pub ended: bool,
    /// Whether it is longer than an entry may be, and `bytes` its beginning only.
    pub too_long: bool,
}

impl<R: Read> Lines<R> {
    /// Reads from the beginning.
    pub fn new(from: R) -> Self {
        Self {
            from: BufReader::with_capacity(256 << 10, from),
            offset: 0,
            number: 0,
            length: 0,
            unended: false,
            buffer: Vec::new(),
        }
    }

    /// The next line, if there is one.
    ///
    /// # Errors
    /// If reading fails.
    pub fn next_line(&mut self) -> std::io::Result<Option<RawLine<'_>>> {
        self.buffer.clear();
        let (offset, mut length, mut too_long) = (self.offset, 0_u64, false);
        let ended = loop {
            let available = self.from.fill_buf()?;
            if available.is_empty() {
                break false;
            }
            let end = memchr::memchr(b'\n', available);
            let taken = end.unwrap_or(available.len());
            let room = (MAX_ENTRY_BYTES + 1).saturating_sub(self.buffer.len()).min(taken);
            self.buffer.extend_from_slice(&available[..room]);
            too_long |= room < taken;
            let consumed = taken + usize::from(end.is_some());
            length += consumed as u64;
            self.from.consume(consumed);
            if end.is_some() {
                break true;
            }
        };
        if length == 0 {
            return Ok(None);
        }
        self.offset += length;
        self.number += 1;
        (self.length, self.unended) = (length, !ended);
        Ok(Some(RawLine { bytes: &self.buffer, offset, number: self.number, ended, too_long }))
    }
}

impl Lines<File> {
    /// Reads a file from `offset`, where a line begins; lines are numbered from there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path, offset: u64) -> Result<Self> {
        let mut file = File::open(path).map_err(AuditError::io(path, "opened"))?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset)).map_err(AuditError::io(path, "read"))?;
        }
        Ok(Self { offset, ..Self::new(file) })
    }

    /// Goes back to the beginning of a line that had no end.
    fn back_to_line(&mut self) -> std::io::Result<()> {
        if self.unended {
            self.number -= 1;
            self.offset -= self.length;
            self.from.seek(SeekFrom::Start(self.offset))?;
            self.unended = false;
        }
        Ok(())
    }

    /// Whether `path` still leads to the file.
    fn is_of(&self, path: &Path) -> bool {
        crate::file::is_at(self.from.get_ref(), path).unwrap_or(false)
    }
}

/// What the end of a log file looks like.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// The last whole line that is no blank.
    pub(crate) last: Option<Line>,
    /// Bytes up to which the file is whole.
    pub(crate) whole: u64,
    /// Bytes after that: a line that was never finished, or zeros that a crash of the machine left.
    pub(crate) torn: u64,
}

/// Looks at the end of a log file.
///
/// # Errors
/// If it cannot be read, or its last finished line is no line of a log.
pub(crate) fn tail(path: &Path, file: &mut File) -> Result<Tail> {
    let fail = || AuditError::io(path, "read");
    let size = file.seek(SeekFrom::End(0)).map_err(fail())?;
    let start = size.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start)).map_err(fail())?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).map_err(fail())?;
    // Every write ends with a line's end; what comes after the last one was never acknowledged.
    let mut whole = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
    if whole == 0 && start > 0 {
        return Err(AuditError::content(path, "its end is no line of a log; run `cluegate log verify`"));
    }
    let torn = size - start - whole as u64;
    let mut last = None;
    while last.is_none() && whole > 0 {
        let begin = memchr::memrchr(b'\n', &bytes[..whole - 1]).map_or(0, |end| end + 1);
        let text = bytes[begin..whole - 1].trim_ascii();
        if !text.is_empty() {
            let line = Line::parse(text).map_err(|problem| {
                let problem = format!(
                    "its last line is {problem}. Run `cluegate log verify`; to go on without it, move the file away and \
                     keep it"
                );
                AuditError::content(path, problem)
            })?;
            last = Some(line);
        } else if begin == 0 {
            break;
        }
        whole = if last.is_some() { whole } else { begin };
    }
    Ok(Tail { last, whole: size - torn, torn })
}

/// The files of a log: those that were rotated away, as far as they lie beside it and are not compressed, oldest first,
/// and the current one.
///
/// Any file whose name is that of the log with a dot or a dash and more behind it is looked at; those that hold another
/// log, or none, are passed over.
///
/// # Errors
/// If the folder cannot be read or holds too many files.
pub(crate) fn log_files(path: &Path) -> Result<Vec<PathBuf>> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for item in std::fs::read_dir(folder).map_err(AuditError::io(folder, "read"))? {
        let item = item.map_err(AuditError::io(folder, "read"))?;
        let other = item.file_name().to_string_lossy().into_owned();
        let rest = other.strip_prefix(&name);
        let rotated = rest.is_some_and(|rest| {
            rest.starts_with(['.', '-']) && !OWN_SUFFIXES.iter().any(|own| rest.starts_with(own))
        });
        if rotated && item.file_type().is_ok_and(|kind| kind.is_file()) {
            // Its place in the chain says how old it is; names of rotated files do not sort.
            if let Some(first) = first_link(&item.path())? {
                found.push((first, item.path()));
            }
        }
        if found.len() > MAX_FILES {
            let problem = format!("more than {MAX_FILES} files beside the log; move old ones away");
            return Err(AuditError::content(folder, problem));
        }
    }
    found.sort();
    let mut files: Vec<PathBuf> = found.into_iter().map(|(_, path)| path).collect();
    if path.exists() {
        files.push(path.to_path_buf());
    }
    Ok(files)
}

/// What the log itself keeps beside its file.
const OWN_SUFFIXES: [&str; 5] = [".head", ".lock", ".erasing", ".maintenance", ".gz"];

/// Instance and number of the first entry of a file; none if it does not begin with one.
pub(crate) fn first_link(path: &Path) -> Result<Option<(String, u64)>> {
    let mut lines = Lines::open(path, 0)?;
    while let Some(line) = lines.next_line().map_err(AuditError::io(path, "read"))? {
        let text = line.bytes.trim_ascii();
        if !text.is_empty() {
            let link = Line::parse(text).ok().map(|line| line.chain().clone());
            return Ok(link.map(|link| (link.instance, link.seq)));
        }
    }
    Ok(None)
}

/// The entries of one chain behind a number, from the files of a log in their order.
#[derive(Debug)]
pub(crate) struct Behind {
    instance: String,
    seq: u64,
    files: std::vec::IntoIter<PathBuf>,
    current: Option<(PathBuf, Lines<File>)>,
}

impl Behind {
    /// Begins behind entry `seq` of the chain.
    pub(crate) fn open(path: &Path, instance: &str, seq: u64) -> Result<Self> {
        let files = log_files(path)?;
        // What begins before the number may hold it; whatever is older cannot.
        let mut from = 0;
        for (index, file) in files.iter().enumerate() {
            if first_link(file)?.is_some_and(|(name, first)| name == instance && first <= seq + 1) {
                from = index;
            }
        }
        let files = files.into_iter().skip(from).collect::<Vec<_>>().into_iter();
        Ok(Self { instance: instance.to_owned(), seq, files, current: None })
    }

    /// Whether what comes next is what stands behind entry `seq`, in files that are still where they were.
    pub(crate) fn is_at(&self, seq: u64) -> bool {
        self.seq == seq && self.current.as_ref().is_some_and(|(path, lines)| lines.is_of(path))
    }

    /// The next entries, at most `most`; none at the end of the last file. A line that is no entry ends it too, with an
    /// error.
    pub(crate) fn next(&mut self, most: usize) -> Result<Vec<Placed>> {
        let mut entries = Vec::new();
        while entries.len() < most {
            let Some((path, lines)) = &mut self.current else {
                let Some(path) = self.files.next() else { break };
                let lines = Lines::open(&path, 0)?;
                self.current = Some((path, lines));
                continue;
            };
            let next = lines.next_line().map_err(AuditError::io(path, "read"))?;
            let Some(line) = next.filter(|line| line.ended) else {
                if self.files.len() > 0 {
                    self.current = None;
                    continue;
                }
                // The last file may grow; half a line is read again when it is whole.
                let path = path.clone();
                lines.back_to_line().map_err(AuditError::io(&path, "read"))?;
                break;
            };
            let text = line.bytes.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let number = line.number;
            let parsed = Line::parse(text)
                .map_err(|problem| AuditError::content(path, format!("line {number} is {problem}")))?;
            let link = parsed.chain().clone();
            if link.instance != self.instance || link.seq <= self.seq {
                continue;
            }
            self.seq = link.seq;
            let text = String::from_utf8_lossy(text).into_owned();
            let index = parsed.entry().map(|entry| entry.index()).unwrap_or_default();
            entries.push(Placed { link, text, index });
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_those_of_the_text(text in "[a\n]{0,64}", chunk in 1_usize..9) {
            struct Slow<'a>(&'a [u8], usize);
            impl Read for Slow<'_> {
                fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
                    let count = self.1.min(self.0.len()).min(to.len());
                    to[..count].copy_from_slice(&self.0[..count]);
                    self.0 = &self.0[count..];
                    Ok(count)
                }
            }
            let mut lines = Lines::new(Slow(text.as_bytes(), chunk));
            let mut whole = Vec::new();
            let mut count = 0;
            while let Some(line) = lines.next_line().unwrap() {
                count += 1;
                prop_assert_eq!(line.number, count);
                prop_assert_eq!(line.offset, whole.len() as u64);
                prop_assert!(!line.too_long);
                whole.extend_from_slice(line.bytes);
                if line.ended {
                    whole.push(b'\n');
                }
            }
            prop_assert_eq!(whole, text.as_bytes());
        }
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_an_entry() {
        let mut lines = Lines::new(std::io::repeat(b'x').take(3 * MAX_ENTRY_BYTES as u64));
        let line = lines.next_line().unwrap().unwrap();
        assert!(line.too_long && !line.ended);
        assert_eq!(line.bytes.len(), MAX_ENTRY_BYTES + 1);
        assert_eq!(lines.next_line().unwrap(), None);
    }
}
