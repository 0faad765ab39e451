//! An entry as bytes.
//!
//! ```text
//! 17  "cluegate numbers\n"
//!  4  format, u32
//!     five texts, each as its length (u64) and UTF-8: program version, kind, model, template, text
//!  8  number of values, u64
//! 8n  values, f64
//! 32  BLAKE3 of everything before
//! ```
//! or, for a text that a model wrote, "cluegate text\n" at the beginning, and in place of the values its length in bytes
//! (u64) and its UTF-8.
//!
//! Numbers are little-endian. Values are f64 for every kind: it holds an f32 exactly, and one representation is enough.

use crate::cache::Scope;

const MAGIC: &[u8] = b"cluegate numbers\n";
const TEXT_MAGIC: &[u8] = b"cluegate text\n";

/// Raised whenever the bytes of an entry change their meaning, or a mended error changes the numbers themselves: what was
/// kept before is then computed again.
const FORMAT: u32 = 1;

/// What this program computes may differ from what another version of it did, with the same weights.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// Bytes of a checksum, and of the digest of a key.
pub(crate) const HASH_BYTES: usize = blake3::OUT_LEN;

/// A key: the beginning of its entry's file, and the hash of that, by which the entry is found.
#[derive(Debug)]
pub(crate) struct Key {
    head: Vec<u8>,
    digest: blake3::Hash,
}

impl Key {
    pub(crate) fn new(scope: &Scope<'_>, text: &str) -> Self {
        Self::of_program(PROGRAM, MAGIC, scope, text)
    }

    /// The key of a text; it shares no name with a key of numbers.
    pub(crate) fn of_text(scope: &Scope<'_>, text: &str) -> Self {
        Self::of_program(PROGRAM, TEXT_MAGIC, scope, text)
    }

    fn of_program(program: &str, magic: &[u8], scope: &Scope<'_>, text: &str) -> Self {
        let mut head = magic.to_vec();
        head.extend_from_slice(&FORMAT.to_le_bytes());
        for part in [program, scope.kind, scope.model, scope.template, text] {
            head.extend_from_slice(&(part.len() as u64).to_le_bytes());
            head.extend_from_slice(part.as_bytes());
        }
        Self { digest: blake3::hash(&head), head }
    }

    pub(crate) fn digest(&self) -> [u8; HASH_BYTES] {
        *self.digest.as_bytes()
    }

    /// The digest in hexadecimal.
    pub(crate) fn name(&self) -> String {
        self.digest.to_hex().to_string()
    }

    pub(crate) fn encode(&self, values: &[f64]) -> Vec<u8> {
        let content: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.sealed(values.len(), &content)
    }

    pub(crate) fn encode_text(&self, text: &str) -> Vec<u8> {
        self.sealed(text.len(), text.as_bytes())
    }

