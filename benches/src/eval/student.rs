//! The pre-filter: scenes of natural frequencies are labelled by the whole method, a student is distilled from the labels,
//! and what it lets go on is counted on pictures that it was not trained on.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Setting;
use super::report::rate;
use crate::page::{Page, doing};
use crate::table::Table;

/// The exit code of a labelling of which single pictures were refused; they have no label.
const SOME_REFUSED: i32 = 2;

/// Labels `count` scenes and tells of the student.
pub(super) fn page(setting: &Setting, count: usize, page: &mut Page) -> anyhow::Result<()> {
    doing("a student of the judge");
    let folder = setting.folder.join(format!("student-{count}"));
    let [natural, labels, head] = ["natural", "labels", "head"].map(|name| folder.join(name));
    if !natural.join("labels.csv").exists() {
        let mut draw = Command::new(&setting.program);
        draw.args(["eval", "mini-natural", "--style", setting.style.name(), "--count", &count.to_string()]);
        run(setting, draw.arg("--out").arg(&natural), 0)?;
    }
    let mut label = Command::new(&setting.program);
    label
        .arg("label")
        .arg(&natural)
        .args(["--constitution", "scene", "--format", "json", "--out"])
        .arg(&labels);
    let labelled = run(setting, label.arg("--models").arg(&setting.suite), SOME_REFUSED)?;
    let mut distill = Command::new(&setting.program);
    distill.arg("distill").arg("--labels").arg(&labels).arg("--out").arg(&head).args(["--format", "json"]);
    let distilled = run(setting, distill.arg("--models").arg(&setting.suite), 0)?;
    let held = &distilled["card"]["held_out"];
    let number = |value: &Value, name: &str| {
        value[name].as_f64().with_context(|| format!("expected the number {name}, found {value}"))
    };
    page.heading("A student as a pre-filter")?;
    page.text(&format!(
        "Distilled from the verdicts on {:.0} scenes of natural frequencies, {:.0} of them unsafe, {:.0} refused; counted on the \
         {:.0} that were held out. Recall is that of CLUE's verdicts, and its bound holds with 95 %.",
        number(&labelled, "labelled")?,
        number(&labelled, "unsafe_pictures")?,
        number(&labelled, "failed")?,
        number(held, "pictures")?
    ))?;
    let mut table = Table::new(&["student", "share"]);
    for (name, figure) in [
        ("recall", "recall"),
        ("recall at least", "recall_lower_bound"),
        ("pictures that go on to CLUE", "sent_on"),
    ] {
        table.row(name, [rate(Some(number(held, figure)?))]);
    }
    page.table(table)
}

/// What a command of the program prints, which ends with 0 or `also`.
fn run(setting: &Setting, command: &mut Command, also: i32) -> anyhow::Result<Value> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("starting {}", setting.program.display()))?;
    let ended = output.status.code().is_some_and(|code| code == 0 || code == also);
    ensure!(ended, "{command:?} ended with {}; its message stands above", output.status);
    // What draws prints a sentence, the others JSON.
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
}
