//! The zip files in which PyTorch keeps a pickle and the numbers that it speaks of.
//!
//! Source: APPNOTE.TXT 6.3.10 of PKWARE, as far as `torch.save` uses it (torch 1.6 to 2.11): members that are stored, not
//! compressed, with 64-bit sizes where they need them. Nothing is copied: a member is a range of the file.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{ModelError, Result};

/// First bytes of a zip file, and of each member.
pub(super) const MEMBER: &[u8] = b"PK\x03\x04";
const ENTRY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
/// Bytes of a record without what varies in length.
const END_LENGTH: usize = 22;
const LOCATOR_LENGTH: usize = 20;
const ENTRY_LENGTH: usize = 46;
const MEMBER_LENGTH: usize = 30;
/// Stands for a number that is elsewhere, in 64 bits.
const ELSEWHERE: u64 = 0xffff_ffff;

/// Names of the members and where their bytes are.
///
/// # Errors
/// `Malformed` for a file that is truncated or damaged; `Unsupported` for compressed or encrypted members.
pub(super) fn members<'a>(path: &str, bytes: &'a [u8]) -> Result<BTreeMap<&'a str, Range<usize>>> {
    let damaged = |detail: &str| {
        ModelError::malformed(
            path,
            format!("{detail}: truncated or damaged ({} bytes), fetch it again", bytes.len()),
        )
    };
    let (count, mut at) = directory(bytes).ok_or_else(|| damaged("no directory of a zip file at its end"))?;
    let mut found = BTreeMap::new();
    for _ in 0..count {
        let entry = Entry::read(bytes, at).ok_or_else(|| damaged("its directory ends early"))?;
        if entry.method != 0 || entry.encrypted {
            let what =
                if entry.encrypted { "encrypted".to_owned() } else { format!("method {}", entry.method) };
            return Err(ModelError::unsupported(
                path,
                format!("compression of `{}`", entry.name),
                what,
                "stored, as torch.save writes it",
            ));
        }
        let data =
            entry.data(bytes).ok_or_else(|| damaged(&format!("`{}` ends outside the file", entry.name)))?;
        if found.insert(entry.name, data).is_some() {
            return Err(damaged(&format!("`{}` is there twice", entry.name)));
        }
        at = entry.next;
    }
    Ok(found)
}

/// How many entries the directory has, and where the first is.
fn directory(bytes: &[u8]) -> Option<(u64, usize)> {
    let last = bytes.len().checked_sub(END_LENGTH)?;
    // A comment of up to 65,535 bytes may follow; it says how long it is.
    let ends_here = |at: &usize| {
        bytes[*at..].starts_with(END)
            && number(bytes, at + 20, 2)
                .is_some_and(|comment| at + END_LENGTH + index(comment) == bytes.len())
    };
    let end = (last.saturating_sub(0xffff)..=last).rev().find(ends_here)?;
    let (count, start) = (number(bytes, end + 10, 2)?, number(bytes, end + 16, 4)?);
    if count != 0xffff && start != ELSEWHERE {
        return Some((count, index(start)));
    }
    let locator = end.checked_sub(LOCATOR_LENGTH).filter(|at| bytes[*at..].starts_with(LOCATOR_64))?;
    let end = index(number(bytes, locator + 8, 8)?);
    bytes.get(end..).filter(|rest| rest.starts_with(END_64))?;
    Some((number(bytes, end.checked_add(32)?, 8)?, index(number(bytes, end.checked_add(48)?, 8)?)))
}

/// What the directory says of a member.
struct Entry<'a> {
    name: &'a str,
    method: u64,
    encrypted: bool,
    size: u64,
    /// Where the member's own record is.
    record: u64,
    /// Where the next entry is.
    next: usize,
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8], at: usize) -> Option<Self> {
        let entry = bytes.get(at..).filter(|rest| rest.len() >= ENTRY_LENGTH && rest.starts_with(ENTRY))?;
        let field = |at, length| number(entry, at, length);
        let name = ENTRY_LENGTH + index(field(28, 2)?);
        let extra = name + index(field(30, 2)?);
        let (mut packed, mut size, mut record) = (field(20, 4)?, field(24, 4)?, field(42, 4)?);
        let mut wide: Vec<&mut u64> = [&mut size, &mut packed, &mut record]
            .into_iter()
            .filter(|number| **number == ELSEWHERE)
            .collect();
        if !wide.is_empty() {
            // Those and only those are in the extra field 1, in this order.
            let mut at = wide_numbers(entry.get(name..extra)?)? + name;
            for narrow in &mut wide {
                **narrow = field(at, 8)?;
                at += 8;
            }
        }
        let method = field(10, 2)?;
        // What is stored is as long packed as it is unpacked.
        (method != 0 || packed == size).then_some(())?;
        Some(Self {
            name: std::str::from_utf8(entry.get(ENTRY_LENGTH..name)?).ok()?,
            method,
            encrypted: field(8, 2)? & 1 == 1,
            size,
            record,
            next: at.checked_add(extra)?.checked_add(index(field(32, 2)?))?,
        })
    }

    /// Where the member's bytes are, which follow its own record.
    fn data(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let record = bytes.get(index(self.record)..)?;
        record.starts_with(MEMBER).then_some(())?;
        let lengths = index(number(record, 26, 2)?) + index(number(record, 28, 2)?);
        let start = index(self.record).checked_add(MEMBER_LENGTH + lengths)?;
        let end = start.checked_add(index(self.size))?;
        (end <= bytes.len()).then_some(start..end)
    }
}

/// Where in the extra fields the 64-bit numbers begin.
fn wide_numbers(extra: &[u8]) -> Option<usize> {
    let mut at = 0;
    while number(extra, at, 2)? != 1 {
        at += 4 + index(number(extra, at + 2, 2)?);
    }
    Some(at + 4)
}

/// A little-endian number of `length` bytes (8 at most).
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// As an index; what does not fit is outside every file.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
