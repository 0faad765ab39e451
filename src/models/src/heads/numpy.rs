//! A matrix of floats in a pickle of numpy, which is how Q16 publishes its prompts.
//!
//! A pickle is a program that may call any function of Python. This one is not run and not even followed: it is compared,
//! instruction by instruction, with what `pickle.dump` writes for one array (protocols 3 and 4), and only the shape, the
//! type and the bytes of the array are taken from it. Whatever else it holds is refused.
//!
//! Sources: `array_reduce` in numpy 2.2's `_core/src/multiarray/methods.c`; `Lib/pickletools.py` of CPython 3.11.

use half::f16;

use crate::error::{ModelError, Result};

/// Most bytes of a file: a matrix of 64 rows of 65,536 doubles, and what is around it.
const MAX_BYTES: usize = 34 << 20;

/// The rows of the matrix in `pickle`; `path` is for messages.
///
/// # Errors
/// `Malformed` for what is no pickle of one matrix of 16, 32 or 64 bit floats in C order.
pub fn matrix(path: &str, pickle: &[u8]) -> Result<Vec<Vec<f32>>> {
    if pickle.len() > MAX_BYTES {
        let detail = format!("{} bytes long, expected {MAX_BYTES} at most", pickle.len());
        return Err(ModelError::malformed(path, detail));
    }
    let mut reader = Reader { pickle, at: 0, memory: Vec::new() };
    reader.array().map_err(|expected| {
        let detail = format!(
            "expected a pickle of one numpy matrix of floats, as Q16's prompts.p is (protocol 3 or 4): at byte {} expected \
             {expected}; nothing in a pickle is executed, so other contents cannot be read",
            reader.at
        );
        ModelError::malformed(path, detail)
    })
}

/// What was expected where something else came.
type Compared<T> = std::result::Result<T, &'static str>;

struct Reader<'a> {
    pickle: &'a [u8],
    at: usize,
    /// Texts that may be referred to, by number; other values have none.
    memory: Vec<Option<&'a [u8]>>,
}

impl<'a> Reader<'a> {
    fn array(&mut self) -> Compared<Vec<Vec<f32>>> {
        self.start()?;
        self.global(&["numpy.core.multiarray", "numpy._core.multiarray"], "_reconstruct")?;
        self.global(&["numpy"], "ndarray")?;
        // The arguments of the call that makes an empty array: its class, the shape (0,), the type "b".
        self.code(&[b'K', 0, 0x85], "the shape (0,)")?;
        if self.bytes()? != b"b" {
            return Err("the type b'b'");
        }
        self.stored();
        self.code(&[0x87], "three arguments")?;
        self.code(b"R", "a call")?;
        self.code(&[b'(', b'K', 1], "the version of the array's state, 1")?;
        let (rows, columns) = (self.number()?, self.number()?);
        self.code(&[0x86], "a shape of two numbers")?;
        self.global(&["numpy"], "dtype")?;
        let size = match self.text()? {
            b"f2" => 2,
            b"f4" => 4,
            b"f8" => 8,
            _ => return Err("a type of floats: f2, f4 or f8"),
        };
        self.stored();
        self.code(&[0x89, 0x88, 0x87], "no alignment and a copy")?;
        self.code(b"R", "a call")?;
        self.code(&[b'(', b'K', 3], "the version of the type's state, 3")?;
        if self.text()? != b"<" {
            return Err("little-endian numbers");
        }
        self.stored();
        self.code(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t", "a type without fields")?;
        self.code(b"b", "the type's state")?;
        self.code(&[0x89], "C order")?;
        let bytes = self.bytes()?;
        self.stored();
        self.code(b"t", "the end of the array's state")?;
        self.code(b"b.", "the end of the pickle")?;
        if self.at != self.pickle.len() {
            return Err("the end of the file");
        }
        let expected = rows.checked_mul(columns).and_then(|count| count.checked_mul(size));
        if expected != Some(bytes.len()) || bytes.is_empty() {
            return Err("as many bytes as the shape says, and at least one number");
        }
        Ok(bytes.chunks_exact(columns * size).map(|row| numbers(row, size)).collect())
    }

    fn start(&mut self) -> Compared<()> {
        match self.take(2)? {
            [0x80, 3] => Ok(()),
            [0x80, 4] => {
                // A frame and its length, which a file that is read whole does not need.
                self.code(&[0x95], "a frame")?;
                self.take(8).map(|_| ())
            }
            _ => Err("protocol 3 or 4"),
        }
    }

    fn take(&mut self, count: usize) -> Compared<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.pickle.len());
        let end = end.ok_or("more bytes")?;
        let taken = &self.pickle[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Compared<u8> {
        Ok(self.take(1)?[0])
    }

    fn peek(&self) -> Option<u8> {
        self.pickle.get(self.at).copied()
    }

    /// These instructions, and whatever puts their result into memory.
    fn code(&mut self, expected: &[u8], what: &'static str) -> Compared<()> {
        let begun = self.at;
        if self.take(expected.len()).ok() != Some(expected) {
            self.at = begun;
            return Err(what);
        }
        self.stored();
        Ok(())
    }

    /// Passes over an instruction that remembers what is not referred to again.
    fn stored(&mut self) {
        self.remember(None);
    }

    /// Follows BINPUT or MEMOIZE, if one is there.
    fn remember(&mut self, text: Option<&'a [u8]>) {
        match self.peek() {
            // A pickle numbers what it remembers in order, in either way.
            Some(b'q') => self.at = (self.at + 2).min(self.pickle.len()),
            Some(0x94) => self.at += 1,
            _ => return,
        }
        self.memory.push(text);
    }

    /// A name of a module and one in it.
    fn global(&mut self, modules: &[&str], name: &str) -> Compared<()> {
        const EXPECTED: &str = "numpy's _reconstruct, ndarray or dtype";
        let (module, found) = if self.peek() == Some(b'c') {
            self.at += 1;
            (self.line()?, self.line()?)
        } else {
            let (module, found) = (self.name()?, self.name()?);
            if self.byte()? != 0x93 {
                return Err(EXPECTED);
            }
            (module, found)
        };
        self.stored();
        let known = modules.iter().any(|known| known.as_bytes() == module);
        if known && found == name.as_bytes() { Ok(()) } else { Err(EXPECTED) }
    }

    fn line(&mut self) -> Compared<&'a [u8]> {
        let rest = &self.pickle[self.at..];
        let length = rest.iter().take(64).position(|byte| *byte == b'\n').ok_or("a short name")?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    /// A text that is put into memory, or one that is there.
    fn name(&mut self) -> Compared<&'a [u8]> {
        if self.peek() == Some(b'h') {
            let number = usize::from(self.take(2)?[1]);
            return self.memory.get(number).copied().flatten().ok_or("a text that is in memory");
        }
        let text = self.text()?;
        self.remember(Some(text));
        Ok(text)
    }

