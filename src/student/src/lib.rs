//! The student of CLUE (Wang et al., arXiv 2501.00192, Appendix E): a small network on the relevance encoder's embeddings
//! that learned from the labels of the whole method, and that clears pictures for which the whole method need not be asked.
//!
//! It never calls a picture unsafe: a picture that it does not clear goes on to the judge. What it may cost is recall, and
//! that is bounded before it is used: the threshold is an order statistic of the scores of unsafe pictures that were held
//! out, which bounds the share of unsafe pictures under it whatever their distribution ([`calibrate`]).
//!
//! It looks at most pictures once, by the embedding that the relevance scan has anyway, and closer, at parts of them, only
//! where that says too little ([`Looks`]).
//!
//! Plain arithmetic in one order from a fixed seed: the same labels give the same bytes.

mod bound;
mod calibrate;
mod card;
mod error;
mod head;
mod looks;
mod network;
mod train;
mod weights;

pub use bound::{misses_allowed, recall_lower_bound};
pub use calibrate::{Calibration, Goal, calibrate};
pub use card::{CARD_FILE, Card, CloserCard, ConstitutionName, Counts, Said, Student, WEIGHTS_FILE};
pub use error::{StudentError, StudentErrorKind};
pub use head::{Head, Member};
pub use looks::{Band, Closer, Looks};
pub use train::{Choice, CloserOptions, Distilled, Example, PartsOf, TrainOptions, distill, is_held_out};
