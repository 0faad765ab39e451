//! A person goes through the rules: accept, edit or reject each.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use cluegate_compiler::grammar::read_preconditions;
use cluegate_compiler::review::{self, Colours};
use cluegate_compiler::{Compilation, Compiled, Decision, Review, Reviews};
use cluegate_constitution::Severity;

/// How a rule is edited: in the editor that the environment names, or by typing its chain.
pub(super) struct Editor {
    command: Option<OsString>,
    folder: PathBuf,
}

impl Editor {
    /// `VISUAL`, else `EDITOR`, else none. Files to edit lie in `folder` for as long as that takes.
    pub(super) fn from_env(folder: &Path) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Self { command: set("VISUAL").or_else(|| set("EDITOR")), folder: folder.to_owned() }
    }

    /// `text` as the editor leaves it.
    fn edit(&self, command: &OsString, id: &str, text: &str) -> anyhow::Result<String> {
        let path = self.folder.join(format!("{id}.edit.toml"));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        // As other tools do: the variable may hold arguments.
        let status = Command::new("sh")
            .arg("-c")
            .arg([command.to_string_lossy().as_ref(), " \"$1\""].concat())
            .arg("sh")
            .arg(&path)
            .status();
        let edited = std::fs::read_to_string(&path);
        let _ = std::fs::remove_file(&path);
        let status = status.context("cannot start the editor")?;
        ensure!(status.success(), "the editor ended with {status}");
        edited.context("cannot read what was edited")
    }
}

/// Asks about each rule that nobody decided on. Whoever leaves early leaves the rest undecided.
pub(super) fn review(
    compilation: &Compilation,
    reviews: &mut Reviews,
    colours: Colours,
    editor: &Editor,
    (input, out): (&mut dyn BufRead, &mut dyn Write),
) -> anyhow::Result<()> {
    let open: Vec<&Compiled> =
        compilation.compiled.iter().filter(|rule| !reviews.contains_key(&rule.id)).collect();
    let mut all = false;
    for (index, rule) in open.iter().enumerate() {
        write!(out, "\n{} of {}  {}", index + 1, open.len(), review::rule(rule, None, colours))?;
        let (decision, edited) = loop {
            if all {
                break (Decision::Accepted, None);
            }
            write!(out, "[a]ccept, [e]dit, [r]eject, accept a[l]l that follow, [q]uit? ")?;
            out.flush()?;
            let Some(answer) = line(input)? else { return Ok(()) };
            match answer.as_str() {
                "a" | "accept" => break (Decision::Accepted, None),
                "r" | "reject" => break (Decision::Rejected, None),
                "l" | "all" => all = true,
                "q" | "quit" => return Ok(()),
                "e" | "edit" => match edit(rule, editor, (&mut *input, &mut *out)) {
                    Ok(Some(text)) => break (Decision::Edited, Some(text)),
                    Ok(None) => writeln!(out, "nothing was changed")?,
                    Err(error) => writeln!(out, "not taken: {error:#}")?,
                },
                other => writeln!(out, "expected a, e, r, l or q, got {other:?}")?,
            }
        };
        reviews.insert(rule.id.clone(), Review { decision, proposal: rule.digest(), edited });
    }
    Ok(())
}

/// A line of the reviewer's; `None` at the end of the input.
fn line(input: &mut dyn BufRead) -> anyhow::Result<Option<String>> {
    let mut line = String::new();
    Ok((input.read_line(&mut line)? > 0).then(|| line.trim().to_owned()))
}

/// The rule in the reviewer's words, once a constitution takes it; `None` if it is as it was.
fn edit(
    rule: &Compiled,
    editor: &Editor,
    (input, out): (&mut dyn BufRead, &mut dyn Write),
) -> anyhow::Result<Option<String>> {
    let before = rule.to_toml();
    let after = match &editor.command {
        Some(command) => editor.edit(command, &rule.id, &before)?,
        None => typed(rule, (input, out))?.to_toml(),
    };
    if after == before {
        return Ok(None);
    }
    Compiled::check_edited(&after)?;
    Ok(Some(after))
}

