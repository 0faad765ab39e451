//! Plots as SVG: lines over a straight or logarithmic axis, and bars.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
const BAR: f64 = 26.0;
const NAMES: f64 = 220.0;

/// Lines in one frame; the vertical axis begins at zero.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    /// Whether the horizontal axis is logarithmic; its values are then above zero.
    pub(crate) log_x: bool,
    pub(crate) lines: Vec<Line>,
}

/// A named line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// An axis: from values to places.
#[derive(Debug, Clone, Copy)]
struct Axis {
    values: (f64, f64),
    places: (f64, f64),
    log: bool,
}

impl Axis {
    /// The place of `value`; the middle if the axis has no length.
    fn place(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.log { v.ln() } else { v };
        let (low, high) = (scale(self.values.0), scale(self.values.1));
        let share = if high > low { (scale(value) - low) / (high - low) } else { 0.5 };
        self.places.0 + share * (self.places.1 - self.places.0)
    }
}

/// Round numbers from zero to at least `max`, about `count` of them: steps of 1, 2 or 5 times a power of ten.
fn ticks(max: f64, count: usize) -> Vec<f64> {
    if !(max.is_finite() && max > 0.0) {
        return vec![0.0, 1.0];
    }
    let rough = max / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // About `count`.
    let last = (max / step - 1e-9).ceil() as usize;
    (0..=last).map(|i| i as f64 * step).collect()
}

/// A number without needless digits.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else if value.abs() >= 1.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Plot {
    /// The plot as an `svg` element; its colours are the classes `c0`, `c1`, ... of the page.
    pub(crate) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let mut xs: Vec<f64> = points().map(|point| point.0).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let highest = points().map(|point| point.1).fold(0.0, f64::max);
        let y_ticks = ticks(highest, 5);
        let ends = (xs.first().copied().unwrap_or(0.0), xs.last().copied().unwrap_or(1.0));
        let ends = if self.log_x { ends } else { (0.0, ends.1) };
        let x = Axis { values: ends, places: (LEFT, WIDTH - RIGHT), log: self.log_x };
        let top = y_ticks.last().copied().unwrap_or(1.0);
        let y = Axis { values: (0.0, top), places: (HEIGHT - BOTTOM, TOP), log: false };
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        for tick in &y_ticks {
            let at = y.place(*tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                number(*tick)
            );
        }
        let mut free_from = 0.0;
        for value in if self.log_x { xs } else { ticks(ends.1, 8) } {
            let at = x.place(value);
            // A label that would cover the one before it is left out.
            if value > ends.1 || at < free_from {
                continue;
            }
            free_from = at + 26.0;
            let below = HEIGHT - BOTTOM + 16.0;
            let label = number(value);
            let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>");
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text x=\"14\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {:.1})\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escape(&self.x_label),
            (TOP + HEIGHT - BOTTOM) / 2.0,
            (TOP + HEIGHT - BOTTOM) / 2.0,
            escape(&self.y_label),
        );
        for (index, line) in self.lines.iter().enumerate() {
            draw(&mut svg, index, line, (&x, &y));
        }
        svg.push_str("</svg>");
        svg
    }
}

