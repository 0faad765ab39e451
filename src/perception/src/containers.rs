//! What the pixel decoders do not tell of a file: marks around the picture that change what a viewer shows.

/// Range of a PNG's gamma (times 100,000) that means what everybody assumes anyway: 1/2.2 is 45,455.
const USUAL_GAMMA: std::ops::RangeInclusive<u32> = 41_000..=50_000;

/// A JPEG's frame header and what stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JpegFrame<'a> {
    /// The file from the frame header on: the number of colour components at offset 9, and the end marker, which a
    /// thumbnail inside the metadata before it has too.
    bytes: &'a [u8],
    /// Whether a Multi-Picture Format index (CIPA DC-007) announces further pictures in the file.
    pub(crate) several_pictures: bool,
}

impl<'a> JpegFrame<'a> {
    /// Follows the segments of a JPEG file to its frame header; none if they lead nowhere.
    pub(crate) fn find(file: &'a [u8]) -> Option<Self> {
        let mut rest = file.get(2..)?;
        let mut several_pictures = false;
        loop {
            rest = match rest {
                // Any number of fill bytes may stand before a marker (ITU-T T.81, B.1.1.2).
                [0xFF, 0xFF, ..] => rest.get(1..)?,
                // Markers without a length: TEM and the restarts.
                [0xFF, 0x01 | 0xD0..=0xD7, ..] => rest.get(2..)?,
                // Frame headers are C0 to CF, without the tables (C4, C8, CC) between them.
                [0xFF, marker, ..]
                    if (0xC0..=0xCF).contains(marker) && !matches!(marker, 0xC4 | 0xC8 | 0xCC) =>
                {
                    return Some(Self { bytes: rest, several_pictures });
                }
                [0xFF, marker, high, low, content @ ..] => {
                    several_pictures |= *marker == 0xE2 && content.starts_with(b"MPF\0");
                    rest.get(2 + usize::from(u16::from_be_bytes([*high, *low]))..)?
                }
                _ => return None,
            };
        }
    }

    /// Whether the end marker is there.
    pub(crate) fn is_ended(&self) -> bool {
        self.bytes.windows(2).any(|pair| pair == [0xFF, 0xD9])
    }

    /// Whether it has four colour components.
    pub(crate) fn is_cmyk(&self) -> bool {
        self.bytes.get(9) == Some(&4)
    }
}

/// The gamma of a PNG file (chunk `gAMA`, times 100,000), if it is one that viewers who heed it show in other shades
/// than viewers who do not. Chosen with care, it shows each of them another picture.
pub(crate) fn unusual_png_gamma(file: &[u8]) -> Option<u32> {
    let mut rest = file.get(8..)?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, content) = after.split_first_chunk::<4>()?;
        match kind {
            b"IDAT" | b"IEND" => return None,
            b"gAMA" => {
                let gamma = u32::from_be_bytes(*content.first_chunk::<4>()?);
                // No viewer heeds a gamma of zero.
                if gamma != 0 && !USUAL_GAMMA.contains(&gamma) {
                    return Some(gamma);
                }
            }
            _ => {}
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        rest = content.get(length.checked_add(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn segments_lead_to_the_frame_whatever_stands_between() {
        let frame = [0xFF, 0xC2, 0, 11, 8, 0, 1, 0, 1, 4, 0, 0, 0, 0xFF, 0xD9];
        let index = [0xFF, 0xE2, 0, 6, b'M', b'P', b'F', 0];
        // The thumbnail in the metadata has an end marker of its own.
        let metadata = [0xFF, 0xE1, 0, 4, 0xFF, 0xD9];
        let file = [&[0xFF, 0xD8][..], &metadata, &[0xFF, 0xFF], &index, &[0xFF, 0x01], &frame].concat();
        let found = JpegFrame::find(&file).unwrap();
        assert!(found.several_pictures && found.is_ended() && found.is_cmyk());
        let cut = JpegFrame::find(&file[..file.len() - 2]).unwrap();
        assert!(!cut.is_ended());
        assert_eq!(JpegFrame::find(&[0xFF, 0xD8, 0x12, 0x34]), None);
        assert_eq!(JpegFrame::find(&[0xFF]), None);
        assert_eq!(JpegFrame::find(&[0xFF, 0xD8, 0xFF, 0xE0, 0xFF, 0xFF]), None);
    }

    #[test]
    fn gamma_is_found_before_the_pixels_only() {
        let chunk = |kind: &[u8; 4], content: &[u8]| {
            [&(content.len() as u32).to_be_bytes()[..], kind, content, &[0; 4]].concat()
        };
        let gamma = |value: u32| chunk(b"gAMA", &value.to_be_bytes());
        let file = |chunks: &[Vec<u8>]| [vec![0; 8], chunk(b"IHDR", &[0; 13]), chunks.concat()].concat();
        assert_eq!(unusual_png_gamma(&file(&[gamma(2000), chunk(b"IDAT", &[1])])), Some(2000));
        assert_eq!(unusual_png_gamma(&file(&[gamma(45_455), chunk(b"IDAT", &[1])])), None);
        assert_eq!(unusual_png_gamma(&file(&[chunk(b"IDAT", &[1]), gamma(2000)])), None);
        assert_eq!(unusual_png_gamma(&[0; 9]), None);
        let endless = [vec![0; 8], vec![0xFF; 12]].concat();
        assert_eq!(unusual_png_gamma(&endless), None);
    }
}
