//! Tests of the judge over scripted models.
