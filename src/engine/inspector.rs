//! Judges that keep within what their models know, and within the bound on pictures in work.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluegate_constitution::Constitution;
use cluegate_gate::{InspectionError, Inspector, JudgeProvider, SharedJudge, Unfinished};
use cluegate_judge::{Glance, PromptReport, Report};
use cluegate_models::Domain;
use cluegate_perception::{
    Call, Detection, Embedding, PerceptionError, PerceptionErrorKind, Picture, RelevanceEncoder,
};
use cluegate_workers::{Admission, RelevanceWorker};

/// Kind of the [`InspectionError`] for pictures and rules that the models do not know.
pub const OUT_OF_DOMAIN: &str = "out-of-domain";

/// Makes judges that know their limits. See [`Engine::judges`].
pub struct EngineJudges {
    pub(super) judges: SharedJudge,
    pub(super) relevance: Arc<RelevanceWorker>,
    pub(super) pictures: Admission,
    pub(super) domain: Option<Arc<Domain>>,
}

impl EngineJudges {
    /// Asks for a rationale with every reasoning, for reports that people read.
    #[must_use]
    pub fn with_rationale(mut self, rationale: bool) -> Self {
        self.judges = self.judges.with_rationale(rationale);
        self
    }
}

impl JudgeProvider for EngineJudges {
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError> {
        if let Some(domain) = &self.domain {
            refuse_consequences(&constitution, domain)?;
            refuse_foreign_words(&constitution, domain)?;
        }
        Ok(Arc::new(EngineInspector {
            inspector: self.judges.inspector(constitution)?,
            relevance: Arc::clone(&self.relevance),
            pictures: self.pictures.clone(),
            domain: self.domain.clone(),
        }))
    }
}

/// Models with a domain were trained for it question by question: none of them has learned to say what is likely to follow.
fn refuse_consequences(constitution: &Constitution, domain: &Domain) -> Result<(), InspectionError> {
    match constitution.rules().iter().find(|rule| rule.consequence) {
        None => Ok(()),
        Some(rule) => Err(InspectionError::new(
            OUT_OF_DOMAIN,
            format!(
                "the rule {} of the constitution {} asks what is likely to follow from a picture, which these models \
                 never learned to tell. What they know: {} {}",
                rule.id,
                constitution.name(),
                domain.name(),
                domain.advice(),
            ),
        )),
    }
}

fn refuse_foreign_words(constitution: &Constitution, domain: &Domain) -> Result<(), InspectionError> {
    let statements = constitution
        .rules()
        .iter()
        .flat_map(|rule| rule.preconditions.iter().chain(&rule.unless))
        .flat_map(|precondition| precondition.any.iter().map(|statement| statement.text.as_str()));
    let unknown = domain.unknown_words(statements);
    if unknown.is_empty() {
        return Ok(());
    }
    let shown = unknown.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    Err(InspectionError::new(
        OUT_OF_DOMAIN,
        format!(
            "the constitution {} speaks of what these models do not know ({shown}{}). What they know: {} {}",
            constitution.name(),
            if unknown.len() > 5 { ", ..." } else { "" },
            domain.name(),
            domain.advice(),
        ),
    ))
}

struct EngineInspector {
    inspector: Arc<dyn Inspector>,
    relevance: Arc<RelevanceWorker>,
    pictures: Admission,
    domain: Option<Arc<Domain>>,
}

impl EngineInspector {
    /// Refuses a picture that lies outside what the models know, in its middle or at an edge.
    fn refuse_foreign(&self, picture: &Picture, call: &Call) -> Result<(), InspectionError> {
        let Some(domain) = &self.domain else { return Ok(()) };
        // The encoder cuts the middle out of a wide picture, and its edges are judged as well.
        let views = cluegate_judge::views(picture);
        let embeddings = self.relevance.embed_pictures(&views, call)?;
        if embeddings.len() != views.len() {
            let message =
                format!("expected {} embeddings of a picture, got {}", views.len(), embeddings.len());
            return Err(PerceptionError::new(PerceptionErrorKind::MissingAnswer, message).into());
        }
        for (index, embedding) in embeddings.iter().enumerate() {
            if let Some(outside) = domain.check_embedding(embedding, self.relevance.as_ref())? {
                let message = format!(
                    "{} is {outside}. What these models know: {} {}",
                    if index == 0 { "the picture" } else { "a part of the picture" },
                    domain.name(),
                    domain.advice()
                );
                return Err(InspectionError::new(OUT_OF_DOMAIN, message));
            }
        }
        Ok(())
    }

