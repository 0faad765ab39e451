//! What the embedded models do not know is refused, unless forced.

use image::{Rgb, RgbImage};

use crate::support::{Scenes, folder, judge, noise};

/// Light falling over a few soft hills with grain: as unlike emoji scenes as a photograph.
fn landscape() -> RgbImage {
    let grain = noise(256, 192);
    RgbImage::from_fn(256, 192, |x, y| {
        let (u, v) = (x as f32 / 256.0, y as f32 / 192.0);
        let ridge = 0.45 + 0.12 * (u * 7.0).sin() + 0.05 * (u * 23.0 + 1.0).sin();
        let shade = (u * 31.0 + v * 17.0).sin() * (v * 41.0 - u * 5.0).cos() * 22.0;
        let [red, green, blue] = if v < ridge {
            [150.0 + 60.0 * v, 165.0 + 40.0 * v, 190.0 - 30.0 * v]
        } else {
            [84.0 - 40.0 * v + shade, 78.0 - 30.0 * v + shade, 60.0 - 25.0 * v + 0.6 * shade]
        };
        let texture = (f32::from(grain.get_pixel(x, y).0[0]) - 128.0) * 0.12;
        Rgb([red, green, blue].map(|c: f32| (c + texture).clamp(0.0, 255.0) as u8))
    })
}

#[test]
fn a_picture_from_elsewhere_is_refused_unless_forced() {
    let out = folder();
    let (static_, hills) = (out.path().join("noise.png"), out.path().join("hills.png"));
    noise(224, 224).save(&static_).expect("a file");
    landscape().save(&hills).expect("a file");
    for line in judge(&[], &[&static_, &hills]).expect(2).lines() {
        assert_eq!(line["verdict"], "error", "{line}");
        assert_eq!(line["reason"], "out-of-domain", "{line}");
        let message = line["message"].as_str().expect("a message");
        assert!(message.contains("--force") && message.contains("scene world"), "{message}");
    }
    let forced = judge(&["--force"], &[&static_, &hills]);
    assert!(forced.code < 2, "{forced:#?}");
    for line in forced.lines() {
        assert!(["safe", "unsafe"].contains(&line["verdict"].as_str().expect("a verdict")), "{line}");
    }
}

#[test]
fn a_constitution_from_elsewhere_is_refused_unless_forced() {
    let (scenes, out) = (Scenes::new(), folder());
    let cat = scenes.save(&scenes.pair("cat", "tree", false), out.path(), "cat.png");
    let [line] =
        judge(&["--constitution", "general"], &[&cat]).expect(2).lines().try_into().expect("one line");
    assert_eq!((&line["verdict"], &line["reason"]), (&"error".into(), &"out-of-domain".into()));
    let message = line["message"].as_str().expect("a message");
    for needed in ["general", "scene world", "--force"] {
        assert!(message.contains(needed), "{needed}: {message}");
    }
    let forced = judge(&["--constitution", "general", "--force"], &[&cat]);
    assert!(forced.code < 2, "{forced:#?}");
    assert_eq!(forced.lines()[0]["rules"].as_array().expect("rules").len(), 14);
}
