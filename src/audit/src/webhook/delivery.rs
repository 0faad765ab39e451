//! The thread that hands entries over: batches, tries, pauses, dead letters.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use serde_json::json;

use super::sending::Sent;
use super::{Stream, Webhook};
use crate::chain::Placed;
use crate::entry::Line;
use crate::error::{AuditError, Result};
use crate::progress::Progress;

/// How often chains are looked at that nobody in this process writes.
const LOOK: Duration = Duration::from_secs(5);
/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Hands the durable log over to a receiver.
pub(crate) struct Delivery {
    webhook: Webhook,
    progress: Arc<Progress>,
}

/// How the delivery of a batch ended.
enum Ended {
    /// The receiver has it, or it is among the dead letters.
    Done,
    /// The log is being closed.
    Closing,
}

impl Delivery {
    pub(crate) fn new(webhook: Webhook, progress: Arc<Progress>) -> Self {
        Self { webhook, progress }
    }

    /// Delivers until the log is closed.
    pub(crate) fn run(mut self) {
        let mut streams = std::mem::take(&mut self.webhook.streams);
        while !self.progress.ended() {
            let mut moved = false;
            for stream in &mut streams {
                match self.deliver_next(stream) {
                    Ok(more) => moved |= more,
                    Err(problem) => {
                        tracing::error!(%problem, "the webhook is behind");
                        metrics::counter!("cluegate_log_webhook_failures_total").increment(1);
                        self.progress.wait_for_end(FIRST_PAUSE);
                    }
                }
            }
            if !moved {
                let own = streams.iter().find(|stream| stream.own).map_or(0, |stream| stream.cursor.seq);
                self.progress.wait_beyond(own, LOOK);
            }
        }
    }

    /// Delivers one batch of a chain; says whether there was one.
    fn deliver_next(&self, stream: &mut Stream) -> Result<bool> {
        let settings = &self.webhook.settings;
        let durable = if stream.own { self.progress.seq() } else { u64::MAX };
        if durable <= stream.cursor.seq {
            return Ok(false);
        }
        let mut entries = stream.source.behind(stream.cursor.seq, settings.batch)?;
        entries.retain(|entry| entry.link.seq <= durable);
        let Some(first) = entries.first() else { return Ok(false) };
        if first.link.seq > stream.cursor.seq + 1 {
            self.report_gap(stream, first.link.seq)?;
        }
        let bodies: Vec<String> = entries.iter().map(|entry| self.body_of(entry)).collect::<Result<_>>()?;
        let mut bytes = 0;
        let fits = bodies.iter().take_while(|body| {
            bytes += body.len() + 1;
            bytes <= settings.batch_bytes
        });
        let count = fits.count().max(1);
        let lag = durable.min(u64::MAX - 1).saturating_sub(stream.cursor.seq);
        if stream.own {
            metrics::gauge!("cluegate_log_webhook_lag_entries").set(lag as f64);
        }
        self.deliver(stream, &entries[..count], &bodies[..count])?;
        Ok(true)
    }

    /// Delivers a batch, in halves if the receiver does not take it whole.
    fn deliver(&self, stream: &mut Stream, entries: &[Placed], bodies: &[String]) -> Result<Ended> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(Ended::Done) };
        let id = format!("{}:{}-{}", first.link.instance, first.link.seq, last.link.seq);
        let body = format!("[{}]", bodies.join(","));
        let settings = &self.webhook.settings;
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        let refusal = loop {
            let (problem, asked) = match self.webhook.sender.send(&id, &body) {
                Sent::Accepted => {
                    metrics::counter!("cluegate_log_webhook_entries_total").increment(entries.len() as u64);
                    return self.advance(stream, last);
                }
                Sent::Unacceptable(_) if entries.len() > 1 => {
                    let half = entries.len() / 2;
                    return match self.deliver(stream, &entries[..half], &bodies[..half])? {
                        Ended::Done => self.deliver(stream, &entries[half..], &bodies[half..]),
                        Ended::Closing => Ok(Ended::Closing),
                    };
                }
                Sent::Unacceptable(problem) => break problem,
                Sent::Later(problem, asked) => (problem, asked),
            };
            metrics::counter!("cluegate_log_webhook_retries_total").increment(1);
            tracing::warn!(batch = %id, attempt, %problem, "the webhook did not take a batch");
            if attempt >= settings.attempts {
                break problem;
            }
            attempt += 1;
            let longest = Duration::from_millis(settings.backoff_ms);
            // Full jitter would at times not wait at all, and hammer a server that is getting up.
            let by_chance = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
            self.progress.wait_for_end(by_chance.max(asked.unwrap_or_default()).min(longest));
            if self.progress.ended() {
                return Ok(Ended::Closing);
            }
            pause = (pause * 2).min(longest);
        };
        self.bury(&id, &refusal, bodies)?;
        self.advance(stream, last)
    }

    fn advance(&self, stream: &mut Stream, last: &Placed) -> Result<Ended> {
        stream.cursor.seq = last.link.seq;
        stream.keep()?;
        Ok(Ended::Done)
    }

    /// Appends a batch to the dead letters.
    fn bury(&self, id: &str, problem: &str, bodies: &[String]) -> Result<()> {
        tracing::error!(batch = %id, %problem, entries = bodies.len(), "a batch goes to the dead letters of the webhook");
        metrics::counter!("cluegate_log_webhook_dead_total").increment(bodies.len() as u64);
        let mut lines = String::new();
        for body in bodies {
            let head = json!({ "batch": id, "problem": problem, "time": jiff::Timestamp::now().to_string() });
            // The entry stays the text that it is.
            lines.push_str(head.to_string().trim_end_matches('}'));
            lines.push_str(",\"entry\":");
            lines.push_str(body);
            lines.push_str("}\n");
        }
        self.append_dead(&lines)
    }

    /// Entries were removed before the receiver had them.
    fn report_gap(&self, stream: &Stream, found: u64) -> Result<()> {
        let (from, to) = (stream.cursor.seq + 1, found - 1);
        let instance = &stream.cursor.instance;
        tracing::error!(%instance, from, to, "entries are missing between the webhook and the log; were files moved away?");
        metrics::counter!("cluegate_log_webhook_missing_total").increment(found - from);
        let line = json!({ "missing": { "instance": instance, "from": from, "to": to },
                           "time": jiff::Timestamp::now().to_string() });
        self.append_dead(&format!("{line}\n"))
    }

    fn append_dead(&self, lines: &str) -> Result<()> {
        let path = self.webhook.folder.join("dead-letters.jsonl");
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(AuditError::io(&path, "opened"))?;
        let size = file.metadata().map_err(AuditError::io(&path, "read"))?.len();
        let most = self.webhook.settings.dead_letter_bytes;
        if size + lines.len() as u64 > most {
            let problem =
                format!("{most} bytes of dead letters are reached; move the file away, and delivery goes on");
            return Err(AuditError::content(&path, problem));
        }
        file.write_all(lines.as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(AuditError::io(&path, "written"))
    }

    /// What is sent of an entry.
    fn body_of(&self, placed: &Placed) -> Result<String> {
        if self.webhook.settings.erasable_parts {
            return Ok(placed.text.clone());
        }
        match Line::parse(placed.text.as_bytes())? {
            Line::Entry(mut entry) => {
                entry.erase();
                serde_json::to_string(&entry).map_err(|problem| AuditError::Entry(problem.to_string()))
            }
            Line::Stub(_) => Ok(placed.text.clone()),
        }
    }
}
