//! The text model of a set, which writes constitutions: a checkpoint here, or an engine on another machine.

use std::path::Path;
use std::sync::Arc;

use cluegate_compiler::{TemplateError, Templates};
use cluegate_models::{FileTree, LoadOptions};
use cluegate_perception::VisionLanguageModel;
use cluegate_remote::RemoteText;
use cluegate_workers::{LanguageOptions, LanguageWorker};

use crate::EngineError;
use crate::engine::{open_suite, remote};

/// A text model and the prompts that it is asked with.
pub struct TextModel {
    /// The model; questions that come at the same time are answered side by side.
    pub model: Arc<dyn VisionLanguageModel>,
    /// Its prompts: those that the set names, else those of the compiler.
    pub templates: Templates,
}

impl TextModel {
    /// Opens the `[text]` of the set that `models` names (see [`open_suite`]), and nothing else of it.
    ///
    /// # Errors
    /// See [`EngineError`]; [`EngineError::NoText`] for a set without a text model.
    pub fn open(models: Option<&Path>, options: LoadOptions) -> Result<Self, EngineError> {
        let suite = open_suite(models)?.with_options(options);
        if !suite.has_text() {
            let set = models.map_or("the embedded suite".to_owned(), |path| path.display().to_string());
            return Err(EngineError::NoText { set });
        }
        let templates = match suite.text_templates() {
            Some(folder) => templates(folder)?,
            None => Templates::shipped()?,
        };
        let model: Arc<dyn VisionLanguageModel> = match suite.elsewhere("text") {
            Some(section) => Arc::new(RemoteText::open(&remote(section)?)?),
            None => Arc::new(LanguageWorker::start(suite.text()?, LanguageOptions::default())?),
        };
        Ok(Self { model, templates })
    }
}

/// The prompts in a folder, which may be compiled in.
fn templates(folder: &FileTree) -> Result<Templates, EngineError> {
    Ok(Templates::from_files(|name| {
        let failed = |error: cluegate_models::ModelError| TemplateError::File {
            file: folder.path_of(name),
            problem: error.to_string(),
        };
        folder.exists(name).then(|| folder.read_text(name)).transpose().map_err(failed)
    })?)
}
