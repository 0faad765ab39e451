//! Qwen2-VL: a vision-language model with dynamic picture sizes and rotary positions in time, row and column.
//!
//! Source: Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution"
//! (arXiv 2409.12191), and `models/qwen2_vl` in transformers 5.17, against which the golden tests hold this port.
//!
//! A picture and the constant beginning of the questions about it are computed once and remembered; many questions
//! then run as one batch against that beginning, and only the end of each is looked at.

mod cache;
mod config;
mod image;
mod prompt;
mod rope;
mod text;
mod vision;

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, ContentHash, Fingerprint, FinishReason, Picture,
    Prompt, VisionLanguageModel,
};

use self::cache::{PrefixCache, Remembered};
pub use self::config::{Config, TextConfig, VisionConfig};
pub use self::image::{ImageProcessor, Patches};
use self::prompt::{Grid, Prompter, Tokens, shared_length, with_features};
use self::text::{Decoder, KeyValues, Past};
use self::vision::VisionTower;
use crate::chat::{CHAT_FILES, ChatTemplate, ChatTokenizer, end_tokens};
use crate::cores::{Cores, IN_TURN};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::weights::Weights;

/// Buffers that older versions of transformers saved beside the weights.
const KNOWN_BUFFERS: &[&str] = &["rotary_emb.inv_freq", "rotary_pos_emb.inv_freq"];
/// Sequences remembered at a time, and their size: the pictures under judgment with their crops.
const MAX_REMEMBERED: usize = 32;
const MAX_REMEMBERED_BYTES: usize = 256 << 20;
/// Tokens of one batch of questions: enough to fill two cores; more only grows the buffers.
const BATCH_TOKENS_CPU: usize = 1024;
/// The same on an accelerator.
const BATCH_TOKENS: usize = 8192;
/// Tokens of a beginning that run at a time, which bounds the attention's scores.
const PREFILL_TOKENS: usize = 512;

/// A loaded Qwen2-VL checkpoint.
#[derive(Debug)]
pub struct Qwen2Vl {
    prompter: Prompter,
    processor: ImageProcessor,
    tower: VisionTower,
    decoder: Decoder,
    config: Config,
    yes: Vec<u32>,
    no: Vec<u32>,
    ends: Vec<u32>,
    cache: PrefixCache,
    cores: Cores,
    fingerprint: Fingerprint,
}

impl Qwen2Vl {
    /// Loads a checkpoint from a folder in Hugging Face layout. Weights are converted to `dtype`.
    ///
    /// # Errors
    /// A missing or malformed file, a missing, misshapen or unknown tensor, an unsupported configuration, a
    /// tokenizer without a token for Yes or No: each a [`ModelError`] that names it.
    pub fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Self> {
        let config = Config::load(tree)?;
        let template = ChatTemplate::load(tree)?;
        let tokenizer = ChatTokenizer::load(tree)?;
        if tokenizer.size() > config.text.vocabulary {
            return Err(ModelError::tokenizer(
                tokenizer.path(),
                format!("{} tokens, config.json has room for {}", tokenizer.size(), config.text.vocabulary),
            ));
        }
        let yes = tokenizer.spellings("yes")?;
        let no = tokenizer.spellings("no")?;
        let ends = end_tokens(tree, config.eos.clone(), &template, &tokenizer)?;
        let processor = ImageProcessor::load(tree, &config.vision)?;
        let weights = Weights::load(tree, "model", dtype, device)?;
        let (tower, decoder) = build(&config, &weights)?;
        let mut files = vec!["config.json", "preprocessor_config.json", "processor_config.json"];
        files.extend_from_slice(CHAT_FILES);
        let fingerprint = weights.fingerprint(tree, &files)?;
        let prompter = Prompter { template, tokenizer, image_token: config.image_token };
        let cache = PrefixCache::new(MAX_REMEMBERED, MAX_REMEMBERED_BYTES);
        let cores = Cores::new(device);
        Ok(Self { prompter, processor, tower, decoder, config, yes, no, ends, cache, cores, fingerprint })
    }

    /// The configuration that the checkpoint came with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The image processor that the checkpoint came with.
    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    /// What the language model sees of a picture: `[tokens, hidden]`, tokens in reading order.
    ///
    /// # Errors
    /// `Request` for a picture that the processor refuses; `Tensor`.
    pub fn image_features(&self, picture: &Picture) -> Result<Tensor> {
        let patches = self.processor.patches(picture.pixels())?;
        self.tower.forward(&patches).map_err(|e| ModelError::from(e).at("the vision tower"))
    }

