//! The CLUE method: a constitution and a picture in, a verdict with evidence out.
