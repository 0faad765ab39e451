//! `cluegate health`, as a container asks for it.

use std::fs;

use crate::gateway::{Gateway, Setup};
use crate::support::{Run, command, finish};

fn health(arguments: &[&str]) -> Run {
    finish(command().arg("health").args(arguments))
}

#[test]
fn a_gateway_with_a_certificate_of_a_private_authority_is_asked_for_its_health() {
    let setup = Setup::new("[tls]\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n");
    let write = |name: &str, text: String| {
        let path = setup.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let trusted = write("certificate.pem", made.cert.pem());
    let key = write("key.pem", made.signing_key.serialize_pem());
    let stranger = write("other.pem", other.cert.pem());
    let gateway = Gateway::start(&setup, &[], &[]);
    let url = format!("{}/healthz", gateway.url);
    assert!(url.starts_with("https://"), "{url}");
    health(&[&url, "--certificates", &trusted]).expect(0);
    for arguments in [
        &[url.as_str()][..],
        &[&url, "--certificates", &stranger],
        &[&url, "--certificates", &key],
        &[&url, "--certificates", "/nowhere.pem"],
    ] {
        health(arguments).expect(2);
    }
    gateway.stop();
}

#[test]
fn whoever_does_not_answer_is_not_healthy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let silent = health(&[&format!("http://{address}/healthz"), "--timeout-ms", "200"]);
    assert!(silent.expect(2).stderr.contains("timeout"));
}
