//! What signing costs: time and bytes for a picture of 1024 x 1024 pixels, in each format.
//!
//! `src/provenance/check/make-test-chain FOLDER ALGORITHM`, then
//! `cargo run --release -p cluegate-provenance --features c2pa --example speed -- FOLDER ALGORITHM`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use cluegate_gate::{ConstitutionRecord, Origin, Statement};
use cluegate_perception::{FileFormat, encode};
use cluegate_provenance::SigningSettings;
use image::{Rgb, RgbImage};

/// Files of each format.
const TIMES: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected a folder of make-test-chain")?;
    let algorithm = arguments.next().unwrap_or_else(|| "es256".to_owned());
    let settings: SigningSettings = serde_json::from_value(serde_json::json!({
        "certificate": "signer.pem", "key": "signer.key", "algorithm": algorithm,
    }))?;
    let opened = cluegate_provenance::open(&settings.in_folder(Path::new(&folder)))?;
    let statement = Statement {
        version: env!("CARGO_PKG_VERSION"),
        constitution: ConstitutionRecord { name: "scene".to_owned(), revision: "ab".repeat(32) },
        decision_id: "0199aaaa-0000-7000-8000-000000000001".to_owned(),
        decided_at: "2026-11-23T09:00:00Z".to_owned(),
        redacted: false,
        origin: Origin::Drawn,
    };
    let pixels =
        RgbImage::from_fn(1024, 1024, |x, y| Rgb([(x / 4) as u8, (y / 4) as u8, ((x * y) >> 12) as u8]));
    for format in [FileFormat::Png, FileFormat::Jpeg(90), FileFormat::WebP] {
        let file = encode(&pixels, format)?;
        let (mut times, mut more) = (Vec::with_capacity(TIMES), 0);
        for _ in 0..TIMES {
            let begun = Instant::now();
            more = opened.signer.sign(&file, format, &statement)?.len() - file.len();
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let (median, slow) = (times[TIMES / 2], times[TIMES * 99 / 100]);
        println!(
            "{algorithm} {}: {} bytes and {more} more; {median:.1} ms (p50), {slow:.1} ms (p99)",
            format.extension(),
            file.len()
        );
    }
    Ok(())
}