    /// Logits of the next token, `vocabulary` values, for each prompt. Prompts with the same prefix run as a batch.
    ///
    /// # Errors
    /// `Request` for a prompt that is too long or holds control tokens; `NotANumber`; `Tensor`.
    pub fn next_logits(&self, prompts: &[Prompt]) -> Result<Vec<Vec<f32>>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut group_of: HashMap<(Option<ContentHash>, &str), usize> = HashMap::new();
        for (index, prompt) in prompts.iter().enumerate() {
            let key = (prompt.prefix.picture.as_ref().map(Picture::hash), &*prompt.prefix.text);
            let group = *group_of.entry(key).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(index);
        }
        // Several pictures are computed side by side, else the questions about one.
        let inner = if groups.len() > 1 { &IN_TURN } else { &self.cores };
        let computed = self.cores_for(groups.len()).map(&groups, |group| {
            let members: Vec<&Prompt> = group.iter().map(|&index| &prompts[index]).collect();
            self.group_logits(&members, inner)
        });
        let mut answers = vec![Vec::new(); prompts.len()];
        for (group, rows) in groups.into_iter().zip(computed) {
            for (index, logits) in group.into_iter().zip(rows?) {
                answers[index] = logits;
            }
        }
        Ok(answers)
    }

    /// Who shares out `items` pieces of work: nobody if there is only one, so that the piece may be shared out itself.
    fn cores_for(&self, items: usize) -> &Cores {
        if items > 1 { &self.cores } else { &IN_TURN }
    }

    /// Logits for prompts of one prefix.
    fn group_logits(&self, prompts: &[&Prompt], cores: &Cores) -> Result<Vec<Vec<f32>>> {
        let Some(first) = prompts.first() else { return Ok(Vec::new()) };
        let grid = self.grid(first)?;
        let questions =
            prompts.iter().map(|prompt| self.question(prompt, grid, 0)).collect::<Result<Vec<_>>>()?;
        let beginning = self.prompter.beginning(first, grid)?;
        let shared = self.shared(&beginning, &questions);
        let past = self.remembered(first, &questions[0], shared)?;
        // Questions of like length go together: padding is work for nothing.
        let mut order: Vec<usize> = (0..questions.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(questions[index].ids.len()));
        let total: usize = questions.iter().map(|question| question.ids.len() - shared).sum();
        let most = if self.decoder.device().is_cpu() { BATCH_TOKENS_CPU } else { BATCH_TOKENS };
        let budget = total.div_ceil(cores.count()).min(most);
        let mut batches = Vec::new();
        let mut rest = order.as_slice();
        while let Some(&longest) = rest.first() {
            let padded = questions[longest].ids.len() - shared;
            let (batch, later) = rest.split_at(budget.div_ceil(padded).clamp(1, rest.len()));
            batches.push(batch);
            rest = later;
        }
        let computed =
            cores.map(&batches, |batch| self.batch_logits(past.as_ref(), &questions, batch, shared));
        let mut answers = vec![Vec::new(); questions.len()];
        for (batch, rows) in batches.into_iter().zip(computed) {
            for (&index, logits) in batch.iter().zip(rows?) {
                answers[index] = finite(logits)?;
            }
        }
        Ok(answers)
    }

    /// One padded batch, the longest question first.
    fn batch_logits(
        &self,
        past: Option<&Remembered>,
        questions: &[Tokens],
        batch: &[usize],
        shared: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let longest = &questions[batch[0]];
        let padded = longest.ids.len() - shared;
        let mut tokens = Vec::with_capacity(batch.len() * padded);
        let mut lengths = Vec::with_capacity(batch.len());
        for &index in batch {
            let own = &questions[index].ids[shared..];
            tokens.extend_from_slice(own);
            // Any token will do: nothing real can see what comes after it.
            tokens.extend(std::iter::repeat_n(own[0], padded - own.len()));
            lengths.push(own.len());
        }
        let past = past.map_or(Past(None), Remembered::past);
        // After the picture all coordinates count on alike, so the longest row's positions are everyone's.
        let logits = self.decoder.score(past, &tokens, &lengths, &longest.positions[shared..]);
        let rows = logits.and_then(|logits| logits.to_dtype(DType::F32)?.to_vec2());
        rows.map_err(|e| ModelError::from(e).at("the language model"))
    }

    /// Greedy answer to one request.
    fn answer(&self, request: &CompletionRequest) -> Result<Completion> {
        let prompt = &request.prompt;
        let grid = self.grid(prompt)?;
        let question = self.question(prompt, grid, request.max_tokens)?;
        let beginning = self.prompter.beginning(prompt, grid)?;
        let shared = self.shared(&beginning, std::slice::from_ref(&question));
        let past = self.remembered(prompt, &question, shared)?;
        let mut generated = Vec::new();
        let mut finish = FinishReason::Length;
        if request.max_tokens > 0 {
            let hash = prompt.prefix.picture.as_ref().map(Picture::hash);
            let mut ids = question.ids.clone();
            let (mut sequence, mut logits) = self.run_question(hash, &question, past, request.max_tokens)?;
            let mut position = question.next_position();
            loop {
                let token = largest(&logits);
                if self.ends.contains(&token) {
                    finish = FinishReason::Stop;
                    break;
                }
                generated.push(token);
                if generated.len() == request.max_tokens {
                    break;
                }
                logits = self.step(&mut sequence, token, position)?;
                ids.push(token);
                position += 1;
            }
            // A next turn goes on from here. Without the room for tokens that never came.
            let whole = sequence.length();
            let trimmed = self.decoder.start(Past(Some((&sequence, whole))), whole)?;
            self.cache.insert(hash, ids, Arc::new(trimmed));
        }
        let text = self.prompter.tokenizer.decode(&generated)?;
        Ok(Completion { text, tokens: generated.len(), finish })
    }

    /// Runs a whole question from the longest beginning that is remembered, at least from `beginning`: the sequence
    /// with room for `more` tokens, and the logits after it.
    fn run_question(
        &self,
        picture: Option<ContentHash>,
        question: &Tokens,
        beginning: Option<Remembered>,
        more: usize,
    ) -> Result<(KeyValues, Vec<f32>)> {
        let last = question.ids.len() - 1;
        let whole_picture = |found: &Remembered| found.length() >= question.picture_end();
        let found = self.cache.longest(picture, &question.ids[..last]).filter(whole_picture).or(beginning);
        let past = found.as_ref().map_or(Past(None), Remembered::past);
        let start = past.length();
        let mut sequence = self.decoder.start(past, question.ids.len() + more)?;
        let embeddings = self.decoder.embed(&question.ids[start..])?;
        let logits = self.prefill(&mut sequence, &embeddings, &question.positions[start..], true)?;
        Ok((sequence, logits))
    }

    /// One more token.
    fn step(&self, sequence: &mut KeyValues, token: u32, position: u32) -> Result<Vec<f32>> {
        let embedding = self.decoder.embed(&[token])?;
        self.prefill(sequence, &embedding, &[[position; 3]], true)
    }

    /// Appends to a sequence piece by piece; the logits after the last token if wanted, else nothing.
    fn prefill(
        &self,
        sequence: &mut KeyValues,
        embeddings: &Tensor,
        positions: &[text::Position],
        logits: bool,
    ) -> Result<Vec<f32>> {
        let at = |e: candle_core::Error| ModelError::from(e).at("the language model");
        let mut done = 0;
        let mut answer = None;
        for piece in positions.chunks(PREFILL_TOKENS) {
            let part = embeddings.narrow(0, done, piece.len()).map_err(at)?;
            done += piece.len();
            let wanted = logits && done == positions.len();
            answer = self.decoder.extend(sequence, &part, piece, wanted).map_err(at)?;
        }
        match answer {
            Some(answer) => {
                let values = answer.squeeze(0).and_then(|row| row.to_dtype(DType::F32)?.to_vec1());
                finite(values.map_err(at)?)
            }
            None => Ok(Vec::new()),
        }
    }

    fn question(&self, prompt: &Prompt, grid: Option<Grid>, more: usize) -> Result<Tokens> {
        let tokens = self.prompter.tokens(prompt, grid)?;
        let most = self.config.text.max_positions;
        if tokens.ids.len() + more > most {
            return Err(ModelError::Request(format!(
                "the question has {} tokens and its answer up to {more}; this model holds {most}",
                tokens.ids.len()
            )));
        }
        if tokens.ids.len() <= tokens.picture_end() {
            return Err(ModelError::tokenizer(
                self.prompter.tokenizer.path(),
                "the chat template renders a question to nothing after its picture; expected the start of an answer",
            ));
        }
        Ok(tokens)
    }

    fn grid(&self, prompt: &Prompt) -> Result<Option<Grid>> {
        let Some(picture) = &prompt.prefix.picture else { return Ok(None) };
        let (width, height) = self.processor.size(picture.width(), picture.height())?;
        let token = self.config.vision.patch * self.config.vision.merge;
        Ok(Some(Grid { rows: height as usize / token, columns: width as usize / token }))
    }

    /// How many tokens to compute once for all questions: what they share, and at least the picture, before which
    /// the template puts the same text for everyone.
    fn shared(&self, beginning: &[u32], questions: &[Tokens]) -> usize {
        let picture_end = questions.iter().map(Tokens::picture_end).max().unwrap_or(0);
        shared_length(beginning, questions.iter()).max(picture_end)
    }

    /// The first `length` tokens of a question, computed or remembered; `None` for none.
    fn remembered(&self, prompt: &Prompt, question: &Tokens, length: usize) -> Result<Option<Remembered>> {
        if length == 0 {
            return Ok(None);
        }
        let picture = prompt.prefix.picture.as_ref();
        let hash = picture.map(Picture::hash);
        let ids = &question.ids[..length];
        // A picture is computed whole or not at all.
        let found = self.cache.longest(hash, ids).filter(|found| found.length() >= question.picture_end());
        if let Some(found) = found.as_ref().filter(|found| found.length() == length) {
            return Ok(Some(found.clone()));
        }
        let past = found.as_ref().map_or(Past(None), Remembered::past);
        let start = past.length();
        let mut sequence = self.decoder.start(past, length)?;
        let embeddings = match (picture, question.picture) {
            (Some(picture), Some(place)) if start == 0 => {
                let features = self.image_features(picture)?;
                with_features(|ids| self.decoder.embed(ids), ids, place, &features)?
            }
            _ => self.decoder.embed(&ids[start..])?,
        };
        self.prefill(&mut sequence, &embeddings, &question.positions[start..length], false)?;
        let sequence = Arc::new(sequence);
        self.cache.insert(hash, ids.to_vec(), sequence.clone());
        Ok(Some(Remembered::new(sequence, length)))
    }

    fn score_of(&self, logits: &[f32]) -> AnswerScore {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: f32| f64::from(logit - largest).exp();
        let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();
        let mass = |ids: &[u32]| ids.iter().map(|&id| weight(logits[id as usize])).sum::<f64>() / total;
        AnswerScore { yes: mass(&self.yes), no: mass(&self.no) }
    }
}

