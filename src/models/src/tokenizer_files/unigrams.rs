//! Unigrams: the model file of SentencePiece in SigLIP.

use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Replace, Sequence};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, Tokenizer};

use super::sentencepiece::{Kind, Model};
use crate::error::{ModelError, Result};

/// Turns the bytes of a model file into a tokenizer (`SpmConverter` in `convert_slow_tokenizer.py` of transformers 4.49),
/// which puts a space before a text that has none, and no special tokens around it.
///
/// # Errors
/// `Tokenizer` for bytes that are no model, `Unsupported` for one that is not of unigrams or that would be read wrongly.
pub(super) fn convert(path: &str, bytes: &[u8]) -> Result<Tokenizer> {
    let model = Model::parse(path, bytes)?;
    refuse_others(path, &model)?;
    let broken =
        |e: &dyn std::fmt::Display| ModelError::tokenizer(path, format!("not a SentencePiece model: {e}"));
    let unknown = model.pieces.iter().position(|piece| piece.kind == Kind::Unknown);
    let vocabulary = model.pieces.iter().map(|piece| (piece.text.clone(), f64::from(piece.score))).collect();
    let mut tokenizer = Tokenizer::new(Unigram::from(vocabulary, unknown, false).map_err(|e| broken(&e))?);
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if !model.charsmap.is_empty() {
        steps.push(Precompiled::from(&model.charsmap).map_err(|e| broken(&e))?.into());
    }
    let spaces = ReplacePattern::Regex(" {2,}".to_owned());
    steps.push(Replace::new(spaces, " ").map_err(|e| broken(&e))?.into());
    tokenizer.with_normalizer(Some(Sequence::new(steps))).map_err(|e| broken(&e))?;
    tokenizer.with_pre_tokenizer(Some(Metaspace::new('\u{2581}', PrependScheme::Always, true)));
    let marks = model.pieces.iter().filter(|piece| matches!(piece.kind, Kind::Control | Kind::Unknown));
    let marks: Vec<_> =
        marks.map(|piece| AddedToken::from(piece.text.clone(), true).normalized(false)).collect();
    tokenizer.add_special_tokens(marks).map_err(|e| broken(&e))?;
    Ok(tokenizer)
}

fn refuse_others(path: &str, model: &Model) -> Result<()> {
    let others = |piece: &super::sentencepiece::Piece| {
        matches!(piece.kind, Kind::UserDefined | Kind::Unused | Kind::Byte)
    };
    let refused = [
        (model.kind != 1, "SentencePiece model", "words, characters or byte pairs", "unigrams"),
        (model.pieces.iter().any(others), "pieces", "user-defined ones, unused ones or bytes", "others"),
        (model.byte_fallback, "byte_fallback", "true", "false"),
        (model.space_last, "treat_whitespace_as_suffix", "true", "false"),
        (!model.space_first, "add_dummy_prefix", "false", "true"),
        (!model.strip_spaces, "remove_extra_whitespaces", "false", "true"),
        (!model.escape_spaces, "escape_whitespaces", "false", "true"),
    ];
    match refused.into_iter().find(|(holds, ..)| *holds) {
        None => Ok(()),
        Some((_, what, found, supported)) => {
            let supported = format!("{supported} (or a file tokenizer.json)");
            Err(ModelError::unsupported(path, what, found, supported))
        }
    }
}
