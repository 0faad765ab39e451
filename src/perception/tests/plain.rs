//! The file of a picture that is handed out holds its pixels and nothing else, whatever came.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use cluegate_perception::{DecodeOptions, Picture, decode};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _, Rgb, RgbImage};
use proptest::prelude::*;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const SIDE: u32 = 24;

/// A chunk with its checksum.
fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let checked = [&kind[..], content].concat();
    [&(content.len() as u32).to_be_bytes()[..], &checked, &crc32fast::hash(&checked).to_be_bytes()].concat()
}

fn header(width: u32, height: u32, rest: [u8; 5]) -> Vec<u8> {
    chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &rest].concat())
}

const RGB: [u8; 5] = [8, 2, 0, 0, 0];

fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
    [SIGNATURE, &chunks.concat()].concat()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Rows of grain with their filters, the first of them none.
fn rows(width: u32, height: u32) -> Vec<u8> {
    let row = |y: u32| {
        let values = (0..width * 3).map(move |x| (x * 37 + y * 101 + x * y % 13) as u8);
        std::iter::once((y % 5) as u8).chain(values)
    };
    (0..height).flat_map(row).collect()
}

/// The types and contents of a file's chunks, to its last byte.
fn chunks(file: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    let (mut found, mut rest) = (Vec::new(), file.strip_prefix(SIGNATURE).unwrap());
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let expected = chunk(rest[4..8].try_into().unwrap(), &rest[8..8 + length]);
        assert_eq!(rest[..expected.len()], expected);
        found.push((rest[4..8].try_into().unwrap(), rest[8..8 + length].to_vec()));
        rest = &rest[expected.len()..];
    }
    found
}

/// The pixel data of a file.
fn data(file: &[u8]) -> Vec<u8> {
    let data = chunks(file).into_iter().filter(|(kind, _)| kind == b"IDAT");
    data.flat_map(|(_, content)| content).collect()
}

fn read(file: &[u8]) -> Picture {
    decode(file, &DecodeOptions::default()).unwrap()
}

/// What goes out, after what must be so of every picture.
fn released(picture: &Picture) -> Vec<u8> {
    let out = picture.png().unwrap().to_vec();
    let kinds: Vec<[u8; 4]> = chunks(&out).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.first(), Some(b"IHDR"));
    assert_eq!(kinds.last(), Some(b"IEND"));
    assert!(kinds[1..kinds.len() - 1].iter().all(|kind| kind == b"IDAT"), "{kinds:?}");
    assert_eq!(&image::load_from_memory(&out).unwrap().into_rgb8(), picture.pixels());
    out
}

/// Whether the compressed bytes that came are those that go out.
fn goes_out_as_it_came(came: &[u8], stream: &[u8]) -> bool {
    data(&released(&read(came))) == stream
}

fn encoded(pixels: &RgbImage, filter: FilterType, compression: CompressionType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, compression, filter);
    encoder.write_image(pixels.as_raw(), pixels.width(), pixels.height(), ExtendedColorType::Rgb8).unwrap();
    bytes
}

#[test]
fn words_around_the_pixels_are_left_out_and_the_pixels_go_out_as_they_came() {
    let stream = zlib(&rows(SIDE, SIDE));
    let (front, back) = stream.split_at(stream.len() / 2);
    let came = file(&[
        header(SIDE, SIDE, RGB),
        chunk(b"tEXt", b"parameters\0a secret prompt"),
        chunk(b"sRGB", &[0]),
        chunk(b"IDAT", front),
        chunk(b"IDAT", back),
        chunk(b"iTXt", b"prompt\0\0\0\0\0a secret prompt"),
        chunk(b"IEND", b""),
    ]);
    let picture = read(&came);
    let expected = file(&[header(SIDE, SIDE, RGB), chunk(b"IDAT", &stream), chunk(b"IEND", b"")]);
    assert_eq!(released(&picture), expected);
    assert_eq!(picture.pixels(), &image::load_from_memory(&came).unwrap().into_rgb8());
    // What went out is such a file itself, and other pixels have one of their own.
    assert_eq!(released(&read(&expected)), expected);
    assert_ne!(released(&Picture::new(picture.pixels().clone())), expected);
}