    /// Judges within the bound on the pictures in work, whose pace a picture that was judged before tells nothing about.
    fn within_bounds(
        &self,
        call: &Call,
        judge: impl FnOnce() -> Result<Report, InspectionError>,
    ) -> Result<Report, InspectionError> {
        let place = self.pictures.admit(call)?;
        let report = judge()?;
        if !report.from_cache() {
            place.done();
        }
        Ok(report)
    }
}

impl Inspector for EngineInspector {
    fn constitution(&self) -> &Constitution {
        self.inspector.constitution()
    }

    fn models(&self) -> BTreeMap<String, String> {
        self.inspector.models()
    }

    fn inspect(
        &self,
        picture: &Picture,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        self.within_bounds(call, || {
            self.refuse_foreign(picture, call)?;
            self.inspector.inspect(picture, prompt, call)
        })
    }

    fn inspect_whole(
        &self,
        picture: &Picture,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        self.within_bounds(call, || {
            self.refuse_foreign(picture, call)?;
            self.inspector.inspect_whole(picture, prompt, call)
        })
    }

    fn inspect_unfinished(
        &self,
        picture: &Picture,
        kind: Unfinished,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        // A blurred or covered picture lies outside the domain for that alone.
        self.within_bounds(call, || self.inspector.inspect_unfinished(picture, kind, prompt, call))
    }

    fn glance(
        &self,
        preview: &Picture,
        glance: &Glance,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        self.within_bounds(call, || self.inspector.glance(preview, glance, prompt, call))
    }

    fn embed(
        &self,
        texts: &[&str],
        picture: Option<&Picture>,
        call: &Call,
    ) -> Result<Option<Vec<Embedding>>, InspectionError> {
        self.inspector.embed(texts, picture, call)
    }

    fn read_prompt(&self, prompt: &str, call: &Call) -> Result<PromptReport, InspectionError> {
        let _place = self.pictures.admit(call)?;
        self.inspector.read_prompt(prompt, call)
    }

    fn locate(
        &self,
        picture: &Picture,
        words: &[&str],
        min_confidence: f32,
        call: &Call,
    ) -> Result<Vec<Detection>, InspectionError> {
        let _place = self.pictures.admit(call)?;
        self.inspector.locate(picture, words, min_confidence, call)
    }
}

