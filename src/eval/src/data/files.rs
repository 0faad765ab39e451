//! Data sets that lie in files.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use cluegate_perception::{DecodeOptions, Picture, decode};

use super::error::{DataError, Problem};
use super::folder::{self, LABELS_FILE};
use super::{DataSet, MAX_TEXT_BYTES, Row, Text, llavaguard, safeeditbench, unsafebench};

/// The forms of labels that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Our own: a folder with `labels.csv`.
    Folder,
    /// LlavaGuard: one JSON array.
    LlavaGuard,
    /// UnsafeBench: JSON lines.
    UnsafeBench,
    /// SafeEditBench: JSON lines.
    SafeEditBench,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Folder, Self::LlavaGuard, Self::UnsafeBench, Self::SafeEditBench];

    /// The name used on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::LlavaGuard => "llavaguard",
            Self::UnsafeBench => "unsafebench",
            Self::SafeEditBench => "safeeditbench",
        }
    }

    /// Reads the labels, each row with its line. Looks at no picture.
    ///
    /// # Errors
    /// A row that cannot be understood, with its line.
    pub fn parse(self, text: Text<'_>) -> Result<Vec<(usize, Row)>, DataError> {
        let rows = match self {
            Self::Folder => folder::parse(text)?,
            Self::LlavaGuard => llavaguard::parse(text)?,
            Self::UnsafeBench => unsafebench::parse(text)?,
            Self::SafeEditBench => safeeditbench::parse(text)?,
        };
        super::refuse_repeated(text.file, &rows)?;
        for (line, row) in &rows {
            refuse_outside(text.file, *line, &row.picture)?;
        }
        Ok(rows)
    }
}

/// A data set in files: labels in one, pictures in files of their own.
#[derive(Debug)]
pub struct FileSet {
    name: String,
    rows: Vec<Row>,
    rules: Vec<String>,
    pictures: PathBuf,
}

impl FileSet {
    /// Reads the labels at `path`, a file, or for [`Format::Folder`] the folder that holds [`LABELS_FILE`]. Pictures lie
    /// below `pictures`, if that is named, else below the folder of the labels.
    ///
    /// # Errors
    /// Labels that cannot be read, or a picture that is not there.
    pub fn open(format: Format, path: &Path, pictures: Option<&Path>) -> Result<Self, DataError> {
        let labels =
            if format == Format::Folder && path.is_dir() { path.join(LABELS_FILE) } else { path.to_owned() };
        let file = labels.display().to_string();
        let content = read_text(&labels)?;
        let parsed = format.parse(Text { file: &file, content: &content })?;
        let beside = || labels.parent().unwrap_or(Path::new("")).to_owned();
        let pictures = pictures.map_or_else(beside, Path::to_owned);
        for (line, row) in &parsed {
            let path = pictures.join(&row.picture);
            if !path.is_file() {
                let path = path.display().to_string();
                return Err(DataError::new(&file, *line, Problem::MissingPicture { path }));
            }
        }
        let rows: Vec<Row> = parsed.into_iter().map(|(_, row)| row).collect();
        let mut rules: Vec<String> =
            rows.iter().filter_map(|row| row.truth.rules()).flatten().cloned().collect();
        rules.sort();
        rules.dedup();
        Ok(Self { name: format.as_str().to_owned(), rows, rules, pictures })
    }
}

impl DataSet for FileSet {
    fn name(&self) -> &str {
        &self.name
    }

    fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn rules(&self) -> &[String] {
        &self.rules
    }

    fn picture(&self, index: usize) -> Result<Picture, DataError> {
        let row = &self.rows[index];
        let path = self.pictures.join(&row.picture);
        let file = path.display().to_string();
        // Benchmarks hold whatever the web holds: what depends on the viewer is looked at as most viewers show it.
        let options = DecodeOptions { convert: true, ..DecodeOptions::default() };
        let bytes = read_bounded(&path, options.max_bytes as u64)?;
        decode(&bytes, &options).map_err(|error| {
            let problem = Problem::Picture { id: row.id.clone(), reason: error.to_string() };
            DataError::new(&file, None, problem)
        })
    }
}

/// Reads a text of at most [`MAX_TEXT_BYTES`].
pub(crate) fn read_text(path: &Path) -> Result<String, DataError> {
    String::from_utf8(read_bounded(path, MAX_TEXT_BYTES)?).map_err(|error| {
        let problem = Problem::NotUtf8(error.utf8_error().valid_up_to());
        DataError::new(&path.display().to_string(), None, problem)
    })
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, DataError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| DataError::new(&name, None, Problem::Unreadable(error)))?;
    let came = bytes.len() as u64;
    if came > limit {
        return Err(DataError::new(&name, None, Problem::TooLarge { bytes: came, limit }));
    }
    Ok(bytes)
}

/// Refuses a picture's path that leads out of the folder of pictures: a data set is outside data.
fn refuse_outside(file: &str, line: usize, picture: &str) -> Result<(), DataError> {
    let inside =
        Path::new(picture).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if inside && !picture.trim().is_empty() {
        return Ok(());
    }
    let expected = "a path below the folder of pictures, without `..`".to_owned();
    let came = super::error::shortened(picture);
    Err(DataError::new(file, line, Problem::Value { key: "picture", expected, came }))
}
