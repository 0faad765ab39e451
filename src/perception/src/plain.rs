//! PNG files of 8-bit RGB pixels and nothing that changes how they look: most of what text-to-image servers send.
//!
//! Such a file is rewritten first, as its header, its pixel data in one chunk and its end, and the pixels are read from
//! the rewritten file. So that file can go out in place of a new one: it is what was decoded and judged, byte for byte,
//! and there is nothing in it that was not decoded. What is not plain, or not sound to the last bit, is no error here: it
//! is left to the decoder of all formats, and encoded anew when it goes out.
//!
//! What is plain (PNG, Third Edition, <https://www.w3.org/TR/png-3/>): colour type 2 with 8 bits, not interlaced; chunks
//! of [`WORDS`] alone beside the critical ones, every checksum right; pixel data of consecutive chunks that are one zlib
//! stream with a window of 32 KiB, which ends with their last byte, holds as many bytes as the header says, and is not
//! longer than the pixels themselves; nothing after the end.
//!
//! The same pixels can be compressed in many ways, and which of them it was is all that the file says beside its pixels.
//! No viewer shows that, and it is less than the pixels' own lowest bits can say, which no encoder takes away either.

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use image::RgbImage;

/// Chunks without a part in how a picture looks. They are left out. Everything else that may stand in a file makes it not
/// plain: palettes, transparency, colour spaces, orientation, further frames, and what nobody knows.
const WORDS: [&[u8; 4]; 6] = [b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"sRGB"];

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Bytes before the pixel data in a file that begins with signature, header and the head of a data chunk.
const HEAD: usize = 8 + 25 + 8;
/// Bytes of a pixel.
const PIXEL: usize = 3;
/// Bytes of a chunk's checksum.
const CHECKSUM: usize = 4;
/// First byte of a zlib stream with a window of 32 KiB. A smaller one is the writer's promise about distances, which not
/// every reader holds it to.
const ZLIB: u8 = 0x78;
/// No deflate stream expands further than this.
const EXPANSION: usize = 1032;

/// A plain file and its pixels.
#[derive(Debug)]
pub(crate) struct PlainPng {
    /// Signature, `IHDR`, one `IDAT`, `IEND`.
    pub(crate) file: Bytes,
    pub(crate) pixels: RgbImage,
}

impl PlainPng {
    /// Reads `bytes`, if they are a plain file of at most `max_pixels` pixels.
    pub(crate) fn read(bytes: &[u8], max_pixels: u64) -> Option<Self> {
        let Rewritten { file, width, height } = Rewritten::of(bytes)?;
        let count = u64::from(width) * u64::from(height);
        if count == 0 || count > max_pixels {
            return None;
        }
        let row = usize::try_from(width).ok()?.checked_mul(PIXEL)?.checked_add(1)?;
        let filtered = usize::try_from(height).ok()?.checked_mul(row)?;
        let zlib = file.get(HEAD..file.len().checked_sub(CHECKSUM + 12)?)?;
        let is_dense = zlib.len() <= filtered + filtered / 1024 + 64 && filtered / EXPANSION <= zlib.len();
        if !is_dense {
            return None;
        }
        let mut pixels = inflate(zlib, filtered)?;
        unfilter(&mut pixels, row)?;
        Some(Self { file: file.into(), pixels: RgbImage::from_raw(width, height, pixels)? })
    }
}

/// A file without words.
struct Rewritten {
    file: Vec<u8>,
    width: u32,
    height: u32,
}

impl Rewritten {
    /// Takes header and pixel data out of a file; none if anything else in it has a part in how it looks, or is damaged.
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut chunks = Chunks(bytes.strip_prefix(&SIGNATURE)?);
        let (kind, header) = chunks.next()?;
        let (width, rest) = header.split_first_chunk::<4>()?;
        let (height, rest) = rest.split_first_chunk::<4>()?;
        // 8 bits, RGB, the only compression, the only filters, not interlaced.
        if kind != b"IHDR" || rest != [8, 2, 0, 0, 0] {
            return None;
        }
        let (width, height) = (u32::from_be_bytes(*width), u32::from_be_bytes(*height));
        let mut file = Vec::with_capacity(bytes.len() + 12);
        file.extend_from_slice(&SIGNATURE);
        write_chunk(&mut file, *b"IHDR", header)?;
        file.extend_from_slice(b"\0\0\0\0IDAT");
        let mut before = *kind;
        loop {
            let (kind, content) = chunks.next()?;
            match kind {
                b"IDAT" if before == *b"IDAT" || file.len() == HEAD => file.extend_from_slice(content),
                b"IEND" if content.is_empty() => break,
                kind if WORDS.contains(&kind) => {}
                _ => return None,
            }
            before = *kind;
        }
        let length = u32::try_from(file.len() - HEAD).ok().filter(|length| i32::try_from(*length).is_ok())?;
        if !chunks.0.is_empty() || file.get(HEAD) != Some(&ZLIB) {
            return None;
        }
        file.get_mut(HEAD - 8..HEAD - 4)?.copy_from_slice(&length.to_be_bytes());
        let checksum = crc32fast::hash(file.get(HEAD - 4..)?);
        file.extend_from_slice(&checksum.to_be_bytes());
        write_chunk(&mut file, *b"IEND", &[])?;
        Some(Self { file, width, height })
    }
}

