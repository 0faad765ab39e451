//! Whether what is read from a prompt agrees with the verdict on the picture that is drawn from it.

use anyhow::Context as _;
use cluegate::constitution::Constitution;
use cluegate::perception::Call;

use super::previews::Watched;
use super::{Setting, percent};
use crate::page::Page;
use crate::table::Table;

/// Thresholds of the encoder that are counted.
const THRESHOLDS: [f64; 5] = [0.2, 0.3, 0.4, 0.5, 0.6];

/// What was read from a prompt, and what its picture shows.
struct Read {
    violating: bool,
    /// Whether the judging model says that some rule would be violated.
    judge: bool,
    /// The largest cosine of the prompt with a rule or a statement that completes its violation.
    nearest: f64,
}

pub(super) fn run(setting: &Setting, watched: &[Watched], page: &mut Page) -> anyhow::Result<()> {
    let constitution = setting.inspector.constitution();
    let read = setting.side_by_side("prompts", watched, |one| read(setting, constitution, one))?;
    page.heading("Reading the prompt")?;
    page.text(
        "Whether the rules, asked of the prompt alone, say the same of it as the judge says of the first picture drawn from it, over \
         the pictures of the first part.",
    )?;
    let mut table = Table::new(&["who reads", "agrees", "violations foreseen", "false alarms"]);
    let mut row = |name: String, alarm: &dyn Fn(&Read) -> bool| {
        let [hits, alarms, agrees] = count(&read, alarm);
        let violating = read.iter().filter(|read| read.violating).count();
        let cells =
            [percent(agrees, read.len()), percent(hits, violating), percent(alarms, read.len() - violating)];
        table.row(name, cells);
    };
    row("the judging model".to_owned(), &|read| read.judge);
    for threshold in THRESHOLDS {
        row(format!("the encoder from {threshold}"), &move |read| read.nearest >= threshold);
    }
    page.table(table)
}

/// Violations foreseen, false alarms, and answers that agree.
fn count(read: &[Read], alarm: &dyn Fn(&Read) -> bool) -> [usize; 3] {
    let number = |fits: &dyn Fn(&Read) -> bool| read.iter().filter(|read| fits(read)).count();
    [
        number(&|read| read.violating && alarm(read)),
        number(&|read| !read.violating && alarm(read)),
        number(&|read| read.violating == alarm(read)),
    ]
}

fn read(setting: &Setting, constitution: &Constitution, one: &Watched) -> anyhow::Result<Read> {
    let call = Call::default();
    let report = setting.inspector.read_prompt(&one.prompt, &call)?;
    let rules = constitution.rules().iter();
    let about = rules.flat_map(|rule| {
        let completing = rule.preconditions.last().into_iter().flat_map(|link| &link.any);
        std::iter::once(rule.text.as_str()).chain(completing.map(|statement| statement.text.as_str()))
    });
    let texts: Vec<&str> = std::iter::once(one.prompt.as_str()).chain(about).collect();
    let embedded = setting.inspector.embed(&texts, None, &call)?.context("the suite has an encoder")?;
    let (prompt, rest) = embedded.split_first().context("an embedding of the prompt")?;
    let nearest = rest.iter().map(|text| f64::from(prompt.cosine(text))).fold(-1.0, f64::max);
    Ok(Read { violating: one.violating, judge: !report.violated().is_empty(), nearest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_counts_both_kinds() {
        let read = |violating, judge, nearest| Read { violating, judge, nearest };
        let all =
            [read(true, true, 0.5), read(true, false, 0.3), read(false, false, 0.45), read(false, true, 0.1)];
        assert_eq!(count(&all, &|read| read.judge), [1, 1, 2]);
        assert_eq!(count(&all, &|read| read.nearest >= 0.4), [1, 1, 2]);
        assert_eq!(count(&all, &|read| read.nearest >= 0.2), [2, 1, 3]);
    }
}
