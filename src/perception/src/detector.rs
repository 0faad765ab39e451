//! Where in a picture a named object is.

use crate::{Call, Fingerprint, Picture, Result};

/// An axis-parallel box in pixels of the original picture, clipped to it: `left < right <= width`,
/// `top < bottom <= height`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Distance of the left edge from the picture's left edge.
    pub left: f32,
    /// Distance of the upper edge from the picture's upper edge.
    pub top: f32,
    /// Distance of the right edge from the picture's left edge.
    pub right: f32,
    /// Distance of the lower edge from the picture's upper edge.
    pub bottom: f32,
}

impl Region {
    /// Area in square pixels, never negative.
    pub fn area(&self) -> f32 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    /// Intersection over union, 0 to 1.
    pub fn iou(&self, other: &Self) -> f32 {
        let width = (self.right.min(other.right) - self.left.max(other.left)).max(0.0);
        let height = (self.bottom.min(other.bottom) - self.top.max(other.top)).max(0.0);
        let both = width * height;
        let union = self.area() + other.area() - both;
        if union > 0.0 { both / union } else { 0.0 }
    }
}

/// One found object.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Index into the queries of the request.
    pub query: usize,
    /// 0 to 1.
    pub confidence: f32,
    /// Where it is.
    pub region: Region,
}

/// One picture and the words to look for in it.
#[derive(Debug, Clone)]
pub struct DetectionRequest<'a> {
    /// Where to look.
    pub picture: &'a Picture,
    /// What to look for, one or a few words each.
    pub queries: &'a [&'a str],
}

/// An open-vocabulary detector, such as OWLv2.
pub trait RegionDetector: Send + Sync {
    /// Identity for caches.
    fn fingerprint(&self) -> &Fingerprint;

    /// For each request all detections of a confidence of at least `min_confidence`, the most confident first.
    /// An empty answer means that nothing was found, never that the detector failed.
    fn detect(
        &self,
        requests: &[DetectionRequest<'_>],
        min_confidence: f32,
        call: &Call,
    ) -> Result<Vec<Vec<Detection>>>;
}