#[test]
fn a_file_that_has_a_part_in_how_it_looks_is_written_anew() {
    let stream = zlib(&rows(SIDE, SIDE));
    let with = |extra: Vec<u8>| {
        file(&[header(SIDE, SIDE, RGB), extra, chunk(b"IDAT", &stream), chunk(b"IEND", b"")])
    };
    for (kind, content) in [
        (b"gAMA", &45_455_u32.to_be_bytes()[..]),
        (b"cHRM", &[0; 32]),
        (b"iCCP", b"name\0\0profile"),
        (b"cICP", &[9, 16, 0, 1]),
        (b"PLTE", &[1, 2, 3]),
        (b"bKGD", &[0; 6]),
        (b"sBIT", &[5, 5, 5]),
        (b"eXIf", b"MM\0*\0\0\0\x08\0\0\0\0\0\0"),
        (b"caBX", b"provenance"),
        (b"prVt", b"anything"),
    ] {
        assert!(!goes_out_as_it_came(&with(chunk(kind, content)), &stream), "{}", kind.escape_ascii());
    }
    assert!(goes_out_as_it_came(&with(chunk(b"tIME", &[7, 234, 11, 22, 15, 0, 0])), &stream));
}

#[test]
fn nothing_goes_out_that_was_not_decoded() {
    let stream = zlib(&rows(SIDE, SIDE));
    let of = |stream: &[u8], tail: &[u8]| {
        let chunks = [header(SIDE, SIDE, RGB), chunk(b"IDAT", stream), chunk(b"IEND", b"")];
        [&file(&chunks)[..], tail].concat()
    };
    assert!(goes_out_as_it_came(&of(&stream, b""), &stream));
    // Behind the end of the file, and behind the end of the stream: one byte, or a stream of its own.
    assert!(!goes_out_as_it_came(&of(&stream, b"\0"), &stream));
    for hidden in [&b"\0"[..], b"a secret", &zlib(b"a secret picture")] {
        let longer = [&stream, hidden].concat();
        let out = released(&read(&of(&longer, b"")));
        assert_ne!(data(&out), longer);
        assert!(hidden.len() < 3 || !out.windows(hidden.len()).any(|window| window == hidden));
    }
    // Further rows, which no header tells of.
    let taller = zlib(&rows(SIDE, SIDE + 1));
    assert!(!goes_out_as_it_came(&of(&taller, b""), &taller));
    // Blocks that hold nothing, more of them than the picture has bytes: zlib's empty stored block, again and again.
    let (head, body) = stream.split_at(2);
    let padded = [head, &[0, 0, 0, 0xFF, 0xFF].repeat(1000), body].concat();
    assert!(!goes_out_as_it_came(&of(&padded, b""), &padded));
    // A window that the stream may not keep to.
    let narrow = [&[0x08, 0x1D], body].concat();
    assert!(
        decode(&of(&narrow, b""), &DecodeOptions::default())
            .map_or(true, |picture| { data(&released(&picture)) != narrow })
    );
}

