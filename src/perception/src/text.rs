//! A text beside the pixels of a file.

/// Signature and header chunk of a PNG file.
const PNG_HEAD: usize = 8 + 12 + 13;
/// Start of a JPEG file, the marker of its first segment, and that of a comment.
const START: [u8; 2] = [0xFF, 0xD8];
const APP0: [u8; 2] = [0xFF, 0xE0];
const COMMENT: [u8; 2] = [0xFF, 0xFE];

/// The PNG file `png` with `text` in a `tEXt` chunk after its header; none if it is no PNG, if the keyword is not of 1 to 79
/// letters, or if the text is not printable ASCII (PNG specification, third edition, 11.3.3.2).
pub fn png_with_text(png: &[u8], keyword: &str, text: &str) -> Option<Vec<u8>> {
    let (head, rest) = png.split_at_checked(PNG_HEAD)?;
    let sound = head.starts_with(b"\x89PNG\r\n\x1a\n") && &head[12..16] == b"IHDR";
    let named = (1..=79).contains(&keyword.len()) && keyword.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !sound || !named || !is_plain(text) {
        return None;
    }
    let length = u32::try_from(keyword.len() + 1 + text.len()).ok()?;
    let chunk = [b"tEXt", keyword.as_bytes(), &[0], text.as_bytes()].concat();
    let checksum = crc32fast::hash(&chunk);
    Some([head, &length.to_be_bytes(), &chunk, &checksum.to_be_bytes(), rest].concat())
}

/// The JPEG file `jpeg` with `text` in a comment, after the segment that JFIF wants first; none if it is no JPEG, or if the
/// text is not printable ASCII or too long for a segment (ITU-T T.81, B.2.4.5).
pub fn jpeg_with_comment(jpeg: &[u8], text: &str) -> Option<Vec<u8>> {
    let after_start = jpeg.strip_prefix(&START)?;
    let first = match after_start.strip_prefix(&APP0) {
        // Its length counts itself and not the marker.
        Some(segment) => 2 + usize::from(u16::from_be_bytes(*segment.first_chunk()?)),
        None => 0,
    };
    let (head, rest) = jpeg.split_at_checked(START.len() + first)?;
    let length = u16::try_from(text.len() + 2).ok().filter(|_| is_plain(text))?;
    Some([head, &COMMENT, &length.to_be_bytes(), text.as_bytes(), rest].concat())
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}
