//! Plots as SVG elements: every colour is a class of the page, every place an attribute, so that a page with them needs
//! neither scripts nor styles of elements.

use std::fmt::{Display, Write as _};

use cluegate_eval::metrics::{Histogram, Interval};

const WIDTH: f64 = 720.0;
const NAMES: f64 = 190.0;
const ROW: f64 = 24.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
const HEIGHT: f64 = 300.0;
/// Opacity of the fullest cell of a heat map: what is written on it stays readable, in light and in dark.
const FAINT: f64 = 0.6;
/// Classes of lines, and the dashes that tell them apart without colour.
const DASHES: [&str; 6] = ["", "7 4", "2 3", "10 3 2 3", "14 4", "4 2 1 2"];

/// A value on an interval plot.
#[derive(Debug, Clone)]
pub(super) struct Estimate {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) interval: Option<Interval>,
}

/// A named line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// A point that is named on the plot.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) name: String,
    pub(super) at: (f64, f64),
}

/// What a plot of lines shows.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    pub(super) title: String,
    pub(super) x_label: String,
    pub(super) y_label: String,
    pub(super) x: (f64, f64),
    pub(super) lines: Vec<Line>,
    pub(super) marks: Vec<Mark>,
}

/// A straight axis: from values to places.
#[derive(Debug, Clone, Copy)]
struct Axis {
    values: (f64, f64),
    places: (f64, f64),
}

impl Axis {
    /// The place of `value`, within the axis; the middle if the axis has no length.
    fn place(&self, value: f64) -> f64 {
        let (low, high) = self.values;
        let share = if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 };
        self.places.0 + share * (self.places.1 - self.places.0)
    }
}

