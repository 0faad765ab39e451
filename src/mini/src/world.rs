//! The definition of the scene world, read from `world/world.json` and the sprite atlas beside it.

use std::collections::BTreeMap;

use image::RgbaImage;
use serde::Deserialize;
use thiserror::Error;

/// The definition or the atlas is damaged; both are compiled in, so this means a broken build.
#[derive(Debug, Error)]
pub enum WorldError {
    /// `world.json` does not parse.
    #[error("the scene world's definition is malformed: {0}")]
    Definition(#[from] serde_json::Error),
    /// `sprites.png` does not decode.
    #[error("the sprite atlas cannot be decoded: {0}")]
    Atlas(#[from] image::ImageError),
    /// The atlas has another number of cells than the definition has sprites.
    #[error(
        "the sprite atlas has room for {cells} sprites of {size} pixels, but the definition names {sprites}"
    )]
    AtlasSize {
        /// Cells of the atlas.
        cells: usize,
        /// Edge of a cell in pixels.
        size: u32,
        /// Sprites of the definition.
        sprites: usize,
    },
    /// A class names a category that is not defined.
    #[error("class {class:?} names the category {category:?}, which is not defined")]
    Category {
        /// Name of the class.
        class: String,
        /// Its category.
        category: String,
    },
    /// A class or category that the code relies on is missing.
    #[error("the scene world's definition lacks {0:?}")]
    Missing(String),
}

/// What part a category plays in a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Somebody to whom something can happen.
    Subject,
    /// Something that a rule is about.
    Hazard,
    /// Anything else.
    Prop,
}

/// A category of classes, such as `weapon`.
#[derive(Debug, Clone, Deserialize)]
pub struct Category {
    /// Its part in a scene.
    pub role: Role,
    /// The caption of a subject `{s}` that touches a hazard `{h}` of this category.
    #[serde(default)]
    pub caption: Option<String>,
}

/// A class of sprites, such as `knife`.
#[derive(Debug, Clone, Deserialize)]
pub struct Class {
    /// The noun.
    pub name: String,
    /// Key into [`World::categories`].
    pub category: String,
    /// What stands before the noun in a caption; may be empty.
    pub article: String,
    /// The emoji, one sprite each.
    pub sprites: Vec<String>,
}

/// A kind of place.
#[derive(Debug, Clone, Deserialize)]
pub struct Place {
    /// How a caption says it; empty if it says nothing.
    pub phrase: String,
    /// Colour above the horizon.
    pub top: [u8; 3],
    /// Colour below the horizon.
    pub bottom: [u8; 3],
}

/// When objects touch, as shares of the sum of two sizes.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Touching {
    /// Centres nearer than this touch.
    pub centre: f32,
    /// No other subject may be nearer than this.
    pub other_subject: f32,
    /// Farther than this is apart.
    pub apart: f32,
}

#[derive(Deserialize)]
struct Definition {
    picture_size: u32,
    sprite_size: u32,
    object_pixels: [f32; 2],
    rotation_radians: f32,
    touching: Touching,
    backgrounds: Vec<Place>,
    categories: BTreeMap<String, Category>,
    classes: Vec<Class>,
}

/// The scene world: its classes, sprites and geometry.
#[derive(Debug)]
pub struct World {
    /// Edge of the square that scenes are laid out in, in pixels.
    pub picture_size: u32,
    /// Smallest and largest object, in pixels.
    pub object_pixels: [f32; 2],
    /// Largest rotation to either side, in radians.
    pub rotation: f32,
    /// When objects touch.
    pub touching: Touching,
    /// The kinds of places.
    pub places: Vec<Place>,
    /// The categories by name.
    pub categories: BTreeMap<String, Category>,
    /// The classes.
    pub classes: Vec<Class>,
    sprites: Vec<RgbaImage>,
    first_sprite: Vec<usize>,
}

impl World {
    /// Reads the definition and the atlas that are compiled into this crate.
    pub fn load() -> Result<Self, WorldError> {
        let definition: Definition = serde_json::from_str(include_str!("../world/world.json"))?;
        let atlas = image::load_from_memory(include_bytes!("../world/sprites.png"))?.to_rgba8();
        for class in &definition.classes {
            if !definition.categories.contains_key(&class.category) {
                return Err(WorldError::Category {
                    class: class.name.clone(),
                    category: class.category.clone(),
                });
            }
        }
        let size = definition.sprite_size;
        let columns = atlas.width() / size;
        let cells = (columns * (atlas.height() / size)) as usize;
        let count: usize = definition.classes.iter().map(|c| c.sprites.len()).sum();
        if cells < count || columns == 0 {
            return Err(WorldError::AtlasSize { cells, size, sprites: count });
        }
        let cell = |i: usize| {
            let i = i as u32;
            image::imageops::crop_imm(&atlas, (i % columns) * size, (i / columns) * size, size, size)
                .to_image()
        };
        let mut first_sprite = Vec::with_capacity(definition.classes.len());
        let mut next = 0;
        for class in &definition.classes {
            first_sprite.push(next);
            next += class.sprites.len();
        }
        Ok(Self {
            picture_size: definition.picture_size,
            object_pixels: definition.object_pixels,
            rotation: definition.rotation_radians,
            touching: definition.touching,
            places: definition.backgrounds,
            categories: definition.categories,
            classes: definition.classes,
            sprites: (0..count).map(cell).collect(),
            first_sprite,
        })
    }

    /// The sprite of a class; `variant` counts within the class and wraps around.
    pub fn sprite(&self, class: usize, variant: usize) -> &RgbaImage {
        &self.sprites[self.first_sprite[class] + variant % self.classes[class].sprites.len()]
    }

    /// The classes of a category.
    pub fn classes_of(&self, category: &str) -> Vec<usize> {
        (0..self.classes.len()).filter(|&i| self.classes[i].category == category).collect()
    }

    /// The class of that name.
    ///
    /// # Errors
    /// [`WorldError::Missing`] if there is none.
    pub fn class(&self, name: &str) -> Result<usize, WorldError> {
        self.classes.iter().position(|c| c.name == name).ok_or_else(|| WorldError::Missing(name.to_owned()))
    }

    /// The part that a class plays.
    pub fn role(&self, class: usize) -> Role {
        self.categories.get(&self.classes[class].category).map_or(Role::Prop, |c| c.role)
    }
}
