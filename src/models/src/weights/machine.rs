//! The stack machine of pickles, as far as a dictionary of tensors needs it. A value is made once and referred to by its
//! number, whatever refers to it.
//!
//! Sources: `Lib/pickletools.py` of CPython 3.11 (protocol 2), `torch/_utils.py` and `torch/_weights_only_unpickler.py` of
//! torch 2.11.

use std::collections::HashMap;

use crate::error::ModelError;

/// Why a pickle is not followed further.
#[derive(Debug)]
pub(super) enum Stop {
    Ended,
    Malformed(String),
    /// What it asks for.
    Unsupported(String),
}

impl Stop {
    pub(super) fn named(self, path: &str) -> ModelError {
        match self {
            Self::Ended => {
                ModelError::malformed(path, "its pickle ends early: truncated or damaged, fetch it again")
            }
            Self::Malformed(detail) => {
                ModelError::malformed(path, format!("its pickle is damaged, fetch it again: {detail}"))
            }
            Self::Unsupported(found) => ModelError::unsupported(
                path,
                "what its pickle asks for",
                found,
                "a dictionary of tensors; nothing in a pickle is executed, so convert other files to safetensors where they \
                 came from",
            ),
        }
    }
}

fn malformed<T>(detail: impl Into<String>) -> Followed<T> {
    Err(Stop::Malformed(detail.into()))
}

pub(super) type Followed<T> = std::result::Result<T, Stop>;

/// Number of a value among those that were made.
type Id = usize;

/// The functions and classes that may be named.
#[derive(Debug, Clone, Copy)]
enum Global<'a> {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// `torch.FloatStorage` and the like.
    Storage(&'a str),
}

/// Numbers in a row that tensors are views of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) kind: &'a str,
    /// Names the member of the file.
    pub(super) key: &'a str,
    pub(super) count: usize,
}

/// A tensor: some of the numbers of a storage. Places and distances count numbers, not bytes.
#[derive(Debug, Clone)]
pub(super) struct View<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