/// Text for an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// Round numbers in a range, about `count` of them: steps of 1, 2 or 5 times a power of ten.
fn ticks((low, high): (f64, f64), count: usize) -> Vec<f64> {
    if !(high - low).is_finite() || high <= low {
        return vec![low];
    }
    let rough = (high - low) / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps.into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(10.0 * power);
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// A number without needless digits.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn open(title: &str, height: f64) -> String {
    let title = escape(title);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
    )
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: impl Display) {
    let words = escape(&words.to_string());
    let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

/// Values with their intervals, one below the other, and a line at `reference`.
pub(super) fn intervals(
    title: &str,
    estimates: &[Estimate],
    range: (f64, f64),
    reference: Option<f64>,
) -> String {
    let height = ROW * estimates.len() as f64 + 34.0;
    let x = Axis { values: range, places: (NAMES, WIDTH - 70.0) };
    let mut svg = open(title, height);
    for tick in ticks(range, 6) {
        let at = x.place(tick);
        let bottom = height - 26.0;
        let _ =
            write!(svg, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"4\" y2=\"{bottom:.1}\"/>");
        text(&mut svg, (at, height - 10.0), "middle", number(tick));
    }
    if let Some(reference) = reference {
        let at = x.place(reference);
        let bottom = height - 26.0;
        let _ =
            write!(svg, "<line class=\"zero\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"4\" y2=\"{bottom:.1}\"/>");
    }
    for (index, estimate) in estimates.iter().enumerate() {
        let y = ROW * index as f64 + 18.0;
        let at = x.place(estimate.value);
        text(&mut svg, (NAMES - 10.0, y + 4.0), "end", shortened(&estimate.name, 30));
        if let Some([low, high]) = estimate.interval {
            let (low, high) = (x.place(low), x.place(high));
            let _ = write!(
                svg,
                "<path class=\"whisker\" d=\"M{low:.1} {y:.1}H{high:.1}M{low:.1} {0:.1}V{1:.1}M{high:.1} {0:.1}V{1:.1}\"/>",
                y - 4.0,
                y + 4.0
            );
        }
        let _ = write!(svg, "<circle class=\"f0\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>");
        text(&mut svg, (WIDTH - 62.0, y + 4.0), "start", format_args!("{:.3}", estimate.value));
    }
    svg + "</svg>"
}

/// Lines in a frame whose vertical axis is from 0 to 1.
pub(super) fn lines(plot: &Lines) -> String {
    let legend = 20.0 * plot.lines.len().div_ceil(3) as f64;
    let height = HEIGHT + legend;
    let x = Axis { values: plot.x, places: (LEFT, WIDTH - RIGHT) };
    let y = Axis { values: (0.0, 1.0), places: (HEIGHT - BOTTOM, TOP) };
    let mut svg = open(&plot.title, height);
    frame(&mut svg, (&x, &y), (&plot.x_label, &plot.y_label));
    for (index, line) in plot.lines.iter().enumerate() {
        let class = index % DASHES.len();
        let places: Vec<String> =
            line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x.place(*px), y.place(*py))).collect();
        let dash = DASHES[class];
        let _ = write!(
            svg,
            "<polyline class=\"s{class}\" stroke-dasharray=\"{dash}\" points=\"{}\"/>",
            places.join(" ")
        );
        if line.points.len() < 12 {
            for (px, py) in &line.points {
                let (px, py) = (x.place(*px), y.place(*py));
                let _ = write!(svg, "<circle class=\"f{class}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\"/>");
            }
        }
        let (column, row) = ((index % 3) as f64, (index / 3) as f64);
        let (left, top) = (LEFT + 220.0 * column, HEIGHT + 8.0 + 20.0 * row);
        let right = left + 28.0;
        let _ = write!(
            svg,
            "<line class=\"s{class}\" stroke-dasharray=\"{dash}\" x1=\"{left:.0}\" x2=\"{right:.0}\" y1=\"{top:.0}\" y2=\"{top:.0}\"/>"
        );
        text(&mut svg, (right + 6.0, top + 4.0), "start", shortened(&line.name, 28));
    }
    for (index, mark) in plot.marks.iter().enumerate() {
        let (px, py) = (x.place(mark.at.0), y.place(mark.at.1));
        let _ = write!(svg, "<circle class=\"mark\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"5\"/>");
        // Two that are near each other are named on different sides; none beyond the frame.
        let right = if index % 2 == 0 { px < WIDTH - 110.0 } else { px < LEFT + 110.0 };
        let (side, anchor) = if right { (9.0, "start") } else { (-9.0, "end") };
        text(&mut svg, (px + side, py + 16.0), anchor, &mark.name);
    }
    svg + "</svg>"
}