    fn text(&mut self) -> Compared<&'a [u8]> {
        let length = match self.byte()? {
            b'X' => self.length(4)?,
            0x8c => self.length(1)?,
            _ => return Err("a text"),
        };
        self.take(length)
    }

    fn bytes(&mut self) -> Compared<&'a [u8]> {
        let length = match self.byte()? {
            b'C' => self.length(1)?,
            b'B' => self.length(4)?,
            _ => return Err("bytes"),
        };
        self.take(length)
    }

    fn number(&mut self) -> Compared<usize> {
        match self.byte()? {
            b'K' => self.length(1),
            b'M' => self.length(2),
            _ => Err("a side of 0 to 65,535"),
        }
    }

    /// A little-endian number of `count` bytes (4 at most).
    fn length(&mut self, count: usize) -> Compared<usize> {
        Ok(self.take(count)?.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}

fn numbers(row: &[u8], size: usize) -> Vec<f32> {
    #[allow(clippy::cast_possible_truncation)]
    // What does not fit becomes infinite, and is refused by whoever uses it.
    let number = |bytes: &[u8]| match *bytes {
        [a, b] => f16::from_le_bytes([a, b]).to_f32(),
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
        _ => f32::NAN,
    };
    row.chunks_exact(size).map(number).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// `pickle.dumps(numpy.array([[1, 2, 3], [-1, 0.5, 0]], dtype), protocol)`, for protocol 3.
    fn pickled(module: &str, rows: u8, columns: u8, kind: &str, data: &[u8]) -> Vec<u8> {
        let mut all = b"\x80\x03c".to_vec();
        all.extend_from_slice(module.as_bytes());
        all.extend_from_slice(
            b"\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01bq\x03\x87q\x04Rq\x05(K\x01",
        );
        all.extend_from_slice(&[b'K', rows, b'K', columns, 0x86, b'q', 6]);
        all.extend_from_slice(b"cnumpy\ndtype\nq\x07X\x02\x00\x00\x00");
        all.extend_from_slice(kind.as_bytes());
        all.extend_from_slice(b"q\x08\x89\x88\x87q\x09Rq\x0a(K\x03X\x01\x00\x00\x00<q\x0bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0cb\x89");
        all.extend_from_slice(&[b'C', data.len() as u8]);
        all.extend_from_slice(data);
        all.extend_from_slice(b"q\x0dtq\x0eb.");
        all
    }

    fn halves(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
    }

    #[test]
    fn a_matrix_is_read_and_nothing_else() {
        let data = halves(&[1.0, 2.0, 3.0, -1.0, 0.5, 0.0]);
        let good = pickled("numpy.core.multiarray", 2, 3, "f2", &data);
        assert_eq!(matrix("p", &good).unwrap(), [[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]]);
        for bad in [
            pickled("os", 2, 3, "f2", &data),
            pickled("numpy.core.multiarray", 2, 2, "f2", &data),
            pickled("numpy.core.multiarray", 0, 3, "f2", &[]),
            pickled("numpy.core.multiarray", 2, 3, "i2", &data),
            pickled("numpy.core.multiarray", 2, 3, "f4", &data),
            [good.clone(), b".".to_vec()].concat(),
            b"cos\nsystem\n(S'true'\ntR.".to_vec(),
            Vec::new(),
        ] {
            let error = matrix("p", &bad).unwrap_err().to_string();
            assert!(error.contains("p: expected a pickle of one numpy matrix"), "{error}");
        }
        for length in 0..good.len() {
            assert!(matrix("p", &good[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_change_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = pickled("numpy._core.multiarray", 2, 3, "f2", &halves(&[1.0; 6]));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = matrix("p", &bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = matrix("p", &bytes);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = matrix("p", &bytes);
        }
    }
}
