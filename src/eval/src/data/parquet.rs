//! UnsafeBench as it is published: Parquet files with the pictures inside, as the library `datasets` writes them.
//!
//! Columns are found by name and have to be of the published type: `image` is a struct of `bytes` and `path`,
//! `safety_label` a word or a number, `category`, `source` and `text` words. Other columns are left alone. A picture is
//! read when it is asked for; what is kept of the file in memory is one page of one column.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cluegate_perception::{DecodeOptions, Picture, decode};
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};

use super::error::{DataError, Problem, shortened};
use super::unsafebench::Label;
use super::{DataSet, MAX_ROWS, Names, Row, Truth};

/// Most bytes of the labels of one row group, before they were compressed.
const MAX_LABEL_BYTES: i64 = 1 << 28;

/// Most files of one set.
const MAX_SHARDS: usize = 10_000;

/// What the name of a file of this form ends with.
const EXTENSION: &str = "parquet";

/// Rows that are read at a time.
const BATCH: usize = 1024;

type Pages = ColumnReaderImpl<ByteArrayType>;

/// One file.
struct Shard {
    name: String,
    reader: Arc<dyn FileReader>,
}

/// Where a row lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    shard: usize,
    group: usize,
    row: usize,
}

/// The pages of the pictures of one row group, read as far as `next`.
struct Cursor {
    shard: usize,
    group: usize,
    next: usize,
    pages: Pages,
}

/// A data set in Parquet files.
pub struct ParquetSet {
    rows: Vec<Row>,
    places: Vec<Place>,
    shards: Vec<Shard>,
    cursor: Mutex<Option<Cursor>>,
}

impl ParquetSet {
    /// Whether a path is for this reader: a Parquet file, or a folder that holds some.
    pub fn is_at(path: &Path) -> bool {
        is_parquet(path) || (path.is_dir() && shards(path).is_ok_and(|shards| !shards.is_empty()))
    }

    /// Reads the labels of a file, or of all Parquet files of a folder in the order of their names.
    ///
    /// # Errors
    /// A file that cannot be read, a column that is not there or of another type, or a label that is none.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let files = if path.is_dir() { shards(path)? } else { vec![path.to_owned()] };
        if files.len() > MAX_SHARDS {
            let problem = Problem::TooManyRows { limit: MAX_SHARDS };
            return Err(DataError::new(&path.display().to_string(), None, problem));
        }
        let mut shards = Vec::with_capacity(files.len());
        for file in &files {
            let name = file.display().to_string();
            let open =
                File::open(file).map_err(|error| DataError::new(&name, None, Problem::Unreadable(error)))?;
            shards.push(Shard::new(name, open)?);
        }
        Self::of(shards)
    }

    /// Reads the labels of a file that is in memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn parse(name: &str, bytes: Bytes) -> Result<Self, DataError> {
        Self::of(vec![Shard::new(name.to_owned(), bytes)?])
    }

    fn of(shards: Vec<Shard>) -> Result<Self, DataError> {
        let mut set =
            Self { rows: Vec::new(), places: Vec::new(), shards: Vec::new(), cursor: Mutex::new(None) };
        let mut names = Names::default();
        for (index, shard) in shards.iter().enumerate() {
            for group in 0..shard.reader.num_row_groups() {
                let rows = guarded(&shard.name, || shard.labels(group, &mut names))?;
                if set.rows.len() + rows.len() > MAX_ROWS {
                    return Err(DataError::new(&shard.name, None, Problem::TooManyRows { limit: MAX_ROWS }));
                }
                set.places.extend((0..rows.len()).map(|row| Place { shard: index, group, row }));
                set.rows.extend(rows);
            }
        }
        if set.rows.is_empty() {
            let name = shards.first().map_or("the folder", |shard| &shard.name);
            return Err(DataError::new(name, None, Problem::Empty));
        }
        set.shards = shards;
        Ok(set)
    }

    /// The file of the picture of a row.
    fn bytes(&self, index: usize) -> Result<Bytes, DataError> {
        let place = self.places[index];
        let shard = &self.shards[place.shard];
        let mut kept = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = kept.take().filter(|cursor| {
            (cursor.shard, cursor.group) == (place.shard, place.group) && cursor.next <= place.row
        });
        let mut cursor = match ahead {
            Some(cursor) => cursor,
            None => {
                let pages = guarded(&shard.name, || shard.pages(place.group, "image.bytes"))?;
                Cursor { shard: place.shard, group: place.group, next: 0, pages }
            }
        };
        let bytes = guarded(&shard.name, || {
            let failed = |error: parquet::errors::ParquetError| shard.refuse(error.to_string());
            cursor.pages.skip_records(place.row - cursor.next).map_err(failed)?;
            let mut values = Vec::new();
            let mut levels = Vec::new();
            let read = cursor.pages.read_records(1, Some(&mut levels), None, &mut values).map_err(failed)?;
            match (read.0, values.into_iter().next()) {
                (1, Some(value)) => Ok(Bytes::copy_from_slice(value.data())),
                _ => Err(shard.value("image.bytes", "the bytes of a picture", "none")),
            }
        })?;
        cursor.next = place.row + 1;
        *kept = Some(cursor);
        Ok(bytes)
    }
}