fn frame(svg: &mut String, (x, y): (&Axis, &Axis), (x_label, y_label): (&str, &str)) {
    let ((left, right), (bottom, top)) = (x.places, y.places);
    for tick in ticks(y.values, 5) {
        let at = y.place(tick);
        let _ =
            write!(svg, "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        text(svg, (left - 8.0, at + 4.0), "end", number(tick));
    }
    for tick in ticks(x.values, 8) {
        let at = x.place(tick);
        let _ =
            write!(svg, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>");
        text(svg, (at, bottom + 17.0), "middle", number(tick));
    }
    text(svg, (f64::midpoint(left, right), bottom + 36.0), "middle", x_label);
    let middle = f64::midpoint(top, bottom);
    let label = escape(y_label);
    let _ = write!(
        svg,
        "<text x=\"14\" y=\"{middle:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle:.1})\">{label}</text>"
    );
}

/// A histogram: yes above the axis, no below it, each by its own share, and lines at `marks`.
pub(super) fn histogram(title: &str, x_label: &str, histogram: &Histogram, marks: &[(f64, &str)]) -> String {
    let (middle, half, bottom) = (126.0, 100.0, 252.0);
    let x = Axis { values: (histogram.low, histogram.high), places: (LEFT, WIDTH - RIGHT) };
    let mut svg = open(title, 290.0);
    let sides = [(&histogram.positives, "yes", -1.0), (&histogram.negatives, "no", 1.0)];
    let share = |counts: &[usize], bin: usize| {
        let all: usize = counts.iter().sum();
        if all == 0 { 0.0 } else { counts[bin] as f64 / all as f64 }
    };
    let bins = histogram.positives.len();
    let highest = sides
        .iter()
        .flat_map(|(counts, ..)| (0..bins).map(|bin| share(counts, bin)))
        .fold(f64::MIN_POSITIVE, f64::max);
    let width = (x.places.1 - x.places.0) / bins as f64;
    for (counts, name, direction) in sides {
        for bin in (0..bins).filter(|bin| counts[*bin] > 0) {
            let tall = half * share(counts, bin) / highest;
            let top = if direction < 0.0 { middle - tall } else { middle };
            let left = x.places.0 + width * bin as f64 + 1.0;
            let _ = write!(
                svg,
                "<rect class=\"{name}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"><title>{}</title></rect>",
                width - 2.0,
                counts[bin]
            );
        }
        let all: usize = counts.iter().sum();
        let words = if direction < 0.0 { "violated" } else { "not violated" };
        text(
            &mut svg,
            (LEFT + 4.0, middle + direction * 104.0 + 5.0),
            "start",
            format_args!("{words} ({all})"),
        );
    }
    let _ = write!(
        svg,
        "<line class=\"zero\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{middle}\" y2=\"{middle}\"/>",
        WIDTH - RIGHT
    );
    for tick in ticks(x.values, 8) {
        text(&mut svg, (x.place(tick), bottom), "middle", number(tick));
    }
    for (value, name) in marks {
        let at = x.place(*value);
        let _ = write!(svg, "<line class=\"threshold\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"14\" y2=\"236\"/>");
        text(&mut svg, (at + 5.0, 20.0), "start", name);
    }
    text(&mut svg, (f64::midpoint(LEFT, WIDTH - RIGHT), bottom + 24.0), "middle", x_label);
    svg + "</svg>"
}

/// How often what is in a row was taken for what is in a column, darker where it was more often, by row.
pub(super) fn heat(title: &str, names: (&[String], &[String]), counts: &[Vec<usize>]) -> String {
    let (rows, columns) = names;
    let (left, top) = (150.0, 110.0);
    let cell = ((WIDTH - left - 10.0) / columns.len().max(1) as f64).min(44.0);
    let height = top + cell.min(30.0) * rows.len() as f64 + 8.0;
    let tall = cell.min(30.0);
    let mut svg = open(title, height);
    for (index, name) in columns.iter().enumerate() {
        let x = left + cell * (index as f64 + 0.5) + 4.0;
        let name = escape(&shortened(name, 18));
        let y = top - 8.0;
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" transform=\"rotate(-50 {x:.1} {y:.1})\">{name}</text>"
        );
    }
    for (row, name) in rows.iter().enumerate() {
        let y = top + tall * row as f64;
        text(&mut svg, (left - 8.0, y + tall / 2.0 + 4.0), "end", shortened(name, 20));
        let all: usize = counts[row].iter().sum();
        for (column, count) in counts[row].iter().enumerate() {
            let x = left + cell * column as f64;
            let share = if all == 0 { 0.0 } else { *count as f64 / all as f64 };
            let right = rows[row] == columns[column];
            let class = if right { "hit" } else { "miss" };
            let (wide, high) = (cell - 2.0, tall - 2.0);
            let _ = write!(
                svg,
                "<rect class=\"cell\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\"/>\
                 <rect class=\"{class}\" fill-opacity=\"{:.2}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\"/>",
                FAINT * share
            );
            if *count > 0 {
                text(&mut svg, (x + wide / 2.0, y + tall / 2.0 + 4.0), "middle", count);
            }
        }
    }
    svg + "</svg>"
}

/// A statement's score between its thresholds, all in shares of 1.
pub(super) fn bar(score: f64, prior: f64, reject: f64, accept: f64) -> String {
    let at = |share: f64| (100.0 * share.clamp(0.0, 1.0)).round();
    let (score, prior, reject, accept) = (at(score), at(prior), at(reject), at(accept));
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"zone-no\" x=\"0\" y=\"2\" width=\"{reject}\" height=\"6\"/>\
         <rect class=\"zone-open\" x=\"{reject}\" y=\"2\" width=\"{}\" height=\"6\"/>\
         <rect class=\"zone-yes\" x=\"{accept}\" y=\"2\" width=\"{}\" height=\"6\"/>\
         <rect class=\"prior\" x=\"{:.1}\" y=\"2\" width=\"0.8\" height=\"6\"/>\
         <rect class=\"score\" x=\"{:.1}\" y=\"0\" width=\"1.6\" height=\"10\"/></svg>",
        (accept - reject).max(0.0),
        100.0 - accept,
        (prior - 0.4).max(0.0),
        (score - 0.8).clamp(0.0, 98.4)
    )
}