/// Asks for another chain and another severity on the terminal.
fn typed(rule: &Compiled, (input, out): (&mut dyn BufRead, &mut dyn Write)) -> anyhow::Result<Compiled> {
    let formula = rule.formula();
    writeln!(out, "No editor is set (VISUAL, EDITOR). The chain is\n  {formula}")?;
    write!(out, "another chain in that form, or nothing to keep it: ")?;
    out.flush()?;
    let mut changed = rule.clone();
    if let Some(answer) = line(input)?.filter(|answer| !answer.is_empty()) {
        changed = rule.with_formula(&read_preconditions(&answer)?.value);
    }
    write!(out, "another severity than {}, or nothing to keep it: ", rule.severity.as_str())?;
    out.flush()?;
    if let Some(answer) = line(input)?.filter(|answer| !answer.is_empty()) {
        let found = Severity::ALL.into_iter().find(|severity| severity.as_str() == answer);
        changed.severity =
            found.with_context(|| format!("expected low, medium, high or critical, got {answer:?}"))?;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use cluegate_cache::Cache;
    use cluegate_compiler::{Compiler, Options, Recording, Templates};

    use super::*;

    const PROSE: &str = "- No cats.\n- No dogs.\n- No pigs.\n";

    /// Three rules of one statement each.
    fn compilation() -> Compilation {
        let templates = Templates::shipped().unwrap();
        let mut answers = BTreeMap::new();
        loop {
            let recording = Recording::new("test", answers.clone());
            let cache = Cache::in_memory();
            let compilation = Compiler::new(&recording, &templates, &cache, Options::default())
                .compile(PROSE, &|| {})
                .unwrap();
            let open = recording.missing().exchanges;
            if open.is_empty() {
                return compilation;
            }
            for exchange in open {
                let name = ["cats", "dogs", "pigs"].into_iter().find(|name| {
                    exchange.prompt.rsplit('>').nth(1).is_some_and(|quoted| quoted.contains(name))
                });
                let name = name.unwrap();
                let answer = if exchange.prompt.contains("Now rate") {
                    "Plain.\nRating: 9".to_owned()
                } else if exchange.prompt.contains("Now take") {
                    format!("[{name} are visible]")
                } else {
                    name.to_owned()
                };
                answers.insert(exchange.prompt, answer);
            }
        }
    }

    fn answered(typed: &str, command: Option<&str>) -> (Vec<(String, Decision, Option<String>)>, String) {
        let folder = tempfile::tempdir().unwrap();
        let editor = Editor { command: command.map(Into::into), folder: folder.path().to_owned() };
        let (mut reviews, mut out) = (Reviews::new(), Vec::new());
        let mut input = typed.as_bytes();
        review(&compilation(), &mut reviews, Colours(false), &editor, (&mut input, &mut out)).unwrap();
        // Nothing that was edited is left behind.
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        let reviews = reviews.into_iter().map(|(id, review)| (id, review.decision, review.edited));
        (reviews.collect(), String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_person_decides_on_each_rule() {
        let (reviews, out) = answered("what?\na\nr\nq\n", None);
        let decided: Vec<(&str, Decision)> = reviews.iter().map(|(id, d, _)| (id.as_str(), *d)).collect();
        assert_eq!(decided, [("cats", Decision::Accepted), ("dogs", Decision::Rejected)]);
        assert!(
            out.contains("3 of 3  pigs") && out.contains("expected a, e, r, l or q, got \"what?\""),
            "{out}"
        );
        assert_eq!(answered("l\n", None).0.len(), 3);
        assert_eq!(answered("", None).0.len(), 0);
    }

    #[test]
    fn a_chain_and_a_severity_are_typed() {
        let (reviews, out) =
            answered("e\n[cats are visible\ne\n\n\ne\n[cats are visible] and [it snows]\nhigh\nq\n", None);
        let (id, decision, edited) = &reviews[0];
        assert_eq!((id.as_str(), *decision, reviews.len()), ("cats", Decision::Edited, 1));
        let edited = edited.as_ref().unwrap();
        for part in ["severity = \"high\"", "statement = \"it snows\" }", "central = [\"cats\"]"] {
            assert!(edited.contains(part), "{edited}");
        }
        assert!(out.contains("not taken: expected a statement and its closing bracket"), "{out}");
        assert!(out.contains("nothing was changed"), "{out}");
    }

    #[cfg(unix)]
    #[test]
    fn a_rule_is_edited_in_the_editor() {
        let (reviews, _) = answered("e\nq\n", Some("sed -i s/medium/critical/"));
        assert!(reviews[0].2.as_ref().unwrap().contains("severity = \"critical\""));
        let (reviews, out) = answered("e\nq\n", Some("sed -i s/medium/grave/"));
        assert!(reviews.is_empty() && out.contains("expected severity low, medium"), "{out}");
        let (reviews, out) = answered("e\nq\n", Some("false"));
        assert!(reviews.is_empty() && out.contains("the editor ended with"), "{out}");
    }
}
