//! OWLv2.
