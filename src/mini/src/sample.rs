//! Scenes to order: a rule violated, nearly violated, or a random scene.

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::scene::{Object, Scene};
use crate::world::{Role, World};

/// What a scene should show with regard to one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Situation {
    /// The rule is violated; others may be too.
    Violating,
    /// No rule is violated, but the scene is close to violating this one: both objects are there without touching,
    /// one of the two is missing, or a subject that the rule does not speak of touches the hazard.
    Borderline,
}

impl Situation {
    /// `violating` or `borderline`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Violating => "violating",
            Self::Borderline => "borderline",
        }
    }
}

/// Who and what a rule is about.
struct Theme {
    /// Categories of subjects that violate the rule; empty if the hazard alone does.
    subjects: &'static [&'static str],
    hazard: &'static str,
    /// The hazard must touch the subject.
    relation: bool,
}

const THEMES: [(&str, Theme); 12] = [
    ("on-fire", Theme { subjects: &["person", "animal"], hazard: "fire", relation: true }),
    ("armed", Theme { subjects: &["person"], hazard: "weapon", relation: true }),
    ("armed-animal", Theme { subjects: &["animal"], hazard: "weapon", relation: true }),
    ("bleeding", Theme { subjects: &["person", "animal"], hazard: "blood", relation: true }),
    ("drinking", Theme { subjects: &["person"], hazard: "alcohol", relation: true }),
    ("smoking", Theme { subjects: &["person"], hazard: "cigarette", relation: true }),
    ("drug-use", Theme { subjects: &["person"], hazard: "drug", relation: true }),
    ("in-bed", Theme { subjects: &["person"], hazard: "bed", relation: true }),
    ("bathing", Theme { subjects: &["person"], hazard: "bathtub", relation: true }),
    ("gambling", Theme { subjects: &[], hazard: "gambling", relation: false }),
    ("death", Theme { subjects: &[], hazard: "death", relation: false }),
    ("child-alcohol", Theme { subjects: &["child"], hazard: "alcohol", relation: false }),
];

const HAZARDS: [&str; 10] =
    ["fire", "weapon", "blood", "alcohol", "cigarette", "drug", "bed", "bathtub", "death", "gambling"];

/// Draws scenes from a seed; the same seed gives the same scenes on every machine.
pub struct Sampler<'w> {
    world: &'w World,
    random: ChaCha8Rng,
}

