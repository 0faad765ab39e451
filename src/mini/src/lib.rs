//! The embedded model suite and the scene world it was trained on.
