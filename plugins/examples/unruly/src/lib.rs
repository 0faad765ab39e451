//! Misbehaves as its configuration says, to try what a host makes of it.

use std::time::Duration;

use cluegate_abi::{
    Answer, AnswerScore, Call, Classification, Classify, Draw, Drawn, Edit, ErrorCode, Generate, Host,
    PictureBuf, PictureView, Plugin, PluginError, Publish, Redact, Rewrite, Rewriting, Setup, Steps,
};

struct Unruly(String);

impl Unruly {
    fn does(&self, what: &str) -> bool {
        self.0.contains(&format!("\"{what}\""))
    }

    fn misbehave(&self, call: &Call<'_>) -> Result<(), PluginError> {
        if self.does("fail") {
            return Err(PluginError::failed("it was told to fail"));
        }
        assert!(!self.does("panic"), "it was told to panic");
        if self.does("abort") {
            std::process::abort();
        }
        if self.does("crash") {
            // SAFETY: none: it is told to crash, and does.
            unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
        }
        while self.does("hang") {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        while self.does("wait") {
            call.check()?;
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Plugin for Unruly {
    const NAME: &'static str = "unruly";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Misbehaves as it is told.";
    const SCHEMA: &'static str = r#"{ "type": "object", "properties": { "does": {
        "enum": ["refuse", "fail", "panic", "abort", "crash", "hang", "wait", "nan", "larger", "forget", "insist"] } } }"#;

    fn create(setup: &Setup<'_>, _: Host) -> Result<Self, PluginError> {
        let made = Self(setup.config.to_owned());
        assert!(!made.does("panic-at-once"), "it was told to panic at once");
        while made.does("hang-at-once") {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        match made.does("refuse") {
            true => Err(PluginError::new(ErrorCode::Config, "it was told to refuse")),
            false => Ok(made),
        }
    }
}

impl Classify for Unruly {
    fn classify(&self, picture: &PictureView<'_>, call: &Call<'_>) -> Result<Classification, PluginError> {
        self.misbehave(call)?;
        let score = if self.does("nan") {
            f32::NAN
        } else {
            f32::from(picture.pixels().next().map_or(0, |p| p[0])) / 255.0
        };
        Ok(Classification { flagged: false, score, labels: Vec::new() })
    }
}

impl Answer for Unruly {
    fn answer(
        &self,
        _: Option<&PictureView<'_>>,
        _: &str,
        call: &Call<'_>,
    ) -> Result<AnswerScore, PluginError> {
        self.misbehave(call)?;
        Ok(AnswerScore { yes: if self.does("nan") { 2.0 } else { 0.25 }, no: 0.5 })
    }
}

impl Generate for Unruly {
    fn generate(&self, _: &Draw<'_>, call: &Call<'_>, steps: &mut Steps<'_>) -> Result<Drawn, PluginError> {
        self.misbehave(call)?;
        let _ = steps.step(1, 2, None);
        if self.does("forget") {
            return Ok(Drawn::Aborted);
        }
        // Whatever the host said.
        PictureBuf::new(vec![200; 12], 2, 2).map(Drawn::Finished)
    }
}

impl Redact for Unruly {
    fn redact(&self, edit: &Edit<'_>, call: &Call<'_>) -> Result<PictureBuf, PluginError> {
        self.misbehave(call)?;
        if self.does("larger") {
            let (width, height) = (edit.picture.width() + 1, edit.picture.height());
            return PictureBuf::new(vec![0; 3 * width as usize * height as usize], width, height);
        }
        Ok(edit.picture.to_buf())
    }
}

impl Rewrite for Unruly {
    fn rewrite(&self, rewriting: &Rewriting<'_>, call: &Call<'_>) -> Result<String, PluginError> {
        self.misbehave(call)?;
        Ok(rewriting.prompt.to_owned())
    }
}

impl Publish for Unruly {
    fn publish(&self, _: &str, call: &Call<'_>) -> Result<(), PluginError> {
        self.misbehave(call)
    }
}

cluegate_abi::export_plugin!(Unruly: classify, answer, generate, redact, rewrite, publish);
