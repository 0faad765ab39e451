//! Binary frames of ComfyUI's WebSocket, big-endian: `u32` type, then
//! 1: `u32` format (1 JPEG, 2 PNG) and a preview; 3: `u32` length, node id and text; 4: `u32` length, JSON and a preview.
//! ComfyUI `protocol.py` (`BinaryEventTypes`) and `server.py` (`encode_bytes`, `send_image`, `send_image_with_metadata`).

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::json;

/// Longest metadata that is read, in bytes.
const MAX_METADATA: usize = 1 << 16;
const PREVIEW: u32 = 1;
const PREVIEW_WITH_METADATA: u32 = 4;
/// Format number of PNG.
const PNG: u32 = 2;

/// A preview as a server sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreviewFrame {
    /// The node that draws, and its prompt, if the server says so.
    pub(crate) of: Option<(String, String)>,
    /// The encoded picture.
    pub(crate) picture: Bytes,
}

#[derive(Deserialize)]
struct Metadata {
    node_id: String,
    prompt_id: String,
}

/// The preview in a frame; `None` for frames of other types, and for what makes no sense: a preview that cannot be read
/// shows nobody anything.
pub(crate) fn read(frame: &Bytes) -> Option<PreviewFrame> {
    let (kind, rest) = number(frame)?;
    match kind {
        PREVIEW => {
            let (_, picture) = number(&rest)?;
            Some(PreviewFrame { of: None, picture })
        }
        PREVIEW_WITH_METADATA => {
            let (length, rest) = number(&rest)?;
            let length = usize::try_from(length).ok().filter(|length| *length <= MAX_METADATA)?;
            let metadata = serde_json::from_slice::<Metadata>(rest.get(..length)?).ok()?;
            Some(PreviewFrame {
                of: Some((metadata.node_id, metadata.prompt_id)),
                picture: rest.slice(length..),
            })
        }
        _ => None,
    }
}

fn number(bytes: &Bytes) -> Option<(u32, Bytes)> {
    let (head, _) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*head), bytes.slice(4..)))
}

/// The frame of a preview in PNG, for clients that know no metadata.
pub(crate) fn preview(png: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + png.len());
    frame.put_u32(PREVIEW);
    frame.put_u32(PNG);
    frame.put_slice(png);
    frame.freeze()
}

/// The frame of a preview in PNG that says which node of which prompt draws it.
pub(crate) fn preview_with_metadata(png: &[u8], node: &str, prompt_id: &str) -> Bytes {
    let metadata = json!({
        "node_id": node, "display_node_id": node, "parent_node_id": null, "real_node_id": node,
        "prompt_id": prompt_id, "image_type": "image/png",
    });
    let metadata = metadata.to_string();
    let mut frame = BytesMut::with_capacity(8 + metadata.len() + png.len());
    frame.put_u32(PREVIEW_WITH_METADATA);
    // A node's id is short, so this is never cut.
    frame.put_u32(u32::try_from(metadata.len()).unwrap_or(u32::MAX));
    frame.put_slice(metadata.as_bytes());
    frame.put_slice(png);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_published_layout_is_read() {
        // `struct.pack(">I", 1) + struct.pack(">I", 1) + jpeg`
        let old = Bytes::from_static(b"\0\0\0\x01\0\0\0\x01JPEG");
        assert_eq!(read(&old), Some(PreviewFrame { of: None, picture: Bytes::from_static(b"JPEG") }));
        let text = Bytes::from_static(b"\0\0\0\x03\0\0\0\x013done");
        assert_eq!(read(&text), None);
        let cut = Bytes::from_static(b"\0\0\0\x04\0\0\0\xff{}");
        assert_eq!(read(&cut), None);
        let huge = Bytes::from_static(b"\0\0\0\x04\xff\xff\xff\xff{}");
        assert_eq!(read(&huge), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(png in any::<Vec<u8>>(), node in "[0-9a-z.:]{1,9}") {
            let plain = read(&preview(&png)).unwrap();
            prop_assert_eq!((plain.of, &plain.picture[..]), (None, &png[..]));
            let named = read(&preview_with_metadata(&png, &node, "p")).unwrap();
            prop_assert_eq!((named.of, &named.picture[..]), (Some((node, "p".to_owned())), &png[..]));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in any::<Vec<u8>>(), kind in 0_u8..6) {
            let frame: Vec<u8> = [0, 0, 0, kind].into_iter().chain(bytes).collect();
            let length = frame.len();
            if let Some(frame) = read(&Bytes::from(frame)) {
                prop_assert!(frame.picture.len() < length);
            }
        }
    }
}