#[derive(Debug)]
enum Value<'a> {
    /// `None`, booleans: nothing that matters for weights.
    Other,
    Number(i64),
    Text(&'a str),
    Global(Global<'a>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Storage(Storage<'a>),
    Tensor(View<'a>),
    Mark,
}

/// The stack machine, as far as it is followed.
pub(super) struct Machine<'a> {
    rest: &'a [u8],
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(pickle: &'a [u8]) -> Self {
        Self { rest: pickle, values: Vec::new(), stack: Vec::new(), memo: HashMap::new() }
    }

    /// The names and tensors of the dictionary that the pickle makes.
    pub(super) fn run(&mut self) -> Followed<Vec<(&'a str, &View<'a>)>> {
        while self.step()? {}
        let last = self.pop()?;
        let Value::Dict(entries) = &self.values[last] else {
            return Err(Stop::Unsupported(kind_of(&self.values[last]).to_owned()));
        };
        let named = |(key, value): &(Id, Id)| match (&self.values[*key], &self.values[*value]) {
            (Value::Text(name), Value::Tensor(view)) => Ok((*name, view)),
            (Value::Text(name), other) => Err(Stop::Unsupported(format!("{name}: {}", kind_of(other)))),
            (other, _) => Err(Stop::Unsupported(format!("a key that is {}", kind_of(other)))),
        };
        entries.iter().map(named).collect()
    }

    /// Follows an instruction; false after the last.
    fn step(&mut self) -> Followed<bool> {
        match self.byte()? {
            // PROTO
            0x80 => match self.byte()? {
                2 => {}
                version => return Err(Stop::Unsupported(format!("protocol {version} instead of 2"))),
            },
            // STOP
            b'.' => return Ok(false),
            // MARK, NONE, NEWTRUE, NEWFALSE
            b'(' => self.push(Value::Mark),
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            // BININT, BININT1, BININT2, LONG1
            b'J' => {
                let number = (self.number(4)? << 32).cast_signed() >> 32;
                self.push(Value::Number(number));
            }
            b'K' => self.push_number(1)?,
            b'M' => self.push_number(2)?,
            0x8a => self.long()?,
            // BINUNICODE
            b'X' => {
                let length = self.number(4)?;
                let text = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
                self.push(Value::Text(utf8(text)?));
            }
            // BINGET, LONG_BINGET, BINPUT, LONG_BINPUT
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'q' => self.memorise(1)?,
            b'r' => self.memorise(4)?,
            // EMPTY_TUPLE, TUPLE1 to TUPLE3, TUPLE
            b')' => self.push(Value::Tuple(Vec::new())),
            count @ 0x85..=0x87 => self.tuple(usize::from(count) - 0x84)?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            // EMPTY_DICT, SETITEM, SETITEMS, BUILD
            b'}' => self.push(Value::Dict(Vec::new())),
            b's' => self.set_item()?,
            b'u' => self.set_items()?,
            b'b' => self.build()?,
            // GLOBAL, REDUCE, BINPERSID
            b'c' => self.global()?,
            b'R' => self.reduce()?,
            b'Q' => self.storage()?,
            other => return Err(Stop::Unsupported(format!("instruction {other:#04x}"))),
        }
        Ok(true)
    }

    fn take(&mut self, length: usize) -> Followed<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Stop::Ended)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Followed<u8> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian number of at most eight bytes, without a sign.
    fn number(&mut self, length: usize) -> Followed<u64> {
        Ok(self.take(length)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn push_number(&mut self, length: usize) -> Followed<()> {
        let number = self.number(length)?;
        self.push(Value::Number(i64::try_from(number).unwrap_or(i64::MAX)));
        Ok(())
    }

    /// Two's complement in as many bytes as it needs.
    fn long(&mut self) -> Followed<()> {
        let length = usize::from(self.byte()?);
        if length > 8 {
            return malformed(format!("a number of {length} bytes"));
        }
        let number = self.number(length)?;
        let unused = 64 - 8 * u32::try_from(length).unwrap_or(0);
        let signed = if length == 0 { 0 } else { (number << unused).cast_signed() >> unused };
        self.push(Value::Number(signed));
        Ok(())
    }

    fn pop(&mut self) -> Followed<Id> {
        let Some(id) = self.stack.pop() else { return malformed("nothing on its stack") };
        if matches!(self.values[id], Value::Mark) { malformed("a mark instead of a value") } else { Ok(id) }
    }

    /// What was pushed since the last mark, in order.
    fn pop_to_mark(&mut self) -> Followed<Vec<Id>> {
        let mark = self.stack.iter().rposition(|id| matches!(self.values[*id], Value::Mark));
        let Some(mark) = mark else { return malformed("no mark on its stack") };
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn tuple(&mut self, count: usize) -> Followed<()> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Followed<Vec<_>>>()?;
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn memorise(&mut self, length: usize) -> Followed<()> {
        let key = self.key(length)?;
        let Some(last) = self.stack.last() else { return malformed("nothing on its stack") };
        self.memo.insert(key, *last);
        Ok(())
    }

    fn recall(&mut self, length: usize) -> Followed<()> {
        let key = self.key(length)?;
        let Some(id) = self.memo.get(&key) else { return malformed(format!("no memory {key}")) };
        self.stack.push(*id);
        Ok(())
    }

    fn key(&mut self, length: usize) -> Followed<u32> {
        Ok(u32::try_from(self.number(length)?).unwrap_or(u32::MAX))
    }

    fn set_item(&mut self) -> Followed<()> {
        let (value, key) = (self.pop()?, self.pop()?);
        self.dict()?.push((key, value));
        Ok(())
    }

    fn set_items(&mut self) -> Followed<()> {
        let items = self.pop_to_mark()?;
        let (pairs, []) = items.as_chunks::<2>() else { return malformed("a key without a value") };
        self.dict()?.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    /// The dictionary on top of the stack.
    fn dict(&mut self) -> Followed<&mut Vec<(Id, Id)>> {
        match self.stack.last().map(|id| &mut self.values[*id]) {
            Some(Value::Dict(entries)) => Ok(entries),
            _ => malformed("no dictionary on its stack"),
        }
    }

    /// Attributes of a dictionary: torch leaves the versions of its modules there, which say nothing of the numbers.
    fn build(&mut self) -> Followed<()> {
        let state = self.pop()?;
        if !matches!(self.values[state], Value::Dict(_)) {
            return malformed("attributes that are no dictionary");
        }
        self.dict().map(|_| ())
    }

    fn global(&mut self) -> Followed<()> {
        let (module, name) = (self.line()?, self.line()?);
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", kind) if kind.ends_with("Storage") => Global::Storage(kind),
            _ => return Err(Stop::Unsupported(format!("{module}.{name}"))),
        };
        self.push(Value::Global(global));
        Ok(())
    }

    fn line(&mut self) -> Followed<&'a str> {
        let length = self.rest.iter().position(|byte| *byte == b'\n').ok_or(Stop::Ended)?;
        let line = self.take(length + 1)?;
        utf8(&line[..length])
    }

    /// What a call would give, for the functions that are known.
    fn reduce(&mut self) -> Followed<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Global(function), Value::Tuple(arguments)) =
            (&self.values[function], &self.values[arguments])
        else {
            return malformed("a call without a function or without arguments");
        };
        let made = match (function, arguments.as_slice()) {
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::RebuildTensor, [storage, offset, shape, stride, _, _]) => {
                Value::Tensor(self.view(*storage, *offset, *shape, *stride)?)
            }
            (Global::RebuildParameter, [tensor, _, _]) => match &self.values[*tensor] {
                Value::Tensor(view) => Value::Tensor(view.clone()),
                other => return malformed(format!("a parameter that is {}", kind_of(other))),
            },
            (function, arguments) => {
                return malformed(format!("{function:?} called with {} arguments", arguments.len()));
            }
        };
        self.push(made);
        Ok(())
    }

    fn view(&self, storage: Id, offset: Id, shape: Id, stride: Id) -> Followed<View<'a>> {
        let Value::Storage(storage) = &self.values[storage] else {
            return malformed(format!("a tensor of {}", kind_of(&self.values[storage])));
        };
        let (shape, stride) = (self.sizes(shape)?, self.sizes(stride)?);
        if shape.len() != stride.len() {
            return malformed(format!("a tensor of shape {shape:?} with strides {stride:?}"));
        }
        Ok(View { storage: *storage, offset: self.size(offset)?, shape, stride })
    }

    fn sizes(&self, id: Id) -> Followed<Vec<usize>> {
        match &self.values[id] {
            // More dimensions than any tensor has would let each of many tensors copy one long tuple.
            Value::Tuple(items) if items.len() <= 8 => items.iter().map(|item| self.size(*item)).collect(),
            other => malformed(format!("a shape that is {}", kind_of(other))),
        }
    }

    fn size(&self, id: Id) -> Followed<usize> {
        match &self.values[id] {
            Value::Number(number) => match usize::try_from(*number) {
                Ok(size) => Ok(size),
                Err(_) => malformed(format!("a size of {number}")),
            },
            other => malformed(format!("a size that is {}", kind_of(other))),
        }
    }

    /// `("storage", torch.FloatStorage, key, device, count)`: the device is where it was when it was saved.
    fn storage(&mut self) -> Followed<()> {
        let id = self.pop()?;
        let Value::Tuple(parts) = &self.values[id] else {
            return malformed("a storage without its description");
        };
        let [tag, kind, key, _, count] = parts.as_slice() else {
            return malformed(format!("a storage described by {} values", parts.len()));
        };
        let storage = match (&self.values[*tag], &self.values[*kind], &self.values[*key]) {
            (Value::Text("storage"), Value::Global(Global::Storage(kind)), Value::Text(key)) => {
                Storage { kind, key, count: self.size(*count)? }
            }
            _ => return malformed("a storage whose description is none"),
        };
        self.push(Value::Storage(storage));
        Ok(())
    }
}