#[test]
fn damage_is_found_here_as_by_the_decoder_of_all_formats() {
    let content = rows(SIDE, SIDE);
    let stream = zlib(&content);
    let end = || chunk(b"IEND", b"");
    let of = |stream: &[u8]| file(&[header(SIDE, SIDE, RGB), chunk(b"IDAT", stream), end()]);
    let is_refused = |file: &[u8]| decode(file, &DecodeOptions::default()).is_err();
    let mut wrong_sum = stream.clone();
    *wrong_sum.last_mut().unwrap() ^= 1;
    let mut no_filter = content.clone();
    no_filter[73] = 5;
    // That decoder leaves the stream's own checksum unread.
    assert!(!goes_out_as_it_came(&of(&wrong_sum), &wrong_sum));
    assert!(is_refused(&of(&zlib(&no_filter))));
    assert!(
        is_refused(&of(&stream[..stream.len() - 9])) && is_refused(&of(&zlib(&content[..content.len() - 1])))
    );
    assert!(is_refused(&file(&[header(0, SIDE, RGB), chunk(b"IDAT", &stream), end()])));
    assert!(is_refused(&file(&[header(SIDE, 0, RGB), chunk(b"IDAT", &zlib(b"")), end()])));
    // Claims of a small file about a large picture, below the limit and above it.
    for side in [6_000, 60_000, u32::MAX] {
        assert!(is_refused(&file(&[header(side, side, RGB), chunk(b"IDAT", &stream), end()])), "{side}");
    }
    // Interlaced, 16 bits, and data that something stands between are read by the other decoder, or refused.
    let (front, back) = stream.split_at(100);
    let parted = [chunk(b"IDAT", front), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", back)].concat();
    for file in [
        file(&[header(SIDE, SIDE, RGB), parted, end()]),
        file(&[header(SIDE, SIDE, [8, 2, 0, 0, 1]), chunk(b"IDAT", &stream), end()]),
        file(&[header(SIDE, SIDE, [16, 2, 0, 0, 0]), chunk(b"IDAT", &zlib(&rows(SIDE * 2, SIDE))), end()]),
        file(&[header(SIDE, SIDE, RGB), chunk(b"IDAT", &stream)]),
    ] {
        let read = decode(&file, &DecodeOptions { convert: true, ..DecodeOptions::default() });
        assert!(read.map_or(true, |picture| data(&released(&picture)) != stream));
    }
}

fn pictures() -> impl Strategy<Value = RgbImage> {
    (1_u32..40, 1_u32..30, any::<u64>(), 1_u64..256).prop_map(|(width, height, seed, levels)| {
        RgbImage::from_fn(width, height, |x, y| {
            let at = u64::from(x) * 3 + u64::from(y) * 1009 + seed;
            Rgb([1, 7, 31]
                .map(|channel| (at.wrapping_mul(channel * 0x9E37_79B9_7F4A_7C15) >> 40) % levels)
                .map(|v| v as u8))
        })
    })
}

proptest! {
    #[test]
    fn what_goes_out_shows_what_was_judged(
        pixels in pictures(),
        filter in proptest::sample::select(vec![
            FilterType::NoFilter, FilterType::Sub, FilterType::Up, FilterType::Avg, FilterType::Paeth, FilterType::Adaptive,
        ]),
        compression in proptest::sample::select(vec![CompressionType::Default, CompressionType::Fast, CompressionType::Best]),
    ) {
        let picture = read(&encoded(&pixels, filter, compression));
        prop_assert_eq!(picture.pixels(), &pixels);
        prop_assert_eq!(picture.hash(), Picture::new(pixels).hash());
        released(&picture);
    }

    #[test]
    fn any_rows_are_read_as_by_the_decoder_of_all_formats(
        width in 1_u32..20,
        filters in proptest::collection::vec(0_u8..5, 1..12),
        bytes in proptest::collection::vec(any::<u8>(), 60 * 12),
    ) {
        let row = width as usize * 3;
        let content: Vec<u8> = filters
            .iter()
            .zip(bytes.chunks(60))
            .flat_map(|(filter, bytes)| std::iter::once(filter).chain(&bytes[..row]).copied())
            .collect();
        let stream = zlib(&content);
        let came = file(&[
            header(width, filters.len() as u32, RGB), chunk(b"IDAT", &stream), chunk(b"IEND", b""),
        ]);
        let picture = read(&came);
        prop_assert_eq!(picture.pixels(), &image::load_from_memory(&came).unwrap().into_rgb8());
        prop_assert_eq!(released(&picture), came);
    }

    #[test]
    fn whatever_is_read_of_a_damaged_file_is_what_goes_out(
        pixels in pictures(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        repaired: bool,
    ) {
        let mut came = encoded(&pixels, FilterType::Adaptive, CompressionType::Default);
        for (at, byte) in changes {
            let at = at.index(came.len());
            came[at] = byte;
        }
        if repaired {
            // The checksum of the first data chunk, as somebody would who means it.
            let length = came.get(33..37).map(|length| u32::from_be_bytes(length.try_into().unwrap()) as usize);
            if let Some(end) = length.and_then(|length| 41_usize.checked_add(length))
                && let Some(checked) = came.get(37..end)
            {
                let checksum = crc32fast::hash(checked).to_be_bytes();
                came.get_mut(end..end + 4).into_iter().for_each(|place| place.copy_from_slice(&checksum));
            }
        }
        if let Ok(picture) = decode(&came, &DecodeOptions::default()) {
            released(&picture);
        }
    }
}
