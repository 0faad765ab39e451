//! What the gate and a plugin's process say to each other: frames of a length and JSON. Pixels lie in memory that both share.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::instance::MAX_PIXELS;
use crate::message::{Ask, Description, Said};

/// Longest frame in bytes.
pub(crate) const MAX_FRAME: usize = 8 << 20;

/// A picture in the shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToWorker {
    /// First of all.
    Open { plugin: String, path: PathBuf, sha256: String, config: String, folder: String },
    Ask {
        ask: Ask,
        /// They lie one behind the other.
        pictures: Vec<Size>,
        deadline_ms: u64,
    },
    /// The answer to `Wants` and `Step`.
    Go(bool),
}

/// What the plugin's process says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FromWorker {
    Opened { description: Description, fingerprint: String },
    NotOpened { problem: String },
    Wants { step: u32, total: u32 },
    Step { step: u32, total: u32, preview: Option<Size> },
    Given { said: Said, picture: Option<Size> },
    Failed { code: i32, message: String },
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

impl Size {
    /// Bytes of the picture, if there are pixels and `room` holds them.
    pub(crate) fn bytes(self, room: usize) -> io::Result<usize> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        let bytes = usize::try_from(3 * pixels.min(MAX_PIXELS + 1)).unwrap_or(usize::MAX);
        if pixels == 0 || pixels > MAX_PIXELS || bytes > room {
            return Err(invalid(format!(
                "a picture of {} x {} pixels, expected at least one and at most {} bytes",
                self.width, self.height, room
            )));
        }
        Ok(bytes)
    }
}

/// A message as a frame.
pub(crate) fn write(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let len = frame.len() - 4;
    if len > MAX_FRAME {
        return Err(invalid(format!("a message of {len} bytes, expected at most {MAX_FRAME}")));
    }
    frame[..4].copy_from_slice(&(len as u32).to_le_bytes());
    stream.write_all(&frame)
}

/// Frames out of a stream that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    /// Reads what is there, and gives a message if it is whole.
    ///
    /// # Errors
    /// `WouldBlock` or `TimedOut` as the stream says; `UnexpectedEof` at its end; `InvalidData` for a frame that is too
    /// long or no message.
    pub(crate) fn read<T: DeserializeOwned>(&mut self, stream: &mut impl Read) -> io::Result<T> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            let mut piece = [0; 16 << 10];
            match stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.buffer.extend_from_slice(&piece[..read]),
            }
        }
    }

    /// The next message of what was read, if it is whole.
    fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((len, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        if len > MAX_FRAME {
            return Err(invalid(format!("a frame of {len} bytes, expected at most {MAX_FRAME}")));
        }
        let Some(frame) = rest.get(..len) else { return Ok(None) };
        let message =
            serde_json::from_slice(frame).map_err(|error| invalid(format!("no message: {error}")))?;
        self.buffer.drain(..4 + len);
        Ok(Some(message))
    }
}

/// Reads all frames in `bytes`, as both sides would, and checks the sizes of their pictures. For the fuzzer.
#[doc(hidden)]
pub fn parse_all(bytes: &[u8], room: usize) -> usize {
    let mut read = 0;
    let mut stream = bytes;
    let mut frames = Frames::default();
    while let Ok(message) = frames.read::<FromWorker>(&mut stream) {
        if let FromWorker::Step { preview: Some(size), .. } | FromWorker::Given { picture: Some(size), .. } =
            message
        {
            assert!(size.bytes(room).is_ok_and(|bytes| bytes <= room) || size.bytes(room).is_err());
        }
        read += 1;
    }
    let mut stream = bytes;
    let mut frames = Frames::default();
    while frames.read::<ToWorker>(&mut stream).is_ok() {
        read += 1;
    }
    read
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::message::{Drawing, Found};

    fn messages() -> Vec<FromWorker> {
        vec![
            FromWorker::Wants { step: 1, total: 4 },
            FromWorker::Given { said: Said::Found(Found::default()), picture: None },
            FromWorker::Step { step: 2, total: 4, preview: Some(Size { width: 8, height: 8 }) },
            FromWorker::Failed { code: 16, message: "it panicked: \u{fc}".to_owned() },
        ]
    }

    /// A stream that gives at most so many bytes at once.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(room.len());
            self.0.read(&mut room[..most])
        }
    }

    #[test]
    fn a_question_comes_back_as_it_was() {
        let drawing = Drawing { prompt: "a red circle".to_owned(), seed: u64::MAX, ..Drawing::default() };
        let asked = ToWorker::Ask {
            ask: Ask::Generate(drawing),
            pictures: vec![Size { width: 2, height: 1 }],
            deadline_ms: 7,
        };
        let mut stream = Vec::new();
        write(&mut stream, &asked).unwrap();
        assert_eq!(Frames::default().read::<ToWorker>(&mut &stream[..]).unwrap(), asked);
    }

    #[test]
    fn frames_that_are_too_long_and_pictures_that_do_not_fit_are_refused() {
        let long = (MAX_FRAME as u32 + 1).to_le_bytes();
        let error = Frames::default().read::<FromWorker>(&mut &long[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        for (width, height, fits) in
            [(2, 2, true), (4, 1, true), (5, 1, false), (0, 9, false), (u32::MAX, u32::MAX, false)]
        {
            assert_eq!(Size { width, height }.bytes(12).is_ok(), fits, "{width} x {height}");
        }
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_make_the_same_messages(piece in 1_usize..40) {
            let mut stream = Vec::new();
            messages().iter().for_each(|message| write(&mut stream, message).unwrap());
            let (mut pieces, mut frames) = (Pieces(&stream, piece), Frames::default());
            for message in messages() {
                prop_assert_eq!(frames.read::<FromWorker>(&mut pieces).unwrap(), message);
            }
            prop_assert_eq!(frames.read::<FromWorker>(&mut pieces).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
            parse_all(&bytes, 12);
            let mut stream = Vec::new();
            messages().iter().for_each(|message| write(&mut stream, message).unwrap());
            let at = at.index(stream.len());
            stream.splice(at..at, bytes);
            parse_all(&stream, 12);
        }
    }
}