/// The line with its points, and its name in the corner.
fn draw(svg: &mut String, index: usize, line: &Line, (x, y): (&Axis, &Axis)) {
    let places: Vec<(f64, f64)> = line.points.iter().map(|p| (x.place(p.0), y.place(p.1))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let class = index % 6;
    let _ = write!(svg, "<polyline class=\"c{class}\" points=\"{}\"/>", path.join(" "));
    for ((px, py), (value_x, value_y)) in places.iter().zip(&line.points) {
        let _ = write!(
            svg,
            "<circle class=\"c{class}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\"><title>{}: {} at {}</title></circle>",
            escape(&line.name),
            number(*value_y),
            number(*value_x)
        );
    }
    let row = TOP + 14.0 + 16.0 * index as f64;
    let _ = write!(
        svg,
        "<rect class=\"c{class}\" x=\"{}\" y=\"{:.1}\" width=\"10\" height=\"10\"/><text x=\"{}\" y=\"{row:.1}\">{}</text>",
        LEFT + 10.0,
        row - 9.0,
        LEFT + 26.0,
        escape(&line.name)
    );
}

/// Horizontal bars from zero, each with its name and its value in `unit`, as an `svg` element.
pub(crate) fn bars(unit: &str, bars: &[(String, f64)]) -> String {
    let highest = bars.iter().map(|bar| bar.1).filter(|value| value.is_finite()).fold(0.0, f64::max);
    let axis = Axis { values: (0.0, highest), places: (0.0, WIDTH - NAMES - 90.0), log: false };
    let height = BAR * bars.len() as f64 + 6.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    for (index, (name, value)) in bars.iter().enumerate().filter(|(_, bar)| bar.1.is_finite()) {
        let top = BAR * index as f64 + 4.0;
        let length = if highest > 0.0 { axis.place(*value) } else { 0.0 };
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"c{}\" x=\"{NAMES}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{} {}</text>",
            NAMES - 8.0,
            top + 14.0,
            escape(name),
            usize::from(index != 0),
            BAR - 7.0,
            NAMES + length + 6.0,
            top + 14.0,
            number(*value),
            escape(unit)
        );
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_highest_value() {
        assert_eq!(ticks(10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(1.0, 2), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(731.0, 5), [0.0, 200.0, 400.0, 600.0, 800.0]);
        for max in [0.003, 0.7, 3.0, 97.0, 1234.5, 9e6] {
            let ticks = ticks(max, 5);
            assert!(ticks.last().unwrap() >= &max && (3..=8).contains(&ticks.len()), "{max}: {ticks:?}");
        }
        assert_eq!(ticks(0.0, 5), [0.0, 1.0]);
        assert_eq!(ticks(f64::NAN, 5), [0.0, 1.0]);
    }

    #[test]
    fn an_axis_maps_its_ends_and_its_middle() {
        let straight = Axis { values: (0.0, 200.0), places: (10.0, 110.0), log: false };
        assert!((straight.place(0.0) - 10.0).abs() < 1e-9);
        assert!((straight.place(50.0) - 35.0).abs() < 1e-9);
        let log = Axis { values: (1.0, 64.0), places: (0.0, 6.0), log: true };
        for power in 0..=6 {
            assert!((log.place(2f64.powi(power)) - f64::from(power)).abs() < 1e-9);
        }
        // Downwards on the page is a smaller place for a larger value.
        let down = Axis { values: (0.0, 10.0), places: (100.0, 0.0), log: false };
        assert!((down.place(10.0)).abs() < 1e-9);
        let point = Axis { values: (5.0, 5.0), places: (0.0, 10.0), log: false };
        assert!((point.place(5.0) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn a_plot_draws_every_point_inside_its_frame() {
        let lines = vec![
            Line { name: "a < b".to_owned(), points: vec![(1.0, 3.0), (8.0, 9.0), (64.0, 2.0)] },
            Line { name: "other".to_owned(), points: vec![(1.0, 30.0)] },
        ];
        let plot = Plot { x_label: "n".to_owned(), y_label: "ms".to_owned(), log_x: true, lines };
        let svg = plot.svg();
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN"));
        for part in svg.split("cx=\"").skip(1) {
            let place: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((LEFT..=WIDTH - RIGHT).contains(&place), "{place}");
        }
    }

    #[test]
    fn bars_are_as_long_as_their_values_and_leave_out_what_was_not_measured() {
        let svg =
            bars("ms", &[("ours".to_owned(), 50.0), ("it".to_owned(), 100.0), ("no".to_owned(), f64::NAN)]);
        let widths: Vec<f64> = svg
            .split("width=\"")
            .skip(1)
            .map(|part| part.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(widths.len(), 2);
        assert!((widths[1] / widths[0] - 2.0).abs() < 0.01);
    }
}
