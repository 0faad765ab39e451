//! What is left of the violating pictures once the gate has redacted them.

use std::sync::Arc;

use cluegate::gate::{Gate, Instruction, MemoryLog, Policies, Reason, RequestInfo};
use cluegate::perception::Picture;

use super::previews::Watched;
use super::{Figures, SCENE, Setting, mean, percent, share};
use crate::page::Page;
use crate::table::Table;

/// What became of the pictures.
#[derive(Debug, Default)]
struct Hidden {
    pictures: usize,
    /// Released with the first boxes, and with the wider ones.
    released: [usize; 2],
    /// Withheld because it violates a rule still, or nothing could be hidden.
    withheld: usize,
    /// Without a verdict.
    failed: usize,
    violating: usize,
    /// Share of the pixels that differ, of released ones.
    changed: Vec<f64>,
}

pub(super) fn run(
    setting: &Setting,
    watched: &[Watched],
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let text =
        format!("[tenant.hides]\nconstitution = \"{SCENE}\"\n[tenant.hides.action]\ndefault = \"redact\"\n");
    let policies = Policies::from_toml(&text, "the benchmark's policy")?;
    let gate = Gate::new(&policies, setting.engine.judges(), Arc::new(MemoryLog::new(1)))?;
    let mut hidden = Hidden::default();
    let violating: Vec<&Watched> = watched.iter().filter(|one| one.violating).collect();
    let told = setting.side_by_side("pictures", &violating, |one| {
        let mut session = gate.session(RequestInfo::new("hides", one.prompt.as_str(), 0, 1))?;
        let told = session.finished(0, one.picture.clone())?;
        let violates = match &told {
            Instruction::Release(released) => setting.violations(released.picture())?,
            _ => 0,
        };
        Ok((told, violates))
    })?;
    for (one, (told, violates)) in violating.into_iter().zip(told) {
        hidden.pictures += 1;
        hidden.violating += violates;
        match told {
            Instruction::Release(released) => {
                let rounds =
                    released.decision().attempts.last().map_or(0, |attempt| attempt.redactions.len());
                hidden.released[usize::from(rounds > 1)] += 1;
                hidden.changed.push(changed(&one.picture, released.picture()));
            }
            Instruction::Withhold(withheld) if withheld.reason() == Reason::RedactionFailed => {
                hidden.withheld += 1;
            }
            _ => hidden.failed += 1,
        }
    }
    let clean: usize = hidden.released.iter().sum();
    page.heading("Redaction")?;
    page.text(
        "The violating pictures of the first part, under the default policy with `action.default = \"redact\"`: boxes of the \
         decisive objects are pixelated, then, where that does not do, wider ones of all objects; each result is judged by the \
         whole constitution.",
    )?;
    let mut table = Table::new(&[
        "pictures",
        "clean at once",
        "clean when widened",
        "withheld",
        "no verdict",
        "violating",
        "changed",
    ]);
    table.row(
        hidden.pictures.to_string(),
        [
            percent(hidden.released[0], hidden.pictures),
            percent(hidden.released[1], hidden.pictures),
            percent(hidden.withheld, hidden.pictures),
            percent(hidden.failed, hidden.pictures),
            hidden.violating.to_string(),
            format!("{:.1} %", 100.0 * mean(hidden.changed.iter().copied())),
        ],
    );
    page.table(table)?;
    figures.redacted_clean = share(clean, hidden.pictures);
    figures.violating_released += hidden.violating;
    Ok(())
}

/// Share of the pixels in which two pictures of one size differ.
fn changed(before: &Picture, after: &Picture) -> f64 {
    let pairs = before.pixels().pixels().zip(after.pixels().pixels());
    let (all, other) =
        pairs.fold((0_usize, 0_usize), |(all, other), (a, b)| (all + 1, other + usize::from(a != b)));
    share(other, all)
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn the_share_of_changed_pixels_is_counted() {
        let before = Picture::new(RgbImage::new(10, 10));
        let mut pixels = before.pixels().clone();
        (0..5).for_each(|x| pixels.put_pixel(x, 3, Rgb([1, 0, 0])));
        assert!((changed(&before, &Picture::new(pixels)) - 0.05).abs() < 1e-12);
        assert_eq!(changed(&before, &before), 0.0);
    }
}