    fn sealed(&self, count: usize, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.head.len() + 8 + content.len() + HASH_BYTES);
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(&(count as u64).to_le_bytes());
        bytes.extend_from_slice(content);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    /// The values of an entry of this key; what is wrong with the bytes if they are none.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Vec<f64>, &'static str> {
        let (count, rest) = self.open(bytes)?;
        let (values, odd) = rest.as_chunks::<8>();
        if !odd.is_empty() || count != values.len() as u64 {
            return Err("it holds another number of values than it says");
        }
        let values: Vec<f64> = values.iter().map(|value| f64::from_le_bytes(*value)).collect();
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err("it holds a value that is no number")
        }
    }

    /// The text of an entry of this key; what is wrong with the bytes if they are none.
    pub(crate) fn decode_text(&self, bytes: &[u8]) -> Result<String, &'static str> {
        let (count, rest) = self.open(bytes)?;
        if count != rest.len() as u64 {
            return Err("it holds a text of another length than it says");
        }
        String::from_utf8(rest.to_vec()).map_err(|_| "it holds a text that is no UTF-8")
    }

    /// The count and what follows it, once checksum and key are right.
    fn open<'a>(&self, bytes: &'a [u8]) -> Result<(u64, &'a [u8]), &'static str> {
        let (content, checksum) =
            bytes.split_last_chunk::<HASH_BYTES>().ok_or("it is too short to be an entry")?;
        if blake3::hash(content) != blake3::Hash::from_bytes(*checksum) {
            return Err("its checksum is wrong: it is damaged, or no entry at all");
        }
        let rest = content
            .strip_prefix(self.head.as_slice())
            .ok_or("it holds another key, or was written by another version of this program")?;
        let (count, rest) = rest.split_first_chunk::<8>().ok_or("it ends before its values")?;
        Ok((u64::from_le_bytes(*count), rest))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const SCOPE: Scope<'_> = Scope { kind: "test", model: "m", template: "t", width: 3 };

    fn sealed(mut content: Vec<u8>) -> Vec<u8> {
        let checksum = blake3::hash(&content);
        content.extend_from_slice(checksum.as_bytes());
        content
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let key = Key::new(&SCOPE, "a statement");
        let bytes = key.encode(&[0.1, -0.0, f64::MIN_POSITIVE]);
        assert_eq!(key.decode(&bytes).unwrap().map_bits(), [0.1, -0.0, f64::MIN_POSITIVE].map(f64::to_bits));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(key.decode(&damaged).is_err(), "bit {bit} of byte {at}");
            }
            assert!(key.decode(&bytes[..at]).is_err(), "cut to {at} bytes");
        }
        assert!(key.decode(&[bytes.clone(), vec![0]].concat()).is_err());
    }

    trait MapBits {
        fn map_bits(self) -> Vec<u64>;
    }

    impl MapBits for Vec<f64> {
        fn map_bits(self) -> Vec<u64> {
            self.into_iter().map(f64::to_bits).collect()
        }
    }

    #[test]
    fn entries_with_a_right_checksum_and_wrong_content_are_refused() {
        let key = Key::new(&SCOPE, "a");
        let refused = |bytes: Vec<u8>, part: &str| {
            let reason = key.decode(&bytes).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        };
        refused(Key::new(&SCOPE, "b").encode(&[1.0]), "another key");
        refused(Key::of_program("0.0.0-other", MAGIC, &SCOPE, "a").encode(&[1.0]), "another version");
        let mut other_format = key.head.clone();
        other_format[MAGIC.len()] ^= 1;
        refused(sealed([other_format, 0u64.to_le_bytes().to_vec()].concat()), "another version");
        refused(sealed(key.head.clone()), "ends before");
        refused(
            sealed([key.head.clone(), 2u64.to_le_bytes().to_vec(), vec![0; 8]].concat()),
            "another number",
        );
        refused(
            sealed([key.head.clone(), 1u64.to_le_bytes().to_vec(), vec![0; 9]].concat()),
            "another number",
        );
        refused(key.encode(&[f64::NAN]), "no number");
        refused(key.encode_text("a"), "another number");
        refused(Key::of_text(&SCOPE, "a").encode_text("a"), "another key");
        refused(Vec::new(), "too short");
        let text = Key::of_text(&SCOPE, "a");
        assert!(text.decode_text(&text.sealed(3, b"ab")).unwrap_err().contains("another length"));
        assert!(text.decode_text(&text.sealed(2, b"\xff\xfe")).unwrap_err().contains("no UTF-8"));
        assert!(text.decode_text(&key.encode(&[1.0])).unwrap_err().contains("another key"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in ".{0,40}", bits in proptest::collection::vec(any::<u64>(), 0..20)) {
            let values: Vec<f64> = bits.into_iter().map(f64::from_bits).filter(|v| v.is_finite()).collect();
            let key = Key::new(&SCOPE, &text);
            prop_assert_eq!(key.decode(&key.encode(&values)).unwrap().map_bits(), values.map_bits());
            let key = Key::of_text(&SCOPE, &text);
            prop_assert_eq!(key.decode_text(&key.encode_text(&text)).unwrap(), text);
        }

        #[test]
        fn an_f32_comes_back_exactly(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!((f64::from(value) as f32).to_bits(), bits);
        }

        /// Moving the border between two parts of a key gives another key.
        #[test]
        fn no_two_keys_share_a_name(a in "[ab]{0,3}", b in "[ab]{0,3}", c in "[ab]{0,3}", d in "[ab]{0,3}") {
            let one = Key::new(&Scope { kind: "k", model: &a, template: &b, width: 1 }, "x");
            let other = Key::new(&Scope { kind: "k", model: &c, template: &d, width: 1 }, "x");
            prop_assert_eq!(one.name() == other.name(), (a, b) == (c, d));
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Key::new(&SCOPE, "a").decode(&bytes).is_err());
            prop_assert!(Key::of_text(&SCOPE, "a").decode_text(&bytes).is_err());
        }
    }
}
