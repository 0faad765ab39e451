//! A whole prompt as it stands: the contract for comparison with any other implementation.

use anyhow::{Context, bail, ensure};
use cluegate_models::language::LanguageModel;
use serde::Serialize;

use super::super::args::{Format, ProbeArgs};
use super::super::{say, say_json};
use super::{judge, picture};

/// What comes out.
#[derive(Serialize)]
struct Answer {
    /// Share of the first answer in the probability of both, 0 to 1.
    score: f64,
    /// What the language model read, the picture's places included.
    token_ids: Vec<u32>,
    /// The most probable next tokens.
    top: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    logit: f32,
    /// `None` for ids that the model has room for and the tokenizer does not use.
    text: Option<String>,
}

pub(super) fn run(prompt: &str, arguments: &ProbeArgs) -> anyhow::Result<()> {
    let [first, second] = words(&arguments.answers)?;
    let picture = picture(arguments)?;
    let model = judge(arguments)?;
    let spell = |word: &str| {
        let word = word.to_lowercase();
        model.tokenizer().spellings(&word).with_context(|| format!("--answers: {word:?}"))
    };
    let (first_ids, second_ids) = (spell(first)?, spell(second)?);
    let probe = model.probe(prompt, picture.as_ref())?;
    let mass = probe.score(&first_ids, &second_ids);
    let score = mass.ratio();
    ensure!(
        score.is_finite(),
        "expected a probability of {first} or of {second} above zero, got {} and {}",
        mass.yes,
        mass.no
    );
    let top = probe.top(arguments.top).into_iter();
    let top = top.map(|(id, logit)| Token { id, logit, text: text(&model, id) }).collect();
    let answer = Answer { score, token_ids: probe.token_ids, top };
    match arguments.format {
        Format::Json => say_json(&answer)?,
        Format::Text => {
            say(format_args!("score {score:.6}, the share of {first} in {first} and {second}"))?;
            say(format_args!("{} tokens", answer.token_ids.len()))?;
            say("   logit      id  next token")?;
            for Token { id, logit, text } in &answer.top {
                let shown = text.as_ref().map_or("(unused)".to_owned(), |text| format!("{text:?}"));
                say(format_args!("{logit:8.4}  {id:6}  {shown}"))?;
            }
        }
    }
    Ok(())
}

/// The two answers, each a word of which there may be a token.
fn words(answers: &[String]) -> anyhow::Result<[&str; 2]> {
    let [first, second] = answers else {
        bail!("--answers: expected two words with a comma between them, got {}: Yes,No", answers.len())
    };
    for word in [first, second] {
        ensure!(
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "--answers: expected a word of letters a to z and digits, got {word:?}"
        );
    }
    ensure!(
        !first.eq_ignore_ascii_case(second),
        "--answers: expected two different words, got {first:?} twice; case makes no difference"
    );
    Ok([first, second])
}

/// How a token reads; control tokens by their names.
fn text(model: &LanguageModel, id: u32) -> Option<String> {
    let name = model.tokenizer().text(id).ok()?;
    match model.tokenizer().decode(&[id]) {
        Ok(text) if !text.is_empty() => Some(text),
        _ => Some(name),
    }
}
