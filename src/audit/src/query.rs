//! Finding decisions in a log, one page or one stream at a time.

use std::ops::ControlFlow;

use crate::database::{LogTables, Page};
use crate::entry::{DECISION, Entry, Line};
use crate::error::{AuditError, Result};
use crate::places::LogPlaces;
use crate::reader::{Lines, first_link, log_files};

/// Rows that are read from the database at once.
const PAGE: usize = 500;

/// Whose entries are asked for: one tenant's, or, by the operator, everybody's. There is no third way, so that a query on
/// behalf of a tenant cannot reach another's entries by leaving something out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub(crate) tenant: Option<String>,
    /// Also what the log says of itself.
    pub(crate) all: bool,
}

/// Which entries are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Whose.
    pub scope: Scope,
    /// Not before this, in microseconds since 1970.
    pub since: Option<i64>,
    /// Before this, in microseconds since 1970.
    pub until: Option<i64>,
    /// A rule that was violated.
    pub rule: Option<String>,
    /// `released`, `withheld` or `held`.
    pub outcome: Option<String>,
    /// A reason, such as `violation`.
    pub reason: Option<String>,
    /// Id of the request.
    pub request: Option<String>,
    /// Id of the decision.
    pub decision: Option<String>,
    /// The generation model.
    pub model: Option<String>,
    /// What stands in the log for an end user, by each key that may have been in use; empty for everybody's decisions.
    pub subjects: Vec<String>,
    /// Begin behind this entry.
    pub cursor: Option<Place>,
    /// Most entries.
    pub limit: Option<u64>,
}

/// Where an entry stands among others: by time in the database, by number in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Microseconds since 1970.
    pub at: i64,
    /// Whose chain.
    pub instance: String,
    /// Its number there.
    pub seq: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.at, self.seq, self.instance)
    }
}

impl std::str::FromStr for Place {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let mut parts = text.splitn(3, ':');
            let (at, seq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(Self { at, seq, instance: parts.next().filter(|name| !name.is_empty())?.to_owned() })
        };
        parse().ok_or_else(|| {
            AuditError::Refused(format!("{text:?} is no cursor; take one from the end of an earlier answer"))
        })
    }
}

impl Query {
    /// The decisions of one tenant.
    pub fn for_tenant(tenant: impl Into<String>) -> Self {
        Self::of(Some(tenant.into()))
    }

    /// The decisions of all tenants. For the operator only.
    pub fn for_operator() -> Self {
        Self::of(None)
    }

    fn of(tenant: Option<String>) -> Self {
        Self {
            scope: Scope { tenant, all: false },
            since: None,
            until: None,
            rule: None,
            outcome: None,
            reason: None,
            request: None,
            decision: None,
            model: None,
            subjects: Vec::new(),
            cursor: None,
            limit: None,
        }
    }

    /// Also what the log says about itself: erasures, expiries, recoveries. The operator's alone.
    #[must_use]
    pub fn with_log_entries(mut self) -> Self {
        self.scope.all = self.scope.tenant.is_none();
        self
    }

    /// Whether `entry` is asked for.
    pub fn matches(&self, entry: &Entry) -> bool {
        let index = entry.index();
        let is = |asked: &Option<String>, found: Option<&str>| {
            asked.as_deref().is_none_or(|asked| found == Some(asked))
        };
        (self.scope.all || entry.path == DECISION)
            && is(&self.scope.tenant, entry.tenant())
            && self.since.is_none_or(|since| index.at >= since)
            && self.until.is_none_or(|until| index.at < until)
            && self.rule.as_ref().is_none_or(|rule| index.violated.contains(rule))
            && is(&self.outcome, index.outcome.as_deref())
            && is(&self.reason, index.reason.as_deref())
            && is(&self.request, index.request.as_deref())
            && is(&self.decision, Some(&index.decision_id))
            && is(&self.model, index.model.as_deref())
            && (self.subjects.is_empty()
                || index.subject.is_some_and(|subject| self.subjects.contains(&subject)))
    }

    /// Texts that a matching line must contain, as they stand in it.
    fn needles(&self) -> Vec<memchr::memmem::Finder<'static>> {
        let texts = [
            &self.scope.tenant,
            &self.rule,
            &self.outcome,
            &self.reason,
            &self.request,
            &self.decision,
            &self.model,
        ];
        let quoted = texts.into_iter().flatten().filter_map(|text| serde_json::to_string(text).ok());
        quoted.map(|text| memchr::memmem::Finder::new(text.as_bytes()).into_owned()).collect()
    }
}

impl Place {
    /// Where an entry stands.
    pub fn of(entry: &Entry) -> Self {
        Self { at: entry.micros(), instance: entry.chain.instance.clone(), seq: entry.chain.seq }
    }
}