/// What is left of a file's chunks.
struct Chunks<'a>(&'a [u8]);

impl<'a> Chunks<'a> {
    /// The next one's type and content; none at the end of the file, and if it is damaged.
    fn next(&mut self) -> Option<(&'a [u8; 4], &'a [u8])> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (checked, rest) = rest.split_at_checked(length.checked_add(4)?)?;
        let (checksum, rest) = rest.split_first_chunk::<CHECKSUM>()?;
        self.0 = rest;
        let sound = crc32fast::hash(checked) == u32::from_be_bytes(*checksum);
        checked.split_first_chunk().filter(|_| sound)
    }
}

fn write_chunk(file: &mut Vec<u8>, kind: [u8; 4], content: &[u8]) -> Option<()> {
    file.extend_from_slice(&u32::try_from(content.len()).ok()?.to_be_bytes());
    let begin = file.len();
    file.extend_from_slice(&kind);
    file.extend_from_slice(content);
    let checksum = crc32fast::hash(file.get(begin..)?);
    file.extend_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// The content of a zlib stream, if it is `length` bytes and the stream ends with the last byte of `zlib`. The checksum at
/// its end is checked.
fn inflate(zlib: &[u8], length: usize) -> Option<Vec<u8>> {
    let (mut reader, mut content) = (Decompress::new(true), vec![0; length]);
    let ended = reader.decompress(zlib, &mut content, FlushDecompress::Finish).ok()?;
    let all = reader.total_in() == zlib.len() as u64 && reader.total_out() == length as u64;
    (ended == Status::StreamEnd && all).then_some(content)
}

/// Undoes the filters of rows of `row` bytes, of which the first names the filter, and moves the rows together.
fn unfilter(rows: &mut Vec<u8>, row: usize) -> Option<()> {
    let width = row.checked_sub(1).filter(|width| *width > 0)?;
    let first = vec![0; width];
    for number in 0..rows.len() / row {
        let filter = *rows.get(number * row)?;
        rows.copy_within(number * row + 1..(number + 1) * row, number * width);
        let (done, rest) = rows.split_at_mut_checked(number * width)?;
        let above = done.len().checked_sub(width).map_or(&*first, |begin| &done[begin..]);
        unfilter_row(filter, above, rest.get_mut(..width)?)?;
    }
    rows.truncate(rows.len() / row * width);
    Some(())
}

/// One row, whole pixels, from its filtered bytes and the row above (PNG, section 9.2).
fn unfilter_row(filter: u8, above: &[u8], row: &mut [u8]) -> Option<()> {
    let mut left = [0_u8; PIXEL];
    let pixels = row.as_chunks_mut::<PIXEL>().0.iter_mut().zip(above.as_chunks::<PIXEL>().0);
    match filter {
        0 => {}
        1 => pixels.for_each(|(pixel, _)| {
            for (value, left) in pixel.iter_mut().zip(&mut left) {
                *value = value.wrapping_add(*left);
                *left = *value;
            }
        }),
        2 => pixels.for_each(|(pixel, above)| {
            for (value, above) in pixel.iter_mut().zip(above) {
                *value = value.wrapping_add(*above);
            }
        }),
        3 => pixels.for_each(|(pixel, above)| {
            for ((value, left), above) in pixel.iter_mut().zip(&mut left).zip(above) {
                *value = value.wrapping_add(((u16::from(*left) + u16::from(*above)) / 2) as u8);
                *left = *value;
            }
        }),
        4 => {
            let mut corner = [0_u8; PIXEL];
            pixels.for_each(|(pixel, above)| {
                for (((value, left), above), corner) in
                    pixel.iter_mut().zip(&mut left).zip(above).zip(&mut corner)
                {
                    *value = value.wrapping_add(paeth(*left, *above, *corner));
                    (*left, *corner) = (*value, *above);
                }
            });
        }
        _ => return None,
    }
    Some(())
}

/// The neighbour that is nearest to left + above - corner; of equally near ones the first.
fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let (a, b, c) = (i16::from(left), i16::from(above), i16::from(corner));
    let (to_a, to_b, to_c) = ((b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs());
    let (nearer, distance) = if to_b < to_a { (above, to_b) } else { (left, to_a) };
    if to_c < distance { corner } else { nearer }
}