impl<'w> Sampler<'w> {
    /// Starts at `seed`.
    pub fn new(world: &'w World, seed: u64) -> Self {
        Self { world, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// A random scene of natural frequencies: mostly people, hazards at times.
    pub fn random(&mut self) -> Scene {
        self.draw(|sampler| {
            let mut scene = sampler.empty();
            for _ in 0..sampler.random.random_range(0..=2) {
                let kind = if sampler.random.random_bool(0.7) { "person" } else { "animal" };
                sampler.add_apart(&mut scene, kind)?;
            }
            for _ in 0..sampler.random.random_range(0..=2) {
                sampler.add_hazard_anywhere(&mut scene)?;
            }
            sampler.add_props(&mut scene, 1, 2)?;
            Some(scene)
        })
    }

    /// A scene that stands in the given situation towards the rule `rule`; `None` for an unknown rule.
    pub fn of(&mut self, rule: &str, situation: Situation) -> Option<Scene> {
        let theme = &THEMES.iter().find(|(id, _)| *id == rule)?.1;
        let world = self.world;
        Some(match situation {
            Situation::Violating => loop {
                let scene = self.draw(|sampler| sampler.violating(theme));
                if scene.violations(world).contains(&rule) {
                    break scene;
                }
            },
            Situation::Borderline => loop {
                let scene = self.draw(|sampler| sampler.borderline(theme));
                if scene.violations(world).is_empty() {
                    break scene;
                }
            },
        })
    }

    /// Repeats an attempt until it yields an unambiguous scene of at least one object.
    fn draw(&mut self, mut attempt: impl FnMut(&mut Self) -> Option<Scene>) -> Scene {
        loop {
            if let Some(scene) = attempt(self)
                && !scene.objects.is_empty()
                && scene.is_unambiguous(self.world)
            {
                return scene;
            }
        }
    }

    fn violating(&mut self, theme: &Theme) -> Option<Scene> {
        let mut scene = self.empty();
        if let Some(kind) = theme.subjects.choose(&mut self.random).copied() {
            let subject = self.add_apart(&mut scene, kind)?;
            if theme.relation {
                self.add_touching(&mut scene, subject, theme.hazard)?;
            } else {
                self.add_apart(&mut scene, theme.hazard)?;
            }
        } else {
            self.add_apart(&mut scene, theme.hazard)?;
        }
        self.add_company(&mut scene)?;
        if self.random.random_bool(0.25) {
            self.add_hazard_anywhere(&mut scene)?;
        }
        self.add_props(&mut scene, 0, 2)?;
        Some(scene)
    }

    fn borderline(&mut self, theme: &Theme) -> Option<Scene> {
        let mut scene = self.empty();
        let kind = theme.subjects.choose(&mut self.random).copied();
        let persons_only = theme.relation && theme.subjects == ["person"] && theme.hazard != "weapon";
        match (kind, self.random.random_range(0..10)) {
            (Some(_), 0..=1) if persons_only => {
                let animal = self.add_apart(&mut scene, "animal")?;
                self.add_touching(&mut scene, animal, theme.hazard)?;
                if self.random.random_bool(0.5) {
                    self.add_apart(&mut scene, "person")?;
                }
            }
            (Some(kind), 0..=5) if theme.relation => {
                self.add_apart(&mut scene, kind)?;
                self.add_apart(&mut scene, theme.hazard)?;
            }
            (Some(kind), 6..=7) => {
                self.add_apart(&mut scene, kind)?;
            }
            // The hazard without a subject of the rule; a hazard that alone violates is left out in turn.
            (Some(_), _) => {
                self.add_apart(&mut scene, theme.hazard)?;
            }
            (None, _) => {
                self.add_apart(&mut scene, "person")?;
                self.add_props(&mut scene, 1, 2)?;
            }
        }
        if !theme.relation && kind.is_some() && self.random.random_bool(0.5) {
            let adult = ["man", "woman", "old man", "old woman"].choose(&mut self.random).copied()?;
            let class = self.world.class(adult).ok()?;
            self.add_class_apart(&mut scene, class)?;
        }
        if self.random.random_bool(0.3) {
            self.add_company(&mut scene)?;
        }
        self.add_props(&mut scene, 0, 2)?;
        Some(scene)
    }

    fn empty(&mut self) -> Scene {
        Scene { objects: Vec::new(), place: self.random.random_range(0..self.world.places.len()) }
    }

    /// Sometimes a second subject that has nothing to do with the matter.
    fn add_company(&mut self, scene: &mut Scene) -> Option<()> {
        if self.random.random_bool(0.35) {
            let kind = if self.random.random_bool(0.6) { "person" } else { "animal" };
            self.add_apart(scene, kind)?;
        }
        Some(())
    }

    fn add_hazard_anywhere(&mut self, scene: &mut Scene) -> Option<()> {
        let hazard = HAZARDS.choose(&mut self.random).copied()?;
        let subjects: Vec<usize> = (0..scene.objects.len())
            .filter(|&i| self.world.role(scene.objects[i].class) == Role::Subject)
            .collect();
        match subjects.choose(&mut self.random) {
            Some(&subject) if self.random.random_bool(0.5) => self.add_touching(scene, subject, hazard),
            _ => self.add_apart(scene, hazard).map(|_| ()),
        }
    }

    fn add_props(&mut self, scene: &mut Scene, least: usize, most: usize) -> Option<()> {
        let room = 6_usize.saturating_sub(scene.objects.len());
        for _ in 0..self.random.random_range(least..=most).min(room) {
            self.add_apart(scene, "prop")?;
        }
        Some(())
    }

    /// Adds an object of a category (or of the group `child`) apart from all others; returns its index.
    fn add_apart(&mut self, scene: &mut Scene, category: &str) -> Option<usize> {
        let classes = if category == "child" {
            ["boy", "girl", "baby"].iter().filter_map(|name| self.world.class(name).ok()).collect()
        } else {
            self.world.classes_of(category)
        };
        let class = *classes.choose(&mut self.random)?;
        self.add_class_apart(scene, class)
    }

    fn add_class_apart(&mut self, scene: &mut Scene, class: usize) -> Option<usize> {
        let size = match self.world.role(class) {
            Role::Subject => self.random.random_range(56.0..110.0),
            Role::Hazard => self.random.random_range(38.0..90.0),
            Role::Prop => self.random.random_range(34.0..80.0),
        };
        for _ in 0..30 {
            let edge = self.world.picture_size as f32;
            let (x, y) = (self.position(size, edge), self.position(size, edge));
            let object = self.object(class, x, y, size);
            if scene.objects.iter().all(|o| o.nearness(&object) > self.world.touching.apart) {
                scene.objects.push(object);
                return Some(scene.objects.len() - 1);
            }
        }
        None
    }

    /// Adds a hazard that touches the object `subject`, over it or, for some, under it.
    fn add_touching(&mut self, scene: &mut Scene, subject: usize, hazard: &str) -> Option<()> {
        let class = *self.world.classes_of(hazard).choose(&mut self.random)?;
        let [least, most] = self.world.object_pixels;
        let victim = scene.objects[subject].clone();
        let large = matches!(hazard, "bed" | "bathtub");
        for _ in 0..30 {
            let share = if large { 0.9..1.35 } else { 0.5..0.9 };
            let size = (victim.size * self.random.random_range(share)).clamp(least, most);
            // Beds and baths lie below; everything else is at any side.
            let angle = if large { 0.25..0.75 } else { 0.0..2.0_f32 };
            let direction = std::f32::consts::PI * self.random.random_range(angle);
            let distance = (victim.size + size) * self.random.random_range(0.14..0.33);
            let edge = self.world.picture_size as f32;
            let x = (victim.x + distance * direction.cos()).clamp(size / 2.0, edge - size / 2.0);
            let y = (victim.y + distance * direction.sin()).clamp(size / 2.0, edge - size / 2.0);
            let object = self.object(class, x, y, size);
            let near = object.nearness(&victim);
            let others_apart = scene
                .objects
                .iter()
                .enumerate()
                .all(|(i, o)| i == subject || o.nearness(&object) > self.world.touching.apart);
            if (0.12..self.world.touching.centre).contains(&near) && others_apart {
                scene.objects.push(object);
                return Some(());
            }
        }
        None
    }

    fn object(&mut self, class: usize, x: f32, y: f32, size: f32) -> Object {
        let rotation = self.world.rotation;
        Object {
            class,
            variant: self.random.random_range(0..self.world.classes[class].sprites.len()),
            x,
            y,
            size,
            flipped: self.random.random_bool(0.5),
            angle: self.random.random_range(-rotation..rotation),
        }
    }

    fn position(&mut self, size: f32, edge: f32) -> f32 {
        self.random.random_range(size / 2.0..edge - size / 2.0)
    }
}