impl DataSet for ParquetSet {
    fn name(&self) -> &str {
        "unsafebench"
    }

    fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn rules(&self) -> &[String] {
        &[]
    }

    fn picture(&self, index: usize) -> Result<Picture, DataError> {
        let bytes = self.bytes(index)?;
        let options = DecodeOptions { convert: true, ..DecodeOptions::default() };
        decode(&bytes, &options).map_err(|error| {
            let problem = Problem::Picture { id: self.rows[index].id.clone(), reason: error.to_string() };
            DataError::new(&self.shards[self.places[index].shard].name, None, problem)
        })
    }
}

impl Shard {
    fn new<R: ChunkReader + 'static>(name: String, source: R) -> Result<Self, DataError> {
        let opened = guarded(&name, || {
            SerializedFileReader::new(source).map_err(|error| refuse(&name, error.to_string()))
        });
        Ok(Self { reader: Arc::new(opened?), name })
    }

    fn refuse(&self, reason: String) -> DataError {
        refuse(&self.name, reason)
    }

    fn value(&self, key: &'static str, expected: &str, came: &str) -> DataError {
        let problem = Problem::Value { key, expected: expected.to_owned(), came: shortened(came) };
        DataError::new(&self.name, None, problem)
    }

    /// The place of a leaf column among the others; none if there is none of the name.
    fn column(&self, name: &str) -> Option<usize> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        (0..schema.num_columns()).find(|index| schema.column(*index).path().string() == name)
    }

    fn column_type(&self, index: usize) -> Type {
        self.reader.metadata().file_metadata().schema_descr().column(index).physical_type()
    }

    fn missing(&self, column: &'static str) -> DataError {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let known = (0..schema.num_columns()).map(|index| schema.column(index).path().string()).collect();
        DataError::new(&self.name, None, Problem::MissingColumn { column, known })
    }

    /// The pages of a column of bytes in one row group.
    fn pages(&self, group: usize, column: &'static str) -> Result<Pages, DataError> {
        let index = self.column(column).ok_or_else(|| self.missing(column))?;
        match self.reader(group, index)? {
            ColumnReader::ByteArrayColumnReader(pages) => Ok(pages),
            _ => {
                Err(self.value(column, "a column of bytes or words", &format!("{}", self.column_type(index))))
            }
        }
    }

    fn reader(&self, group: usize, column: usize) -> Result<ColumnReader, DataError> {
        let description = self.reader.metadata().file_metadata().schema_descr().column(column);
        if description.max_rep_level() > 0 {
            let path = description.path().string();
            return Err(self.refuse(format!("the column {path} is a list; expected one value a row")));
        }
        let failed = |error: parquet::errors::ParquetError| self.refuse(error.to_string());
        self.reader.get_row_group(group).and_then(|rows| rows.get_column_reader(column)).map_err(failed)
    }

    /// The rows of a group, without their pictures.
    fn labels(&self, group: usize, names: &mut Names) -> Result<Vec<Row>, DataError> {
        let metadata = self.reader.metadata().row_group(group);
        let count = usize::try_from(metadata.num_rows()).unwrap_or(usize::MAX);
        if count > MAX_ROWS {
            return Err(DataError::new(&self.name, None, Problem::TooManyRows { limit: MAX_ROWS }));
        }
        // Fails on the wrong type now, and not at the first picture.
        self.pages(group, "image.bytes")?;
        let paths = self.words(group, "image.path", count)?;
        let labels = self.safety_labels(group, count)?;
        let categories = self.words(group, "category", count)?;
        let sources = self.words(group, "source", count)?;
        let texts = self.words(group, "text", count)?;
        let mut rows = Vec::with_capacity(count);
        for (index, (((label, path), (category, source)), text)) in
            labels.into_iter().zip(paths).zip(categories.into_iter().zip(sources)).zip(texts).enumerate()
        {
            let about = path.unwrap_or_else(|| format!("{group}/{index}"));
            let label = label.ok_or_else(|| self.value("safety_label", "safe, unsafe, 0 or 1", "none"))?;
            let truth = Truth::Unsafe(label.is_unsafe(&self.name, None)?);
            let id = names.next(&about);
            let mut row = Row::new(id, about, truth);
            (row.category, row.source, row.text) = (category, source, text);
            rows.push(row);
        }
        Ok(rows)
    }

    fn safety_labels(&self, group: usize, count: usize) -> Result<Vec<Option<Label>>, DataError> {
        const NAME: &str = "safety_label";
        let index = self.column(NAME).ok_or_else(|| self.missing(NAME))?;
        match self.reader(group, index)? {
            ColumnReader::Int32ColumnReader(pages) => {
                let values = self.values(pages, count, NAME)?;
                Ok(values
                    .into_iter()
                    .map(|value| value.map(|value| Label::Number(i64::from(value))))
                    .collect())
            }
            ColumnReader::Int64ColumnReader(pages) => Ok(self
                .values(pages, count, NAME)?
                .into_iter()
                .map(|value| value.map(Label::Number))
                .collect()),
            ColumnReader::ByteArrayColumnReader(_) => {
                Ok(self.words(group, NAME, count)?.into_iter().map(|word| word.map(Label::Word)).collect())
            }
            _ => Err(self.value(NAME, "words or whole numbers", &format!("{}", self.column_type(index)))),
        }
    }

    /// A column of words.
    fn words(
        &self,
        group: usize,
        column: &'static str,
        count: usize,
    ) -> Result<Vec<Option<String>>, DataError> {
        let bytes = self
            .column(column)
            .map_or(0, |index| self.reader.metadata().row_group(group).column(index).uncompressed_size());
        if bytes > MAX_LABEL_BYTES {
            let (bytes, limit) = (bytes.unsigned_abs(), MAX_LABEL_BYTES.unsigned_abs());
            return Err(DataError::new(&self.name, None, Problem::TooLarge { bytes, limit }));
        }
        let pages = self.pages(group, column)?;
        let word = |value: ByteArray| {
            let text = value.as_utf8().map_err(|_| self.value(column, "UTF-8", "other bytes"))?;
            Ok(text.to_owned())
        };
        let values = self.values(pages, count, column)?;
        values.into_iter().map(|value| value.map(word).transpose()).collect()
    }

    /// The values of a column, one a row.
    fn values<T: DataType>(
        &self,
        mut pages: ColumnReaderImpl<T>,
        count: usize,
        column: &'static str,
    ) -> Result<Vec<Option<T::T>>, DataError> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let described = self.column(column).map(|index| schema.column(index));
        let whole = described.map_or(0, |column| column.max_def_level());
        let mut all = Vec::new();
        while all.len() < count {
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let most = BATCH.min(count - all.len());
            let (records, _, _) = pages
                .read_records(most, Some(&mut levels), None, &mut values)
                .map_err(|error| self.refuse(error.to_string()))?;
            if records == 0 {
                let message =
                    format!("the column {column} has {} values, its row group {count} rows", all.len());
                return Err(self.refuse(message));
            }
            let mut values = values.into_iter();
            if whole == 0 {
                all.extend(values.map(Some));
            } else {
                all.extend(levels.into_iter().map(|level| if level == whole { values.next() } else { None }));
            }
        }
        Ok(all)
    }
}

fn refuse(name: &str, reason: String) -> DataError {
    let (expected, reason) = ("a Parquet file, uncompressed or with Snappy", reason);
    DataError::new(name, None, Problem::Json { expected, reason })
}

/// What `read` gives; an error where the library fails by panicking, as it does on some damaged files.
fn guarded<T>(name: &str, read: impl FnOnce() -> Result<T, DataError>) -> Result<T, DataError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(refuse(name, "its pages contradict each other; the file is damaged".to_owned()))
    })
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION))
}

/// The Parquet files of a folder, in the order of their names.
fn shards(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let refuse = |error| DataError::new(&folder.display().to_string(), None, Problem::Unreadable(error));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        if is_parquet(&path) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
