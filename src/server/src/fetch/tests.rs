#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use cluegate_perception::DecodeOptions;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn options(hosts: &[&str]) -> PictureOptions {
    PictureOptions {
        decode: DecodeOptions { max_bytes: 1000, ..DecodeOptions::default() },
        fetch_hosts: hosts.iter().map(|host| FetchHost::parse(host).unwrap()).collect(),
        fetch_timeout: Duration::from_secs(20),
    }
}

fn fetcher(hosts: &[&str], answers: &'static [&'static str]) -> (Fetcher, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let lookup: Lookup = Arc::new(move |_| {
        let answer = answers[count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)];
        Box::pin(async move { Ok(answer.split(' ').map(|address| address.parse().unwrap()).collect()) })
    });
    (Fetcher::with_lookup(&options(hosts), 4, lookup).unwrap(), asked)
}

fn soon() -> Deadline {
    Deadline(Instant::now() + Duration::from_secs(60))
}

/// A server on loopback that gives every connection this answer.
async fn server(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    address
}

async fn problem(fetcher: &Fetcher, named: &str) -> Problem {
    fetcher.read(named, soon()).await.unwrap_err()
}

#[test]
fn only_the_open_network_is_public() {
    for address in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.0.9",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "5f00::1",
    ] {
        assert!(!is_public(address.parse().unwrap()), "{address}");
    }
    for address in [
        "1.1.1.1",
        "93.184.216.34",
        "100.63.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "223.255.255.1",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
        "2002:101:101::",
        "2606:4700::1111",
        "2a00:1450:4001::1",
    ] {
        assert!(is_public(address.parse().unwrap()), "{address}");
    }
}

