//! From log-probabilities to the masses of Yes and No.

use cluegate_perception::AnswerScore;

/// How many tokens of a vocabulary spell one word, case and leading space apart: more than any tokenizer of a judge that
/// we know of has.
const SPELLINGS: usize = 8;

/// A token with its log-probability, as an engine lists it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed {
    pub(crate) token: String,
    pub(crate) logprob: f64,
}

/// The ids of every token that spells Yes, and No.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spellings {
    pub(crate) yes: Vec<u32>,
    pub(crate) no: Vec<u32>,
}

/// No softmax over a vocabulary gives less; engines state it for tokens that they have cut off.
const CUT: f64 = -1000.0;

/// Why a list of log-probabilities is no answer.
pub(crate) type Missing = String;

/// The masses, if every id is listed.
pub(crate) fn by_ids(listed: &[Listed], spellings: &Spellings) -> Result<AnswerScore, Missing> {
    let mass = |ids: &[u32]| {
        let masses = ids.iter().map(|id| {
            let name = format!("token_id:{id}");
            let found = listed.iter().find(|one| one.token == name);
            let found = found.ok_or_else(|| {
                format!("expected the log-probability of token {id}, got those of {}", names(listed))
            });
            found.and_then(whole)
        });
        masses.sum::<Result<f64, Missing>>()
    };
    check(AnswerScore { yes: mass(&spellings.yes)?, no: mass(&spellings.no)? })
}

/// The masses by the most probable tokens. What spells Yes or No and is not among them is at most as probable as the last
/// of them; if the score could differ by more than `uncertainty` because of it, there is none.
pub(crate) fn by_words(listed: &[Listed], uncertainty: f64) -> Result<AnswerScore, Missing> {
    listed.iter().map(whole).sum::<Result<f64, Missing>>()?;
    let spelled = |word: &'static str| listed.iter().filter(move |one| spells(&one.token, word));
    let mass = |word: &'static str| spelled(word).map(|one| one.logprob.exp()).sum::<f64>();
    let score = check(AnswerScore { yes: mass("yes"), no: mass("no") })?;
    let least = listed.iter().map(|one| one.logprob).fold(f64::INFINITY, f64::min).exp();
    let rest = (1.0 - listed.iter().map(|one| one.logprob.exp()).sum::<f64>()).max(0.0);
    let unlisted =
        |word: &'static str| (SPELLINGS.saturating_sub(spelled(word).count()) as f64 * least).min(rest);
    let (more_yes, more_no) = (unlisted("yes"), unlisted("no"));
    let low = score.yes / (score.yes + score.no + more_no);
    let high = (score.yes + more_yes) / (score.yes + more_yes + score.no);
    // Without any mass both are no numbers, and no number is narrow.
    if (high - low).is_nan() || high - low > uncertainty {
        return Err(format!(
            "among the {} most probable tokens Yes has {:.2e} and No {:.2e}, so the score is anywhere from {low:.4} to \
             {high:.4}; ask for more tokens (top-tokens, and --max-logprobs at vLLM), or use an engine that takes token ids",
            listed.len(),
            score.yes,
            score.no,
        ));
    }
    Ok(score)
}

/// Whether a token is that word, whatever its case and leading space.
pub(crate) fn spells(token: &str, word: &str) -> bool {
    token
        .trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '\u{2581}' | '\u{120}'))
        .to_lowercase()
        == word
}

/// The probability of a token, unless others were given its share or it that of others.
fn whole(one: &Listed) -> Result<f64, Missing> {
    if one.logprob >= CUT {
        return Ok(one.logprob.exp());
    }
    Err(format!(
        "token {:?} has the log-probability {}: the engine cuts unlikely tokens off before it computes probabilities; \
         have it give those of the model (--logprobs-mode raw_logprobs at vLLM)",
        one.token, one.logprob
    ))
}

fn check(score: AnswerScore) -> Result<AnswerScore, Missing> {
    // The sums of a rounded softmax may pass one by a little.
    let is_share = |mass: f64| (0.0..=1.001).contains(&mass);
    if is_share(score.yes) && is_share(score.no) && is_share(score.yes + score.no) {
        Ok(score)
    } else {
        Err(format!("expected probabilities of Yes and No from 0 to 1, got {} and {}", score.yes, score.no))
    }
}