impl VisionLanguageModel for Qwen2Vl {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn score(&self, prompts: &[Prompt], call: &Call) -> cluegate_perception::Result<Vec<AnswerScore>> {
        call.check()?;
        let logits = self.next_logits(prompts)?;
        Ok(logits.iter().map(|row| self.score_of(row)).collect())
    }

    fn complete(
        &self,
        requests: &[CompletionRequest],
        _: &Call,
    ) -> cluegate_perception::Result<Vec<Completion>> {
        let answers = self.cores.map(requests, |request| self.answer(request));
        answers.into_iter().map(|answer| answer.map_err(Into::into)).collect()
    }
}

/// Builds both towers and sees that every tensor has found its place, whichever way the names are nested.
fn build(config: &Config, weights: &Weights) -> Result<(VisionTower, Decoder)> {
    let root = weights.builder();
    let nested = weights.contains_prefix("model.language_model.");
    let visual = if weights.contains_prefix("model.visual.") { "model.visual" } else { "visual" };
    let text = if nested { "model.language_model" } else { "model" };
    let tower = VisionTower::load(&config.vision, &root.pp(visual))?;
    let decoder = Decoder::load(&config.text, &root.pp(text), &root)?;
    let mut allowed = KNOWN_BUFFERS.to_vec();
    if config.text.tied {
        // Some converters store the shared table twice.
        allowed.push("lm_head.weight");
    }
    weights.refuse_unused(&allowed)?;
    Ok((tower, decoder))
}

/// The logits, if they are numbers.
fn finite(logits: Vec<f32>) -> Result<Vec<f32>> {
    if logits.iter().all(|logit| logit.is_finite()) {
        Ok(logits)
    } else {
        Err(ModelError::NotANumber("the judge's probabilities".to_owned()))
    }
}

/// Index of the largest value, the first of equals.
fn largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best as u32
}
