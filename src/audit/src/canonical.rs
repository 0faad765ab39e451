//! Canonical JSON: one text for one value, so that another program can compute the same hashes.
//!
//! The form is that of RFC 8785 (JSON Canonicalization Scheme) with one exception: an integer is written with all its
//! digits, where RFC 8785 would round those beyond 2^53. Seeds have 64 bits.

use std::io::Write as _;

use ring::digest::{SHA256, digest};
use serde_json::{Number, Value};

/// A SHA-256 digest.
pub(crate) type Digest = [u8; 32];

/// Appends the canonical text of `value`: no blanks; the keys of objects in the order of their UTF-16 code units; strings
/// with the escapes that JSON demands and no others; integers in decimal digits; all other numbers as ECMAScript writes
/// them, with the fewest digits that give the same 64-bit value.
pub(crate) fn write(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Null => to.extend_from_slice(b"null"),
        Value::Bool(value) => to.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Number(number) => write_number(number, to),
        Value::String(text) => write_string(text, to),
        Value::Array(items) => {
            to.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    to.push(b',');
                }
                write(item, to);
            }
            to.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_unstable_by(|(a, _), (b, _)| {
                // For ASCII, the order of bytes is that of UTF-16.
                if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
            });
            to.push(b'{');
            for (index, (key, item)) in members.into_iter().enumerate() {
                if index > 0 {
                    to.push(b',');
                }
                write_string(key, to);
                to.push(b':');
                write(item, to);
            }
            to.push(b'}');
        }
    }
}

/// The canonical text of `value`.
#[must_use]
pub fn canonical(value: &Value) -> Vec<u8> {
    let mut text = Vec::with_capacity(256);
    write(value, &mut text);
    text
}

/// SHA-256 over the canonical text of `value`.
pub(crate) fn hash(value: &Value) -> Digest {
    sha256(&canonical(value))
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The bytes of lower-case hexadecimal digits; none for any other text.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// A digest of 64 hexadecimal digits.
pub(crate) fn digest_of(text: &str) -> Option<Digest> {
    unhex(text)?.try_into().ok()
}

fn write_string(text: &str, to: &mut Vec<u8>) {
    to.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0x00..=0x1f)) {
        to.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => to.extend_from_slice(b"\\\""),
            b'\\' => to.extend_from_slice(b"\\\\"),
            0x08 => to.extend_from_slice(b"\\b"),
            0x09 => to.extend_from_slice(b"\\t"),
            0x0a => to.extend_from_slice(b"\\n"),
            0x0c => to.extend_from_slice(b"\\f"),
            0x0d => to.extend_from_slice(b"\\r"),
            control => {
                to.extend_from_slice(b"\\u00");
                to.extend_from_slice(hex(&[control]).as_bytes());
            }
        }
        rest = &rest[at + 1..];
    }
    to.extend_from_slice(rest);
    to.push(b'"');
}

fn write_number(number: &Number, to: &mut Vec<u8>) {
    if let Some(whole) = number.as_u64() {
        let _ = write!(to, "{whole}");
    } else if let Some(whole) = number.as_i64() {
        let _ = write!(to, "{whole}");
    } else {
        write_float(number.as_f64().unwrap_or_default(), to);
    }
}

/// `Number::toString` of ECMAScript (ECMA-262, 6.1.6.1.20), which RFC 8785 refers to.
fn write_float(value: f64, to: &mut Vec<u8>) {
    if value == 0.0 {
        to.push(b'0');
        return;
    }
    // The fewest digits that give the value back: "-1.2345e-7". They are 17 at most, and the exponent has three.
    let mut shortest = [0_u8; 32];
    let mut left = &mut shortest[..];
    let _ = write!(left, "{value:e}");
    let length = 32 - left.len();
    let mut parts = shortest[..length].split(|byte| *byte == b'e');
    let (mantissa, exponent) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let exponent: i32 =
        std::str::from_utf8(exponent).ok().and_then(|digits| digits.parse().ok()).unwrap_or_default();
    let mut kept = [0_u8; 32];
    let mut count = 0;
    for digit in mantissa.iter().filter(|byte| byte.is_ascii_digit()) {
        kept[count] = *digit;
        count += 1;
    }
    let digits = &kept[..count];
    if mantissa.first() == Some(&b'-') {
        to.push(b'-');
    }
    // The value is 0.DIGITS times ten to the power of `point`.
    let point = exponent + 1;
    let places = point.unsigned_abs() as usize;
    if (0..=21).contains(&point) && count <= places {
        to.extend_from_slice(digits);
        to.extend(std::iter::repeat_n(b'0', places - count));
    } else if 0 < point && point <= 21 {
        let (whole, rest) = digits.split_at(places);
        to.extend_from_slice(whole);
        to.push(b'.');
        to.extend_from_slice(rest);
    } else if -6 < point && point <= 0 {
        to.extend_from_slice(b"0.");
        to.extend(std::iter::repeat_n(b'0', places));
        to.extend_from_slice(digits);
    } else {
        let (first, rest) = digits.split_at(1);
        to.extend_from_slice(first);
        if !rest.is_empty() {
            to.push(b'.');
            to.extend_from_slice(rest);
        }
        let _ = write!(to, "e{exponent:+}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> String {
        String::from_utf8(canonical(value)).unwrap()
    }

    /// The numbers of RFC 8785, appendix B, that are no NaN and no infinity.
    #[test]
    fn numbers_are_written_as_ecmascript_writes_them() {
        for (bits, expected) in [
            (0x0000_0000_0000_0000_u64, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        ] {
            let mut found = Vec::new();
            write_float(f64::from_bits(bits), &mut found);
            assert_eq!(String::from_utf8(found).unwrap(), expected);
        }
        assert_eq!(text(&json!(u64::MAX)), "18446744073709551615");
        assert_eq!(text(&json!(-3)), "-3");
    }

    /// The example of RFC 8785, section 3.2.3.
    #[test]
    fn keys_are_sorted_by_utf_16() {
        let value: Value = serde_json::from_str(
            r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",
                "\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#,
        )
        .unwrap();
        let order = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"];
        let found = text(&value);
        let places: Vec<usize> = order.iter().map(|word| found.find(word).unwrap()).collect();
        assert!(places.is_sorted(), "{found}");
    }

    #[test]
    fn strings_have_the_shortest_escapes() {
        assert_eq!(
            text(&json!("\u{20ac}$\u{f}\nA'B\"\\\\\"/")),
            "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\""
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_text_is_json_and_stays_the_same_when_read_again(value in any_json()) {
            let first = canonical(&value);
            let read: Value = serde_json::from_slice(&first).unwrap();
            prop_assert_eq!(canonical(&read), first.clone());
            // And so it does through the text that the log is written in.
            let stored: Value = serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap();
            prop_assert_eq!(canonical(&stored), first);
        }

        #[test]
        fn hexadecimal_digits_give_the_bytes_back(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }
    }
}