fn utf8(bytes: &[u8]) -> Followed<&str> {
    std::str::from_utf8(bytes).or_else(|_| malformed("a text that is not UTF-8"))
}

/// How messages call a value.
fn kind_of(value: &Value<'_>) -> &'static str {
    match value {
        Value::Other => "None or a boolean",
        Value::Number(_) => "a number",
        Value::Text(_) => "a text",
        Value::Global(_) => "a class",
        Value::Tuple(_) => "a tuple",
        Value::Dict(_) => "a dictionary",
        Value::Storage(_) => "a storage",
        Value::Tensor(_) => "a tensor",
        Value::Mark => "a mark",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// What is referred to twice is there once: each line of these doubles what the last one stands for.
    #[test]
    fn references_do_not_multiply() {
        let mut pickle = b"\x80\x02)q\x00".to_vec();
        for _ in 0..100 {
            pickle.extend_from_slice(b"h\x00h\x00\x86q\x00");
        }
        pickle.push(b'.');
        let mut machine = Machine::new(&pickle);
        assert!(matches!(machine.run(), Err(Stop::Unsupported(found)) if found == "a tuple"));
        assert_eq!(machine.values.len(), 101);
    }

    #[test]
    fn numbers_have_their_signs() {
        for (pickle, expected) in [
            (&b"J\xff\xff\xff\xff."[..], -1),
            (b"K\xff.", 255),
            (b"M\xff\xff.", 65535),
            (b"\x8a\x00.", 0),
            (b"\x8a\x05\x00\x00\x00\x80\x00.", 1 << 31),
            (b"\x8a\x01\xfe.", -2),
            (b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.", i64::MIN),
        ] {
            let mut machine = Machine::new(pickle);
            while machine.step().unwrap() {}
            assert!(matches!(machine.values[0], Value::Number(found) if found == expected), "{pickle:?}");
        }
        assert!(matches!(Machine::new(b"\x8a\x09123456789.").run(), Err(Stop::Malformed(_))));
        assert!(matches!(Machine::new(b"X\xff\xff\xff\xffabc.").run(), Err(Stop::Ended)));
    }

    /// Instructions with operands that often fit.
    fn instruction() -> impl Strategy<Value = Vec<u8>> {
        let whole: [&[u8]; 26] = [
            b"(",
            b")",
            b"}",
            b"t",
            b"s",
            b"u",
            b"b",
            b"R",
            b"Q",
            b"N",
            b"\x85",
            b"\x86",
            b"\x87",
            b"\x88",
            b"K\x02",
            b"J\xff\xff\xff\x7f",
            b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"h\x00",
            b"q\x00",
            b"h\x01",
            b"q\x01",
            b"X\x07\x00\x00\x00storage",
            b"ccollections\nOrderedDict\n",
            b"ctorch\nFloatStorage\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"ctorch._utils\n_rebuild_parameter\n",
        ];
        prop_oneof![
            20 => prop::sample::select(whole.to_vec()).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 1..4),
        ]
    }

    proptest! {
        #[test]
        fn any_pickle_gives_tensors_or_an_error(parts in prop::collection::vec(instruction(), 0..60)) {
            let pickle = parts.concat();
            let mut machine = Machine::new(&pickle);
            let _ = machine.run().map(|entries| entries.len());
            prop_assert!(machine.values.len() <= pickle.len());
        }
    }
}