#[tokio::test]
async fn without_hosts_nothing_is_fetched() {
    let (nowhere, asked) = fetcher(&[], &["1.1.1.1"]);
    for address in
        ["http://127.0.0.1/a.png", "https://example.com/a.png", "HTTP://169.254.169.254/latest", "http:"]
    {
        let problem = problem(&nowhere, address).await;
        assert_eq!(problem.kind(), ProblemKind::BadRequest, "{address}");
    }
    let other = fetcher(&["cdn.example.com"], &["1.1.1.1"]).0;
    for address in [
        "http://example.com/",
        "http://cdn.example.com:8080/",
        "http://user@cdn.example.com/",
        "http://u:p@cdn.example.com/",
        "http://cdn.example.com.evil.net/",
        "http://127.0.0.1/",
    ] {
        assert_eq!(problem(&other, address).await.kind(), ProblemKind::BadRequest, "{address}");
    }
    // Other schemes are no addresses, and no base64 either.
    for other in ["file:///etc/passwd", "ftp://cdn.example.com/a", "gopher://x", "unix:/run/x"] {
        assert_eq!(problem(&nowhere, other).await.kind(), ProblemKind::BadRequest);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_that_leads_to_a_local_address_is_refused_though_it_is_listed() {
    let here = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()).await;
    let host = format!("pictures.example:{}", here.port());
    for answers in [
        &["127.0.0.1"],
        &["1.1.1.1 127.0.0.1"],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["169.254.169.254"],
        &["10.0.0.8"],
    ] {
        let (fetcher, asked) = fetcher(&[&host], answers);
        let problem = problem(&fetcher, &format!("http://{host}/a.png?signature=secret")).await;
        assert_eq!(problem.kind(), ProblemKind::UpstreamFailed, "{answers:?}");
        let message = problem.message();
        assert!(message.contains("public addresses") && !message.contains("secret"), "{message}");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_name_is_asked_for_once_and_its_checked_address_is_the_one_that_is_used() {
    // The second answer is never asked for: there is no second look between check and connection.
    let checked = Checked { lookup: fetcher_lookup(&["1.1.1.1 2606:4700::1111", "127.0.0.1"]) };
    let addresses = checked.resolve("pictures.example".parse().unwrap()).await.unwrap();
    let addresses: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
    assert_eq!(addresses, ["1.1.1.1", "2606:4700::1111"]);
    assert!(checked.resolve("pictures.example".parse().unwrap()).await.is_err());
}

fn fetcher_lookup(answers: &'static [&'static str]) -> Lookup {
    let asked = AtomicUsize::new(0);
    Arc::new(move |_| {
        let answer = answers[asked.fetch_add(1, Ordering::SeqCst)];
        Box::pin(async move { Ok(answer.split(' ').map(|address| address.parse().unwrap()).collect()) })
    })
}

#[tokio::test]
async fn an_address_that_is_listed_itself_is_fetched_within_bounds() {
    let read = |answer: Vec<u8>| async {
        let here = server(answer).await;
        let (fetcher, asked) = fetcher(&[&here.to_string()], &["1.1.1.1"]);
        let result = fetcher.read(&format!("http://{here}/a.png"), soon()).await;
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        result.map(|picture| format!("{picture:?}")).map_err(|problem| problem.kind())
    };
    let answer = |head: &str, body: &[u8]| [format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body].concat();
    let whole = answer("200 OK\r\nContent-Type: text/html\r\nContent-Length: 900", &[7; 900]);
    assert_eq!(read(whole).await.unwrap(), "Unjudged(900 bytes)");
    let announced = answer("200 OK\r\nContent-Length: 1001", &[7; 1001]);
    assert_eq!(read(announced).await.unwrap_err(), ProblemKind::TooLarge);
    let unannounced = answer("200 OK\r\nConnection: close", &[7; 1001]);
    assert_eq!(read(unannounced).await.unwrap_err(), ProblemKind::TooLarge);
    let truncated = answer("200 OK\r\nContent-Length: 900", &[7; 300]);
    assert_eq!(read(truncated).await.unwrap_err(), ProblemKind::UpstreamFailed);
    for head in
        ["302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0", "404 No\r\nContent-Length: 0"]
    {
        assert_eq!(read(answer(head, b"")).await.unwrap_err(), ProblemKind::UpstreamFailed);
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_no_more_than_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    let mut options = options(&[&here.to_string()]);
    options.fetch_timeout = Duration::from_millis(50);
    let slow = Fetcher::new(&options, 4).unwrap();
    let address = format!("http://{here}/a.png");
    assert_eq!(problem(&slow, &address).await.kind(), ProblemKind::UpstreamTimeout);
    let late = slow.read(&address, Deadline(Instant::now())).await.unwrap_err();
    assert_eq!(late.kind(), ProblemKind::DeadlineExceeded);
}

#[tokio::test]
async fn base64_and_data_urls_are_read_in_the_forms_that_clients_send() {
    let (fetcher, _) = fetcher(&[], &["1.1.1.1"]);
    for text in [
        "aGVsbG8=",
        "aGVsbG8",
        "aGVs\r\nbG8=\n",
        "data:image/png;base64,aGVsbG8=",
        "DATA:;BASE64,aGVsbG8",
        "data:text/html;charset=utf-8;base64,aGVsbG8=",
    ] {
        let picture = fetcher.read(text, soon()).await.unwrap();
        assert_eq!(format!("{picture:?}"), "Unjudged(5 bytes)", "{text}");
    }
    for text in ["", "data:", "data:image/png,raw", "data:image/png;base64", "a b-c_", "aGVsbG8==="] {
        assert_eq!(problem(&fetcher, text).await.kind(), ProblemKind::BadRequest, "{text}");
    }
    let large = "QUJD".repeat(1000);
    assert_eq!(problem(&fetcher, &large).await.kind(), ProblemKind::TooLarge);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic_or_exceed_its_bounds(
        start in prop::sample::select(vec!["", "data:", "data:image/png;base64,", "DATA:;base64,", "http://", "https://["]),
        text in "\\PC{0,200}",
    ) {
        let fetcher = fetcher(&["cdn.example.com"], &["127.0.0.1"]).0;
        let named = format!("{start}{text}");
        if !is_address(&named) {
            let data = if has_scheme(&named, "data:") { data_of(&named) } else { Ok(named.as_str()) };
            if let Ok(bytes) = data.and_then(|data| decode_base64(data, 60)) {
                prop_assert!(bytes.len() <= 66);
            }
        } else if let Ok((_, url)) = fetcher.allowed(&named) {
            prop_assert_eq!(url.host_str(), Some("cdn.example.com"));
        }
    }

    #[test]
    fn whatever_was_encoded_is_read_back(bytes in prop::collection::vec(any::<u8>(), 1..300), split in 1_usize..80) {
        let text = BASE64.encode(&bytes);
        let lines: Vec<&str> = text.as_bytes().chunks(split).map(|line| std::str::from_utf8(line).unwrap()).collect();
        prop_assert_eq!(decode_base64(&lines.join("\n"), 300).unwrap(), bytes);
    }
}
