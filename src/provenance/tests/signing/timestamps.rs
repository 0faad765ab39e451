//! Timestamp authorities that give none.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use cluegate_perception::FileFormat;
use cluegate_provenance::{Algorithm, SigningSettings};

use crate::support::{Desk, file, statement};

/// What comes of a file whose timestamp is asked for at `url`.
fn signed(url: String) -> Result<Vec<u8>, String> {
    let desk = Desk::new();
    let settings = SigningSettings { timestamp_url: Some(url), ..desk.settings(Algorithm::Es256) };
    // To open asks nobody.
    let signer = cluegate_provenance::open(&settings).map_err(|error| error.to_string()).unwrap().signer;
    signer.sign(&file(FileFormat::Png), FileFormat::Png, &statement()).map_err(|error| error.to_string())
}

#[test]
fn without_the_timestamp_that_is_asked_for_nothing_is_signed() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    assert!(signed(format!("http://{address}/")).is_err());
}

#[test]
fn an_authority_that_answers_nonsense_or_nothing_gives_none() {
    for answer in [
        Some("HTTP/1.1 200 OK\r\ncontent-type: application/timestamp-reply\r\ncontent-length: 4\r\n\r\nnope"),
        Some("HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n"),
        None,
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let read = stream.read(&mut asked).unwrap();
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).unwrap();
            } else {
                // Until the client has lost its patience.
                let _ = stream.read(&mut asked[read..]);
                let _ = stream.read(&mut asked);
            }
            String::from_utf8_lossy(&asked[..read]).into_owned()
        });
        let begun = Instant::now();
        assert!(signed(url).is_err(), "{answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{answer:?}");
        let asked = server.join().unwrap();
        assert!(asked.contains("application/timestamp-query"), "{asked}");
    }
}