#[cfg(all(test, feature = "mini"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Engine;

    /// Every rule relevant and no statement settled by the first lines, so that every model sees every picture.
    fn thorough() -> Constitution {
        let rule = "[[rule]]\nid = \"a\"\ntext = \"No cat on fire.\"\nobjectiveness = 10\nseverity = \"low\"\n\
                    [[rule.precondition]]\nany = [{ statement = \"a cat is visible\", central = [\"cat\"] }]\n";
        let thresholds = "relevance = -1.0\nalpha1 = 1.0\nalpha2 = 1.0\ndetection_confidence = 0.0\n";
        let text = format!("name = \"thorough\"\n[thresholds]\n{thresholds}{rule}");
        Constitution::parse(&text, "thorough.toml").unwrap()
    }

    #[test]
    fn every_shape_of_picture_gets_a_verdict_or_an_error_that_names_it() {
        let engine = Engine::open(None).unwrap();
        let inspector = engine.judges(true).inspector(thorough()).unwrap();
        let judge = |width: u32, height: u32| {
            let pixels = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 90]));
            inspector.inspect(&Picture::new(pixels), None, &Call::default())
        };
        for (width, height) in [(1, 1), (2, 3), (1, 64), (64, 1), (27, 29), (640, 10), (3000, 2000)] {
            let report = judge(width, height).unwrap();
            assert!(report.complete().is_some(), "{width} x {height}");
            assert!(report.passes().stages.statements > 0, "{width} x {height}");
        }
        for (width, height) in [(1, 65), (5000, 1), (1, 5000), (10, 3000)] {
            let error = judge(width, height).unwrap_err();
            assert_eq!(error.kind(), "request", "{error}");
            let size = format!("{width} x {height} pixels");
            assert!(error.to_string().contains(&size) && error.to_string().contains("cut or pad"), "{error}");
        }
        assert_eq!(judge(0, 5).unwrap_err().kind(), "invalid-picture");
    }

    #[test]
    fn what_stands_at_the_edge_of_a_wide_picture_is_judged_too() {
        use cluegate_mini::{Situation, Style, World, osbench};
        let world = World::load().unwrap();
        let side = world.picture_size;
        let engine = Engine::open(None).unwrap();
        let scene = Constitution::shipped("scene").unwrap();
        let inspector = engine.judges(true).inspector(scene).unwrap();
        let violating = osbench::samples(&world, osbench::SEED, 1);
        let mut relevant = 0;
        for sample in violating.iter().filter(|sample| sample.situation == Situation::Violating) {
            let picture = sample.picture(&world, Style::World).unwrap();
            let alone = inspector.inspect(&Picture::new(picture.clone()), None, &Call::default()).unwrap();
            let mut wide = image::RgbImage::from_pixel(4 * side, side, image::Rgb([120, 160, 90]));
            image::imageops::replace(&mut wide, &picture, 0, 0);
            let wide = inspector.inspect(&Picture::new(wide), None, &Call::default()).unwrap();
            for (alone, wide) in alone.rules().iter().zip(wide.rules()) {
                let [wide, as_alone] = [wide, alone].map(|rule| rule.relevance.unwrap());
                assert!(wide > as_alone - 1e-3, "{}: {}", sample.id, alone.id);
            }
            relevant += alone.rules().iter().filter(|rule| !rule.preconditions.is_empty()).count();
        }
        assert!(relevant > 0);
    }

    #[test]
    fn what_is_likely_to_follow_is_no_question_for_the_embedded_models() {
        let scene = Constitution::shipped_text("scene").unwrap();
        // Every word is known to the models: the form of the question is not.
        let asking = scene.replacen("severity = \"high\"", "severity = \"high\"\nconsequence = true", 1);
        let asking = Constitution::parse(&asking, "asking.toml").unwrap();
        let engine = Engine::open(None).unwrap();
        let error = engine.judges(false).inspector(asking.clone()).err().unwrap();
        assert_eq!(error.kind(), OUT_OF_DOMAIN, "{error}");
        assert!(
            error.to_string().starts_with("the rule on-fire of the constitution scene asks what"),
            "{error}"
        );
        // Whoever insists is served.
        assert!(engine.judges(true).inspector(asking).is_ok());
    }

    #[test]
    fn a_picture_outside_the_domain_is_refused_whatever_its_shape() {
        let engine = Engine::open(None).unwrap();
        let inspector = engine.judges(false).inspector(Constitution::shipped("scene").unwrap()).unwrap();
        for (width, height) in [(1, 1), (1, 5000), (300, 200)] {
            let picture = Picture::new(image::RgbImage::from_fn(width, height, |x, y| {
                image::Rgb([(x * 37) as u8, (y * 91) as u8, (x * y) as u8])
            }));
            let error = inspector.inspect(&picture, None, &Call::default()).unwrap_err();
            assert_eq!(error.kind(), OUT_OF_DOMAIN, "{width} x {height}: {error}");
        }
    }

    #[test]
    fn what_is_no_scene_is_refused_at_the_edge_of_one_too() {
        use cluegate_mini::{Style, World, osbench};
        let world = World::load().unwrap();
        let side = world.picture_size;
        let scene = osbench::samples(&world, osbench::SEED, 1)[0].picture(&world, Style::World).unwrap();
        let engine = Engine::open(None).unwrap();
        let inspector = engine.judges(false).inspector(Constitution::shipped("scene").unwrap()).unwrap();
        let inspect = |pixels| inspector.inspect(&Picture::new(pixels), None, &Call::default());
        assert!(inspect(scene.clone()).is_ok());
        let noise = |x: u32, y: u32| image::Rgb([(x * 37) as u8, (y * 91) as u8, (x * y) as u8]);
        for edge in [0, 2 * side] {
            let mut wide = image::RgbImage::new(3 * side, side);
            for place in [0, side, 2 * side] {
                image::imageops::replace(&mut wide, &scene, i64::from(place), 0);
            }
            assert!(inspect(wide.clone()).is_ok());
            let strange = image::RgbImage::from_fn(side, side, noise);
            image::imageops::replace(&mut wide, &strange, i64::from(edge), 0);
            let error = inspect(wide).unwrap_err();
            assert_eq!(error.kind(), OUT_OF_DOMAIN, "{error}");
            assert!(error.to_string().starts_with("a part of the picture is"), "{error}");
        }
    }
}
