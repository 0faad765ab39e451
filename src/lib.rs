//! cluegate
