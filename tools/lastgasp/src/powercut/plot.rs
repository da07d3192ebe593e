//! Small pictures as inline SVG: bars, stacked bars, clouds of points.
//!
//! Invariants: every picture is as wide as a phone (340 units) and scales up; colours come from classes, so that light
//! and dark follow the page; a text that comes from outside is escaped.

use std::fmt::Write;

/// Width of every picture.
const WIDTH: f64 = 340.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 12.0;

/// Text for a page.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn open(height: f64, what: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n", escaped(what))
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, class: &str, words: &str) {
    let words = escaped(words);
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{words}</text>").ok();
}

fn rect(out: &mut String, x: f64, y: f64, width: f64, height: f64, class: &str, tip: &str) {
    let tip = escaped(tip);
    let shape = format!("x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"");
    writeln!(out, "<rect {shape}><title>{tip}</title></rect>").ok();
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), class: &str) {
    let (a, b) = (from, to);
    let ends = format!("x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"", a.0, a.1, b.0, b.1);
    writeln!(out, "<line {ends} class=\"{class}\"/>").ok();
}

/// One row of stacked bars: its name, the parts (class, size, tip), what stands at the end.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) parts: Vec<(&'static str, f64, String)>,
    pub(super) end: String,
}

/// Rows of bars, each filled to its whole width by its parts in proportion.
pub(super) fn shares(rows: &[Row], what: &str) -> String {
    let end_width = 62.0;
    let (pitch, bar) = (26.0, 16.0);
    #[expect(clippy::cast_precision_loss)]
    let height = rows.len() as f64 * pitch + 4.0;
    let mut out = open(height, what);
    let room = WIDTH - LEFT - end_width - 6.0;
    for (nth, row) in rows.iter().enumerate() {
        #[expect(clippy::cast_precision_loss)]
        let y = nth as f64 * pitch + 4.0;
        text(&mut out, LEFT - 6.0, y + 12.0, "end", "label", &row.name);
        let sum: f64 = row.parts.iter().map(|part| part.1).sum();
        let shown = row.parts.iter().filter(|part| part.1 > 0.0);
        // What is there is seen, however little it is.
        let widths: Vec<f64> = shown.clone().map(|part| (part.1 / sum * room).max(2.5)).collect();
        let scale = room / widths.iter().sum::<f64>().max(room);
        let mut x = LEFT;
        for ((class, _, tip), width) in shown.zip(widths) {
            rect(&mut out, x, y, width * scale, bar, class, tip);
            x += width * scale;
        }
        text(&mut out, WIDTH - 2.0, y + 12.0, "end", "value", &row.end);
    }
    out + "</svg>\n"
}

/// Upright bars, one a value, on a scale from 0 to the largest.
pub(super) fn columns(values: &[u64], class: &str, unit: &str, what: &str) -> String {
    let (height, top, bottom) = (120.0, 10.0, 20.0);
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let mut out = open(height, what);
    let left = 46.0;
    #[expect(clippy::cast_precision_loss)]
    let (step, scale) = ((WIDTH - left - RIGHT) / values.len().max(1) as f64, (height - top - bottom) / most as f64);
    text(&mut out, left - 6.0, top + 8.0, "end", "tick", &super::summary::grouped(most));
    text(&mut out, left - 6.0, height - bottom, "end", "tick", "0");
    for (nth, value) in values.iter().enumerate() {
        #[expect(clippy::cast_precision_loss)]
        let (x, tall) = (left + nth as f64 * step, (*value as f64 * scale).max(0.6));
        rect(
            &mut out,
            x,
            height - bottom - tall,
            (step - 1.0).max(0.8),
            tall,
            class,
            &format!("{nth}: {value} {unit}"),
        );
    }
    line(&mut out, (left, height - bottom), (WIDTH - RIGHT, height - bottom), "axis");
    text(&mut out, left, height - 5.0, "start", "tick", "0");
    text(&mut out, WIDTH - RIGHT, height - 5.0, "end", "tick", &format!("{}", values.len().saturating_sub(1)));
    out + "</svg>\n"
}

/// An axis on a logarithmic scale, with its decades.
pub(super) struct Decades {
    /// Powers of ten of its ends.
    pub(super) from: i32,
    pub(super) to: i32,
    /// What a value is called.
    pub(super) name: fn(f64) -> String,
}

impl Decades {
    /// The decades that hold all of these values.
    pub(super) fn around(values: impl Iterator<Item = f64>, name: fn(f64) -> String) -> Self {
        let mut ends: Option<(f64, f64)> = None;
        for value in values.filter(|value| *value > 0.0) {
            ends = Some(ends.map_or((value, value), |(least, most)| (least.min(value), most.max(value))));
        }
        let (least, most) = ends.unwrap_or((1.0, 10.0));
        #[expect(clippy::cast_possible_truncation)]
        let (from, to) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        Self { from, to: to.max(from + 1), name }
    }