fn names(listed: &[Listed]) -> String {
    let shown: Vec<String> = listed.iter().take(6).map(|one| format!("{:?}", one.token)).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn listed(all: &[(&str, f64)]) -> Vec<Listed> {
        all.iter().map(|(token, p)| Listed { token: (*token).to_owned(), logprob: p.ln() }).collect()
    }

    #[test]
    fn all_spellings_count() {
        let all = listed(&[("Yes", 0.5), (" yes", 0.1), ("▁NO", 0.2), ("Ġno", 0.1), ("None", 0.09999)]);
        let score = by_words(&all, 1e-3).unwrap();
        assert!((score.yes - 0.6).abs() < 1e-12 && (score.no - 0.3).abs() < 1e-12, "{score:?}");
    }

    #[test]
    fn a_token_that_is_not_listed_decides_nothing() {
        let sure = listed(&[("Yes", 0.9999), ("a", 1e-5), ("b", 1e-6)]);
        assert!(by_words(&sure, 1e-3).unwrap().ratio() > 0.999);
        let open = listed(&[("Yes", 0.3), ("a", 0.2), ("b", 0.1)]);
        assert!(by_words(&open, 1e-3).unwrap_err().contains("0.4286"), "{:?}", by_words(&open, 1e-3));
        let neither = listed(&[("the", 0.5), ("a", 0.3)]);
        assert!(by_words(&neither, 1e-3).is_err());
        assert!(by_words(&[], 1e-3).is_err());
    }

    #[test]
    fn a_missing_id_is_an_error() {
        let spellings = Spellings { yes: vec![7, 8], no: vec![9] };
        let all = listed(&[("token_id:7", 0.5), ("token_id:8", 0.25), ("token_id:9", 0.125)]);
        assert_eq!(by_ids(&all, &spellings).unwrap().ratio(), 0.75 / 0.875);
        assert!(by_ids(&all[..2], &spellings).unwrap_err().contains("token 9"));
    }

    #[test]
    fn no_number_is_no_answer() {
        for odd in [f64::NAN, f64::INFINITY, 3.0] {
            let all = vec![Listed { token: "Yes".to_owned(), logprob: odd }];
            assert!(by_words(&all, 1e-3).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_an_engine_has_cut_off_is_no_answer() {
        let all = [("Yes", 0.0), ("No", -9999.0), ("a", -9999.0)];
        let all = all.map(|(token, logprob)| Listed { token: token.to_owned(), logprob });
        assert!(by_words(&all, 1e-3).unwrap_err().contains("cuts"));
        let ids = all.map(|one| Listed {
            token: one.token.replace("Yes", "token_id:7").replace("No", "token_id:9"),
            ..one
        });
        let spellings = Spellings { yes: vec![7], no: vec![9] };
        assert!(by_ids(&ids, &spellings).unwrap_err().contains("cuts"));
        assert!(by_words(&listed(&[("Yes", 0.9), ("No", 0.9)]), 1e-3).is_err(), "more than there is");
    }

    proptest! {
        /// Whatever is cut off the end of a distribution, the score is as near as was promised.
        #[test]
        fn the_bound_holds(weights in proptest::collection::vec(1e-6f64..1.0, 4..40), cut in 1usize..40) {
            let total: f64 = weights.iter().sum();
            let words = ["Yes", "No", " yes", " no", "YES", "NO"];
            let all: Vec<(String, f64)> = weights.iter().enumerate()
                .map(|(i, w)| (words.get(i).map_or(format!("w{i}"), |w| (*w).to_owned()), w / total)).collect();
            let mass = |word: &str| all.iter().filter(|(t, _)| spells(t, word)).map(|(_, p)| p).sum::<f64>();
            let exact = mass("yes") / (mass("yes") + mass("no"));
            let mut sorted: Vec<Listed> =
                all.iter().map(|(token, p)| Listed { token: token.clone(), logprob: p.ln() }).collect();
            sorted.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
            sorted.truncate(cut);
            if let Ok(score) = by_words(&sorted, 0.01) {
                prop_assert!((score.ratio() - exact).abs() <= 0.01 + 1e-9);
            }
        }
    }
}
