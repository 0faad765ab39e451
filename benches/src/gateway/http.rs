//! HTTP/1.1 on blocking sockets, both ends: nothing between a measurement and the wire but this file.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Longest head.
const MAX_HEAD: usize = 64 << 10;
/// Longest body or chunk that is read; the benchmark's own are far below.
const MAX_BODY: usize = 64 << 20;
/// Large enough that a picture is read in a few calls of the system.
const BUFFER: usize = 256 << 10;

/// A head and a body, of a request or an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    /// The request line or the status line.
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The value of a header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// First line and headers, in one text.
    pub(super) fn head(&self) -> String {
        let lines = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        lines.fold(format!("{}\n", self.line), |head, line| head + &line)
    }

    /// The status of an answer; 0 if it has none.
    pub(super) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The path of a request, without its query.
    pub(super) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or("").split('?').next().unwrap_or("")
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads one message; `None` where the peer has ended the connection between two.
fn read(stream: &mut BufReader<TcpStream>, body: Vec<u8>) -> io::Result<Option<Message>> {
    let mut head = Vec::new();
    let mut message = Message { body, ..Message::default() };
    message.body.clear();
    loop {
        let from = head.len();
        if stream.by_ref().take(MAX_HEAD as u64).read_until(b'\n', &mut head)? == 0 {
            return if from == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if head.len() > MAX_HEAD {
            return Err(malformed("a head is too long"));
        }
        let line =
            std::str::from_utf8(&head[from..]).map_err(|_| malformed("a head is not text"))?.trim_end();
        if from == 0 {
            message.line = line.to_owned();
        } else if line.is_empty() {
            break;
        } else if let Some((name, value)) = line.split_once(':') {
            message.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    if message.header("transfer-encoding") == Some("chunked") {
        while read_chunk(stream, &mut message.body)? {}
    } else if let Some(length) = message.header("content-length") {
        let length = length.parse().ok().filter(|length| *length <= MAX_BODY);
        let length: usize = length.ok_or_else(|| malformed("a length is no number, or too large"))?;
        message.body.resize(length, 0);
        stream.read_exact(&mut message.body)?;
    }
    Ok(Some(message))
}

/// Adds a chunk to `body`; false after the last.
fn read_chunk(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> io::Result<bool> {
    let mut line = String::new();
    stream.by_ref().take(1024).read_line(&mut line)?;
    let size = line.trim_end().split(';').next().unwrap_or("");
    let size = usize::from_str_radix(size, 16).ok().filter(|size| body.len() + size <= MAX_BODY);
    let size = size.ok_or_else(|| malformed("a chunk has no length, or is too large"))?;
    let from = body.len();
    body.resize(from + size, 0);
    stream.read_exact(&mut body[from..])?;
    let mut end = [0; 2];
    stream.read_exact(&mut end)?;
    Ok(size > 0)
}

/// A client's connection, which is kept open.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(super) fn open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream: BufReader::with_capacity(BUFFER, stream), body: Vec::new() })
    }

    /// Sends a request as it is, and does not wait.
    pub(super) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(request)
    }

    /// Sends a request as it is, and reads the answer.
    pub(super) fn call(&mut self, request: &[u8]) -> io::Result<Message> {
        self.send(request)?;
        let body = std::mem::take(&mut self.body);
        read(&mut self.stream, body)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Takes back the memory of an answer, for the next.
    pub(super) fn reuse(&mut self, answer: Message) {
        self.body = answer.body;
    }
}

/// A request with a JSON body, and these further header lines (each ended).
pub(super) fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A request without a body.
pub(super) fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n{headers}\r\n").into_bytes()
}

/// An answer, head and body.
pub(super) fn answer(status: &str, media_type: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What a server does with a request.
pub(super) enum Reply {
    /// Sends these bytes.
    Send(Arc<Vec<u8>>),
    /// Sends these bytes and ends the connection.
    SendAndClose(Vec<u8>),
}

/// Answers for ever, each connection on a thread of its own.
pub(super) fn serve(listener: &TcpListener, handle: impl Fn(&Message) -> Reply + Send + Sync + 'static) {
    let handle = Arc::new(handle);
    for stream in listener.incoming() {
        // Out of file descriptors, as a rule: the peer sees its connection fail.
        let Ok(stream) = stream else { continue };
        let handle = Arc::clone(&handle);
        thread::spawn(move || {
            // An error is the peer's end of the connection.
            let _ = converse(stream, &*handle);
        });
    }
}

fn converse(stream: TcpStream, handle: &impl Fn(&Message) -> Reply) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut body = Vec::new();
    while let Some(request) = read(&mut stream, body)? {
        match handle(&request) {
            Reply::Send(bytes) => stream.get_mut().write_all(&bytes)?,
            Reply::SendAndClose(bytes) => return stream.get_mut().write_all(&bytes),
        }
        body = request.body;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_understand_each_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            serve(&listener, |request| {
                match request.path() {
                "/chunks" => Reply::Send(Arc::new(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n".to_vec(),
                )),
                "/end" => Reply::SendAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec()),
                _ => Reply::Send(Arc::new(answer("201 Created", "text/plain", &request.body))),
            }
            });
        });
        let mut connection = Connection::open(address, Duration::from_secs(10)).unwrap();
        let echoed = connection.call(&post("/echo?a=1", "", "{\"a\": 1}")).unwrap();
        assert_eq!((echoed.status(), &*echoed.body), (201, &b"{\"a\": 1}"[..]));
        assert_eq!(echoed.header("content-type"), Some("text/plain"));
        connection.reuse(echoed);
        assert_eq!(connection.call(&get("/chunks", "")).unwrap().body, b"abcde");
        let broken = connection.call(&get("/end", "")).unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::UnexpectedEof);
    }
}
