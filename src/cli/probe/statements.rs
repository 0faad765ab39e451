//! Single statements, asked as the judge asks them: for whoever words a rule.

use anyhow::ensure;
use cluegate_judge::Templates;
use cluegate_perception::{Call, Picture, Prompt, VisionLanguageModel};
use serde::Serialize;

use super::super::args::{Format, ProbeArgs};
use super::super::{say, say_json};
use super::{judge, picture};

#[derive(Serialize)]
struct Row<'a> {
    statement: &'a str,
    score: f64,
    score_without_image: f64,
}

pub(super) fn run(arguments: &ProbeArgs) -> anyhow::Result<()> {
    ensure!(
        arguments.statement.iter().all(|statement| !statement.trim().is_empty()),
        "expected a statement about the picture, got a blank one; write --statement 'a cat is visible'"
    );
    let picture = picture(arguments)?;
    let model = judge(arguments)?;
    let templates = Templates::shipped()?;
    let with = scores(&model, &templates, picture, &arguments.statement)?;
    let without = scores(&model, &templates, None, &arguments.statement)?;
    let rows: Vec<Row<'_>> = arguments
        .statement
        .iter()
        .zip(with.iter().zip(without))
        .map(|(statement, (&score, score_without_image))| Row { statement, score, score_without_image })
        .collect();
    match arguments.format {
        Format::Json => say_json(&rows)?,
        Format::Text => {
            say("score  without image  statement")?;
            for row in &rows {
                say(format_args!(
                    "{:.3}  {:.3}          {}",
                    row.score, row.score_without_image, row.statement
                ))?;
            }
        }
    }
    Ok(())
}

fn scores(
    model: &dyn VisionLanguageModel,
    templates: &Templates,
    picture: Option<Picture>,
    statements: &[String],
) -> anyhow::Result<Vec<f64>> {
    let prefix = templates.statement_prefix(picture);
    let prompts: Vec<Prompt> = statements
        .iter()
        .map(|statement| Prompt::new(prefix.clone(), templates.statement_suffix(statement)))
        .collect();
    let answers = model.score(&prompts, &Call::default())?;
    let ratios = statements.iter().zip(&answers).map(|(statement, answer)| {
        let ratio = answer.ratio();
        ensure!(
            ratio.is_finite(),
            "expected a probability of Yes or of No above zero for {statement:?}, got {} and {}",
            answer.yes,
            answer.no
        );
        Ok(ratio)
    });
    ratios.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use cluegate_perception::{AnswerScore, Completion, CompletionRequest, Fingerprint};

    use super::super::super::args::{Cli, Command};
    use super::*;

    /// Gives neither answer any probability.
    struct Silent;

    impl VisionLanguageModel for Silent {
        fn fingerprint(&self) -> &Fingerprint {
            const { &Fingerprint::new() }
        }

        fn score(&self, prompts: &[Prompt], _: &Call) -> cluegate_perception::Result<Vec<AnswerScore>> {
            Ok(prompts.iter().map(|_| AnswerScore { yes: 0.0, no: 0.0 }).collect())
        }

        fn complete(
            &self,
            _: &[CompletionRequest],
            _: &Call,
        ) -> cluegate_perception::Result<Vec<Completion>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn no_answer_is_no_score() {
        let templates = Templates::shipped().unwrap();
        let error = scores(&Silent, &templates, None, &["a cat is visible".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("a cat is visible"), "{error}");
    }

    #[test]
    fn a_blank_statement_is_refused_before_anything_is_loaded() {
        use clap::Parser;
        let line = ["cluegate", "probe", "--image", "nowhere.png", "--statement", " "];
        let Command::Probe(arguments) = Cli::parse_from(line).command else {
            unreachable!("that is what the line says")
        };
        assert!(run(&arguments).unwrap_err().to_string().contains("blank"));
    }
}
