//! UnsafeBench in Parquet, on small files that `files/unsafebench.py` wrote.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use cluegate_eval::data::{DataError, DataSet, ParquetSet, Problem, Truth};
use proptest::prelude::*;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

fn refused(name: &str) -> DataError {
    ParquetSet::open(&file(name)).map(|_| ()).unwrap_err()
}

/// The folder of the two shards alone.
fn shards() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["unsafebench-1.parquet", "unsafebench-0.parquet"] {
        fs::copy(file(name), folder.path().join(name)).unwrap();
    }
    folder
}

#[test]
fn rows_and_pictures_of_all_shards_are_read_in_any_order() {
    let folder = shards();
    assert!(ParquetSet::is_at(folder.path()) && !ParquetSet::is_at(&file("unsafebench.py")));
    let set = ParquetSet::open(folder.path()).unwrap();
    assert_eq!((set.rows().len(), set.rules().len()), (10, 0));
    for (index, row) in set.rows().iter().enumerate() {
        assert_eq!(row.truth, Truth::Unsafe(index % 2 == 1));
        assert_eq!(row.category.as_deref(), Some(["Spam", "Health"][index % 2]));
        assert_eq!(row.source.as_deref(), Some(["Lexica", "Laion5B"][index / 4 % 2]));
        assert_eq!(row.text.is_none(), index % 4 == 3);
        assert_eq!(row.id.ends_with(".png"), index % 3 != 2, "{}", row.id);
    }
    let colour = |index: usize| {
        let picture = set.picture(index).unwrap();
        assert_eq!((picture.width(), picture.height()), (48, 32));
        picture.pixels().get_pixel(3, 4).0
    };
    // Forwards, where pages are read on; backwards and twice, where they are begun again.
    for index in (0..10).chain((0..10).rev()).chain([5, 5]) {
        let tint = index as u8 * 20;
        assert_eq!(colour(index), [tint, 255 - tint, 90], "{index}");
    }
    let again = ParquetSet::open(folder.path()).unwrap();
    assert_eq!(again.revision(), set.revision());
}

#[test]
fn columns_have_to_be_there_of_their_type_and_readable() {
    let missing = refused("no-category.parquet");
    assert!(matches!(&missing.problem, Problem::MissingColumn { column: "category", .. }), "{missing}");
    let number = refused("category-number.parquet");
    assert!(number.to_string().contains("`category`: expected a column of bytes or words"), "{number}");
    let packed = refused("brotli.parquet").to_string();
    assert!(packed.contains("uncompressed or with Snappy") && packed.contains("brotli"), "{packed}");
    let text = refused("unsafebench.py").to_string();
    assert!(text.contains("expected a Parquet file"), "{text}");
    let empty = tempfile::tempdir().unwrap();
    assert!(!ParquetSet::is_at(empty.path()));
    assert!(matches!(ParquetSet::open(empty.path()).map(|_| ()).unwrap_err().problem, Problem::Empty));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A damaged file is an error, or rows whose pictures are pictures or errors; it is no panic.
    #[test]
    fn damaged_files_are_errors(place in 0_usize..5900, byte in any::<u8>(), cut in 0_usize..6000) {
        let mut bytes = fs::read(file("unsafebench-0.parquet")).unwrap();
        let at = place % bytes.len();
        bytes[at] = byte;
        let cut = if cut > bytes.len() { bytes.len() } else { cut.max(bytes.len() / 2) };
        for bytes in [bytes.clone(), bytes[..cut].to_vec()] {
            if let Ok(set) = ParquetSet::parse("damaged", Bytes::from(bytes)) {
                for index in 0..set.rows().len() {
                    let _ = set.picture(index);
                }
            }
        }
    }
}