/// At most `most` characters of a name.
pub(super) fn shortened(name: &str, most: usize) -> String {
    match name.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use cluegate_eval::metrics::{ScoreKind, histogram as of};

    use super::*;

    /// The numbers of an attribute, in order.
    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        let start = format!(" {attribute}=\"");
        svg.split(&start).skip(1).map(|part| part.split('"').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn ticks_are_round_and_within_their_range() {
        assert_eq!(ticks((0.0, 1.0), 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks((-0.1, 0.1), 4), [-0.1, -0.05, 0.0, 0.05, 0.1]);
        assert_eq!((ticks((1.0, 1.0), 5), ticks((0.0, f64::NAN), 5)), (vec![1.0], vec![0.0]));
        assert_eq!((number(-0.0001), number(0.25), number(2.0)), ("0".into(), "0.25".into(), "2".into()));
    }

    #[test]
    fn what_is_outside_stays_on_the_plot_and_names_are_escaped() {
        let estimates = [Estimate { name: "<b>".to_owned(), value: 7.0, interval: Some([-3.0, 9.0]) }];
        let svg = intervals("F1 & more", &estimates, (0.0, 1.0), Some(0.5));
        assert!(svg.contains("&lt;b&gt;") && svg.contains("F1 &amp; more") && !svg.contains("<b>"), "{svg}");
        assert!(numbers(&svg, "cx").iter().all(|x| (NAMES..=WIDTH).contains(x)));
        let plot = Lines {
            title: "t".to_owned(),
            x_label: "x".to_owned(),
            y_label: "y".to_owned(),
            x: (0.0, 1.0),
            lines: vec![Line { name: "\"a\"".to_owned(), points: vec![(0.0, 2.0), (4.0, -1.0)] }],
            marks: vec![Mark { name: "here".to_owned(), at: (0.5, 0.5) }],
        };
        let svg = lines(&plot);
        assert!(svg.contains("&quot;a&quot;") && !svg.contains("NaN"));
        assert!(numbers(&svg, "cy").iter().all(|y| (TOP..=HEIGHT).contains(y)), "{svg}");
    }

    #[test]
    fn bars_of_a_histogram_are_as_tall_as_their_shares() {
        let scores = [(0.9, true), (0.91, true), (0.1, true), (0.1, false)];
        let svg = histogram("t", "x", &of(ScoreKind::Raw, &scores).unwrap(), &[(0.5, "a1")]);
        let heights = numbers(&svg, "height");
        assert_eq!(heights.len(), 3);
        // A third and two thirds of the positives, all of the negatives.
        assert!(
            (heights[0] - 33.3).abs() < 0.1
                && (heights[1] - 66.7).abs() < 0.1
                && (heights[2] - 100.0).abs() < 0.1
        );
    }

    #[test]
    fn every_cell_of_a_heat_map_is_drawn_and_right_ones_apart() {
        let names = ["a".to_owned(), "none".to_owned()];
        let svg = heat("t", (&names, &names), &[vec![3, 1], vec![0, 2]]);
        assert_eq!((svg.matches("class=\"hit\"").count(), svg.matches("class=\"miss\"").count()), (2, 2));
        assert!(svg.contains("fill-opacity=\"0.45\"") && svg.contains("fill-opacity=\"0.15\""));
    }
}