impl LogPlaces {
    /// Calls `visit` with every entry that is asked for, oldest first, until it breaks off: from the database if the log
    /// is kept there, else from its files. Memory does not grow with the log. Blocks; never call it on a thread of an
    /// asynchronous runtime.
    ///
    /// # Errors
    /// If the log cannot be read, holds what is no entry, or `visit` fails.
    pub fn query(
        &self,
        query: &Query,
        visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut left = query.limit.unwrap_or(u64::MAX);
        if left == 0 {
            return Ok(());
        }
        let mut counted = |entry: Entry| {
            left -= 1;
            let flow = visit(entry)?;
            Ok(if left == 0 { ControlFlow::Break(()) } else { flow })
        };
        match (&self.tables, &self.file) {
            (Some(tables), _) => self.query_tables(tables, query, &mut counted),
            (None, Some(_)) => self.query_files(query, &mut counted),
            (None, None) => Ok(()),
        }
    }

    fn query_tables(
        &self,
        tables: &LogTables,
        query: &Query,
        visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut after = query.cursor.clone();
        let most = query.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE).min(PAGE);
        loop {
            let page = Page { after: after.as_ref(), most };
            let rows = self.wait(tables.page(query, page))?;
            let full = rows.len() == most;
            for row in rows {
                after = Some(row.place);
                if let Some(entry) = Line::parse(row.entry.as_bytes())?.entry()
                    && visit(entry)?.is_break()
                {
                    return Ok(());
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    fn query_files(
        &self,
        query: &Query,
        visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let needles = query.needles();
        let mut beyond = query.cursor.is_none();
        let mut files = Vec::new();
        for path in self.files() {
            files.extend(log_files(path)?);
        }
        let begin = match &query.cursor {
            Some(cursor) => first_file(&files, cursor)?,
            None => 0,
        };
        for path in &files[begin..] {
            let mut lines = Lines::open(path, 0)?;
            while let Some(line) = lines.next_line().map_err(AuditError::io(path, "read"))? {
                // Still being written, or left by a crash.
                if !line.ended {
                    break;
                }
                let text = line.bytes.trim_ascii();
                // Parsing costs most, so what cannot match is passed over; not before the cursor is found.
                if text.is_empty() || (beyond && needles.iter().any(|needle| needle.find(text).is_none())) {
                    continue;
                }
                let number = line.number;
                let parsed = Line::parse(text)
                    .map_err(|problem| AuditError::content(path, format!("line {number} is {problem}")))?;
                if let (false, Some(cursor)) = (beyond, &query.cursor) {
                    beyond = parsed.chain().instance == cursor.instance && parsed.chain().seq >= cursor.seq;
                    continue;
                }
                if let Some(entry) = parsed.entry().filter(|entry| query.matches(entry))
                    && visit(entry)?.is_break()
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The file that holds the cursor's entry: the last of its chain that begins at or before it.
fn first_file(files: &[std::path::PathBuf], cursor: &Place) -> Result<usize> {
    let mut begin = 0;
    for (index, path) in files.iter().enumerate() {
        let link = first_link(path)?;
        if link.is_some_and(|(instance, first)| instance == cursor.instance && first <= cursor.seq) {
            begin = index;
        }
    }
    Ok(begin)
}

/// A time as people write it, in microseconds since 1970: `2026-11-22T10:00:00Z`, a day in UTC (`2026-11-22`), or so long
/// ago (`90s`, `15m`, `24h`, `7d`).
///
/// # Errors
/// If it is none of these.
pub fn parse_time(text: &str) -> Result<i64> {
    let refused = || {
        AuditError::Refused(format!(
            "{text:?} is no time; expected one such as 2026-11-22T10:00:00Z, 2026-11-22, or 24h for a day ago"
        ))
    };
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_microsecond());
    }
    if let Ok(day) = text.parse::<jiff::civil::Date>() {
        let begin = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| refused())?;
        return Ok(begin.timestamp().as_microsecond());
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let count: i64 = digits.parse().map_err(|_| refused())?;
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(refused()),
    };
    let ago = count.checked_mul(seconds).and_then(|ago| ago.checked_mul(1_000_000)).filter(|ago| *ago >= 0);
    let now = jiff::Timestamp::now().as_microsecond();
    ago.and_then(|ago| now.checked_sub(ago)).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_are_read_and_others_are_refused() {
        assert_eq!(parse_time("1970-01-01T00:00:01Z").unwrap(), 1_000_000);
        assert_eq!(parse_time("1970-01-02").unwrap(), 86_400_000_000);
        let ago = |time: jiff::Timestamp| time.as_microsecond() - 86_400_000_000;
        let earliest = ago(jiff::Timestamp::now());
        let day = parse_time("1d").unwrap();
        assert!((earliest..=ago(jiff::Timestamp::now())).contains(&day), "{day}");
        for wrong in ["", "yesterday", "5", "h", "-5h", "9999999999999999999d", "99999999999999d", "5w"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cursors_come_back() {
        let place = Place { at: -5, instance: "a.b:c".into(), seq: 7 };
        assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
        for wrong in ["", "1", "1:2", "1:2:", "x:2:a", "1:-2:a"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_the_log_says_of_itself_is_the_operators() {
        assert!(!Query::for_tenant("kids").with_log_entries().scope.all);
        assert!(Query::for_operator().with_log_entries().scope.all);
    }
}
