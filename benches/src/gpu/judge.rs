//! The engine under measurement: a judge on the GPU, and the pictures that it is asked about.

use std::cell::Cell;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device};
use cluegate::judge::Templates;
use cluegate::models::chat::{ChatTemplate, ChatTokenizer, Message, Part};
use cluegate::models::qwen2_vl::{self, Config, ImageProcessor};
use cluegate::models::{FileTree, LanguageModel, LoadOptions, load_judge};
use cluegate::perception::{
    AnswerScore, Call, Completion, CompletionRequest, Picture, Prompt, Reply, VisionLanguageModel,
};
use image::{Rgb, RgbImage};

use super::floor::Lengths;
use crate::stats::Times;
use crate::streams::millis;

/// Width and height of the pictures.
const SIDE: u32 = 1024;
/// Tokens that a statement adds to a question, at least.
const STATEMENT_TOKENS: usize = 45;
const WORDS: [&str; 24] = [
    "person", "animal", "fire", "knife", "water", "street", "house", "car", "hand", "face", "child", "dog",
    "red", "large", "broken", "sleeping", "running", "visible", "holding", "beside", "under", "behind",
    "open", "dark",
];

/// The picture, which looks like nothing and is the same on every machine.
pub(super) fn picture() -> RgbImage {
    let mut state = 0x9e37_79b9u32;
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = state >> 26;
        Rgb([x / 5 + noise, y / 5 + noise, (x * y) / 8192 + noise].map(|v| v.min(255) as u8))
    })
}

/// The judge with what is asked.
pub(super) struct Judge {
    pub(super) model: LanguageModel,
    pub(super) config: Config,
    pub(super) processor: ImageProcessor,
    pub(super) templates: Templates,
    pub(super) statements: Vec<String>,
    device: Device,
    tokenizer: ChatTokenizer,
    chat: ChatTemplate,
    pixels: RgbImage,
    pictures: Cell<u32>,
}

impl Judge {
    /// Loads a checkpoint and makes up `count` statements of its tokenizer's words.
    pub(super) fn open(folder: &Path, device: &Device, dtype: DType, count: usize) -> anyhow::Result<Self> {
        let tree = FileTree::open(folder)?;
        let config = qwen2_vl::config(&tree)?;
        let options = LoadOptions { device: device.clone(), dtype, quantisation: None };
        let mut judge = Self {
            model: load_judge(&tree, &options)?,
            processor: ImageProcessor::load(&tree, &config.vision)?,
            config,
            templates: Templates::shipped()?,
            statements: Vec::new(),
            device: device.clone(),
            tokenizer: ChatTokenizer::load(&tree)?,
            chat: ChatTemplate::load(&tree)?,
            pixels: picture(),
            pictures: Cell::new(0),
        };
        let empty = judge.tokens(&judge.templates.statement_suffix(""))?;
        for index in 0..count {
            let mut words = vec![WORDS[index % WORDS.len()], "number", "of"];
            let mut next = index * 7 + 1;
            while judge.tokens(&words.join(" "))? + empty < STATEMENT_TOKENS - 5 {
                words.push(WORDS[next % WORDS.len()]);
                next = next * 5 + 3;
            }
            judge.statements.push(words.join(" "));
        }
        Ok(judge)
    }

    fn tokens(&self, text: &str) -> anyhow::Result<usize> {
        Ok(self.tokenizer.encode(text)?.len())
    }

