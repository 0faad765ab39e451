//! Server-sent events (WHATWG HTML, section 9.2.6), as much of them as image streams use: `event` and `data`.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SseEvent {
    /// Its `event` field; empty if it has none.
    pub(super) name: String,
    /// Its `data` lines, joined by line feeds.
    pub(super) data: Vec<u8>,
}

/// Cuts a stream into events, however its bytes are cut into chunks. Holds at most the bytes of one event: whoever feeds
/// it bounds the stream.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    line: Vec<u8>,
    /// The last line ended with a carriage return, so that a line feed that follows ends nothing.
    after_return: bool,
    /// A line was seen, so that a byte order mark is none any more.
    begun: bool,
    event: SseEvent,
    has_data: bool,
}

impl SseParser {
    /// The events that `chunk` completes.
    pub(super) fn push(&mut self, mut chunk: &[u8]) -> Vec<SseEvent> {
        let mut events = Vec::new();
        while let Some(end) = chunk.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let second_half = end == 0 && chunk[0] == b'\n' && self.after_return;
            self.after_return = chunk[end] == b'\r';
            if !second_half {
                self.line.extend_from_slice(&chunk[..end]);
                events.extend(self.end_line());
            }
            chunk = &chunk[end + 1..];
        }
        if !chunk.is_empty() {
            self.after_return = false;
            self.line.extend_from_slice(chunk);
        }
        events
    }

    fn end_line(&mut self) -> Option<SseEvent> {
        let line = std::mem::take(&mut self.line);
        let line = if self.begun { &line[..] } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) };
        self.begun = true;
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            // An event without data is none.
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if self.has_data {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
                self.has_data = true;
            }
            // Comments, `id`, `retry`.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Vec<SseEvent> {
        let mut parser = SseParser::default();
        chunks.iter().flat_map(|chunk| parser.push(chunk)).collect()
    }

    fn event(name: &str, data: &str) -> SseEvent {
        SseEvent { name: name.to_owned(), data: data.as_bytes().to_vec() }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let text = "\u{feff}: hello\r\nevent: a\r\ndata: 1\r\ndata:2\r\n\r\nid: 7\nretry: 1\ndata\n\nevent: lost\n\n\
                    data:  two spaces\rother: x\r\rdata: unfinished\n";
        let events = parse(&[text.as_bytes()]);
        assert_eq!(events, [event("a", "1\n2"), event("", ""), event("", " two spaces")]);
    }

    /// What an event is written as, with each of the line ends, and comments between.
    fn written(events: &[(String, Vec<String>)], end: &str) -> String {
        let mut text = String::new();
        for (name, data) in events {
            text += &format!(": ping{end}event: {name}{end}");
            for line in data {
                text += &format!("data: {line}{end}");
            }
            text += end;
        }
        text
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            events in prop::collection::vec(("[a-z_.]{1,12}", prop::collection::vec("[ -~]{0,40}", 1..4)), 0..6),
            end in prop::sample::select(vec!["\n", "\r", "\r\n"]),
            step in 1usize..17,
        ) {
            let text = written(&events, end);
            let expected: Vec<SseEvent> =
                events.iter().map(|(name, data)| event(name, &data.join("\n"))).collect();
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(step).collect();
            prop_assert_eq!(parse(&chunks), expected);
        }

        #[test]
        fn any_bytes_are_read_alike_however_they_are_cut(
            bytes in prop::collection::vec(prop::sample::select(b"\r\n: daten\xff\xef\xbb\xbf".to_vec()), 0..200),
            step in 1usize..9,
        ) {
            let chunks: Vec<&[u8]> = bytes.chunks(step).collect();
            let events = parse(&chunks);
            prop_assert!(events.iter().map(|event| event.data.len()).sum::<usize>() <= bytes.len());
            prop_assert_eq!(events, parse(&[&bytes]));
        }
    }
}
