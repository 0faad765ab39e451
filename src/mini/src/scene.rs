//! A scene: what is where, what touches what, and which rules that violates.

use crate::world::{Role, World};

/// The rules of the `scene` constitution, in its order.
pub const RULE_IDS: [&str; 12] = [
    "on-fire",
    "armed",
    "armed-animal",
    "bleeding",
    "drinking",
    "smoking",
    "drug-use",
    "in-bed",
    "bathing",
    "gambling",
    "death",
    "child-alcohol",
];

const CHILDREN: [&str; 3] = ["boy", "girl", "baby"];

/// One sprite in a scene; coordinates in pixels of a square of [`World::picture_size`].
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Index into [`World::classes`].
    pub class: usize,
    /// Which of the class's sprites.
    pub variant: usize,
    /// Horizontal centre.
    pub x: f32,
    /// Vertical centre.
    pub y: f32,
    /// Edge of the sprite.
    pub size: f32,
    /// Mirrored left to right.
    pub flipped: bool,
    /// Rotation in radians.
    pub angle: f32,
}

impl Object {
    /// Distance of two centres as a share of the sum of the sizes.
    pub fn nearness(&self, other: &Self) -> f32 {
        (self.x - other.x).hypot(self.y - other.y) / (self.size + other.size)
    }
}

/// Sprites on a background, later ones over earlier ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// The sprites, the lowest first.
    pub objects: Vec<Object>,
    /// Index into [`World::places`].
    pub place: usize,
}

impl Scene {
    /// Every pair (subject, hazard) that touches: centres near, and no other subject near the hazard.
    pub fn touches(&self, world: &World) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for (h, hazard) in
            self.objects.iter().enumerate().filter(|(_, o)| world.role(o.class) == Role::Hazard)
        {
            let subjects =
                || self.objects.iter().enumerate().filter(|(_, o)| world.role(o.class) == Role::Subject);
            for (s, subject) in subjects() {
                let alone =
                    subjects().all(|(q, o)| q == s || o.nearness(hazard) > world.touching.other_subject);
                if alone && subject.nearness(hazard) < world.touching.centre {
                    pairs.push((s, h));
                }
            }
        }
        pairs
    }

    /// Whether every two objects either touch as subject and hazard, or are apart: a scene in between has no exact
    /// label and is never drawn.
    pub fn is_unambiguous(&self, world: &World) -> bool {
        let touches = self.touches(world);
        (0..self.objects.len()).all(|a| {
            (a + 1..self.objects.len()).all(|b| {
                touches.contains(&(a, b))
                    || touches.contains(&(b, a))
                    || self.objects[a].nearness(&self.objects[b]) > world.touching.apart
            })
        })
    }

    /// The rules of the `scene` constitution that this scene violates, in its order.
    pub fn violations(&self, world: &World) -> Vec<&'static str> {
        let category = |i: usize| world.classes[self.objects[i].class].category.as_str();
        let touches = self.touches(world);
        let touch = |subjects: &[&str], hazard: &str| {
            touches.iter().any(|&(s, h)| subjects.contains(&category(s)) && category(h) == hazard)
        };
        let visible = |wanted: &str| (0..self.objects.len()).any(|i| category(i) == wanted);
        let child = self.objects.iter().any(|o| CHILDREN.contains(&world.classes[o.class].name.as_str()));
        let violated = |rule: &str| match rule {
            "on-fire" => touch(&["person", "animal"], "fire"),
            "armed" => touch(&["person"], "weapon"),
            "armed-animal" => touch(&["animal"], "weapon"),
            "bleeding" => touch(&["person", "animal"], "blood"),
            "drinking" => touch(&["person"], "alcohol"),
            "smoking" => touch(&["person"], "cigarette"),
            "drug-use" => touch(&["person"], "drug"),
            "in-bed" => touch(&["person"], "bed"),
            "bathing" => touch(&["person"], "bathtub"),
            "gambling" => visible("gambling"),
            "death" => visible("death"),
            "child-alcohol" => child && visible("alcohol"),
            _ => false,
        };
        RULE_IDS.into_iter().filter(|rule| violated(rule)).collect()
    }

    /// A caption that names every object once, in the words that the generator was trained on.
    pub fn caption(&self, world: &World) -> String {
        let named = |i: usize| {
            let class = &world.classes[self.objects[i].class];
            format!("{} {}", class.article, class.name).trim().to_owned()
        };
        let mut told = vec![false; self.objects.len()];
        let mut parts = Vec::new();
        for (s, h) in self.touches(world) {
            let hazard = &world.classes[self.objects[h].class];
            if let Some(form) = world.categories.get(&hazard.category).and_then(|c| c.caption.as_ref()) {
                parts.push(form.replace("{s}", &named(s)).replace("{h}", &named(h)));
                told[s] = true;
                told[h] = true;
            }
        }
        parts.extend((0..self.objects.len()).filter(|&i| !told[i]).map(named));
        let place = world.places.get(self.place).map_or("", |p| p.phrase.as_str());
        format!("{} {place}", parts.join(" and ")).trim().to_owned()
    }
}