    /// The lengths of everything that is asked; answers have `answer` tokens.
    pub(super) fn lengths(&self, answer: usize) -> anyhow::Result<Lengths> {
        let question = |beginning: &str, end: String| -> anyhow::Result<Vec<u32>> {
            let content = vec![Part::Image, Part::Text(format!("{beginning}{end}"))];
            Ok(self.tokenizer.encode(&self.chat.render(&[Message { role: "user", content }], "")?)?)
        };
        let before = self.templates.statement_prefix(None).text;
        let rows = self
            .statements
            .iter()
            .map(|statement| question(&before, self.templates.statement_suffix(statement)));
        let rows = rows.collect::<anyhow::Result<Vec<_>>>()?;
        let shortest = rows.iter().map(Vec::len).min().unwrap_or(0);
        let shared = (0..shortest).take_while(|&at| rows.iter().all(|row| row[at] == rows[0][at])).count();
        let patches = self.processor.patches(&self.pixels)?;
        let patches = patches.rows * patches.columns;
        let merge = self.config.vision.merge;
        let picture = patches / (merge * merge);
        let total: usize = rows.iter().map(|row| row.len() - shared).sum();
        let reasoning = self.templates.reasoning_prefix(self.fresh()).text;
        let reasoning = question(&reasoning, self.templates.reasoning_suffix(&self.statements[0]))?;
        Ok(Lengths {
            patches,
            prefix: shared - 1 + picture,
            statement: total as f64 / rows.len() as f64,
            reasoning: reasoning.len(),
            answer,
        })
    }

    /// The picture itself.
    pub(super) fn same(&self) -> Picture {
        Picture::new(self.pixels.clone())
    }

    /// The picture with a pixel of its own: one that nobody has seen.
    pub(super) fn fresh(&self) -> Picture {
        let number = self.pictures.get() + 1;
        self.pictures.set(number);
        let mut pixels = self.pixels.clone();
        pixels.put_pixel(0, 0, Rgb([number % 256, number / 256 % 256, 7].map(|v| v as u8)));
        Picture::new(pixels)
    }

    /// The first `count` questions about a picture.
    pub(super) fn questions(&self, picture: &Picture, count: usize) -> Vec<Prompt> {
        let prefix = self.templates.statement_prefix(Some(picture.clone()));
        let suffix = |statement: &String| self.templates.statement_suffix(statement);
        self.statements.iter().take(count).map(|s| Prompt::new(prefix.clone(), suffix(s))).collect()
    }

    /// `M(x, c)` of each.
    pub(super) fn score(&self, prompts: &[Prompt]) -> anyhow::Result<Vec<f64>> {
        let answers = self.model.score(prompts, &Call::default())?;
        Ok(answers.iter().map(AnswerScore::ratio).collect())
    }

    /// The first turn of a reasoning about each picture.
    pub(super) fn reasoning(&self, pictures: &[Picture], max_tokens: usize) -> Vec<CompletionRequest> {
        let request = |picture: &Picture| CompletionRequest {
            prompt: Prompt::new(
                self.templates.reasoning_prefix(picture.clone()),
                self.templates.reasoning_suffix(&self.statements[0]),
            ),
            max_tokens,
        };
        pictures.iter().map(request).collect()
    }

    /// The answers to all requests, decoded side by side.
    pub(super) fn complete(&self, requests: &[CompletionRequest]) -> anyhow::Result<Vec<Completion>> {
        Ok(self.model.complete(requests, &Call::default())?)
    }

    /// The second turn of each reasoning.
    pub(super) fn ratings(&self, requests: &[CompletionRequest], answers: &[Completion]) -> Vec<Prompt> {
        let second = |(request, answer): (&CompletionRequest, &Completion)| {
            let mut prompt = request.prompt.clone();
            let user = self.templates.rating(&self.statements[0]);
            prompt.turns.push(Reply { assistant: answer.text.clone(), user });
            prompt.answer_start = "{\"rating\": \"".to_owned();
            prompt
        };
        requests.iter().zip(answers).map(second).collect()
    }

    /// Milliseconds of `work` on each of `repeat` runs, until the GPU is done.
    pub(super) fn timed<T>(
        &self,
        repeat: usize,
        mut prepare: impl FnMut() -> anyhow::Result<T>,
        mut work: impl FnMut(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<Times> {
        let mut times = Vec::with_capacity(repeat);
        for _ in 0..repeat {
            let given = prepare()?;
            self.device.synchronize()?;
            let begin = Instant::now();
            work(given)?;
            self.device.synchronize()?;
            times.push(millis(begin.elapsed()));
        }
        Ok(Times::new(times))
    }
}