    /// Where a value lies, from 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let span = f64::from(self.to - self.from);
        ((value.max(1e-9).log10() - f64::from(self.from)) / span).clamp(0.0, 1.0)
    }
}

/// Points with a class each, on two logarithmic scales; with the diagonal where both are equal, if wanted.
pub(super) fn cloud(points: &[(f64, f64, &str)], x: &Decades, y: &Decades, diagonal: bool, what: &str) -> String {
    let (height, top, bottom) = (210.0, 8.0, 22.0);
    let (wide, tall) = (WIDTH - LEFT - RIGHT, height - top - bottom);
    let px = |value: f64| LEFT + x.at(value) * wide;
    let py = |value: f64| height - bottom - y.at(value) * tall;
    let mut out = open(height, what);
    let every = (x.to - x.from + 3) / 4;
    for decade in x.from..=x.to {
        let at = px(10f64.powi(decade));
        line(&mut out, (at, top), (at, height - bottom), "grid");
        if (decade - x.from) % every == 0 {
            let anchor = if at > WIDTH - 40.0 { "end" } else { "middle" };
            text(&mut out, at.min(WIDTH - 2.0), height - 6.0, anchor, "tick", &(x.name)(10f64.powi(decade)));
        }
    }
    for decade in y.from..=y.to {
        let at = py(10f64.powi(decade));
        line(&mut out, (LEFT, at), (WIDTH - RIGHT, at), "grid");
        text(&mut out, LEFT - 6.0, at + 4.0, "end", "tick", &(y.name)(10f64.powi(decade)));
    }
    if diagonal {
        let (least, most) = (x.from.max(y.from), x.to.min(y.to));
        let (from, to) = (10f64.powi(least), 10f64.powi(most));
        line(&mut out, (px(from), py(from)), (px(to), py(to)), "limit");
    }
    for (x, y, class) in points {
        writeln!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.2\" class=\"{class}\"/>", px(*x), py(*y)).ok();
    }
    out + "</svg>\n"
}

/// How many values lie in each of some steps a decade.
pub(super) fn histogram(values: &[f64], x: &Decades, class: &str, what: &str) -> String {
    const STEPS: usize = 8;
    let (height, top, bottom) = (120.0, 10.0, 22.0);
    let decades = usize::try_from(x.to - x.from).unwrap_or(1);
    let mut bins = vec![0u64; STEPS * decades];
    let last = bins.len() - 1;
    for value in values {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let bin = (x.at(*value) * bins.len() as f64) as usize;
        bins[bin.min(last)] += 1;
    }
    let most = bins.iter().copied().max().unwrap_or(0).max(1);
    let mut out = open(height, what);
    let (wide, tall) = (WIDTH - LEFT - RIGHT, height - top - bottom);
    for decade in x.from..=x.to {
        let at = LEFT + x.at(10f64.powi(decade)) * wide;
        line(&mut out, (at, top), (at, height - bottom), "grid");
        let anchor = if decade == x.to { "end" } else { "middle" };
        text(&mut out, at, height - 6.0, anchor, "tick", &(x.name)(10f64.powi(decade)));
    }
    #[expect(clippy::cast_precision_loss)]
    let step = wide / bins.len() as f64;
    for (nth, count) in bins.iter().enumerate().filter(|bin| *bin.1 > 0) {
        #[expect(clippy::cast_precision_loss)]
        let (at, size) = (LEFT + nth as f64 * step, (*count as f64 / most as f64 * tall).max(1.0));
        rect(&mut out, at + 0.5, height - bottom - size, step - 1.0, size, class, &count.to_string());
    }
    line(&mut out, (LEFT, height - bottom), (WIDTH - RIGHT, height - bottom), "axis");
    text(&mut out, LEFT - 6.0, top + 8.0, "end", "tick", &super::summary::grouped(most));
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_well_formed_and_escape_what_they_are_told() {
        let name = |value: f64| format!("{value}");
        let x = Decades::around([0.3, 700.0].into_iter(), name);
        assert_eq!((x.from, x.to), (-1, 3));
        let row = Row { name: "<a>".to_owned(), parts: vec![("ok", 3.0, "\"".to_owned())], end: "&".to_owned() };
        for svg in [
            shares(&[row], "w"),
            columns(&[], "ok", "KiB", "w"),
            columns(&[1, 0, 5], "ok", "KiB", "w"),
            cloud(&[(1.0, 2.0, "ok")], &x, &x, true, "w"),
            histogram(&[0.3, 5.0, 700.0], &x, "ok", "w"),
        ] {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(!svg.contains("<a>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(svg.matches("<rect").count(), svg.matches("</rect>").count());
        }
    }

    #[test]
    fn an_axis_without_values_has_a_decade_to_show() {
        let x = Decades::around(std::iter::empty(), |value| format!("{value}"));
        assert_eq!((x.from, x.to), (0, 1));
    }
}
