//! Panels as SVG, drawn from their own JSON and what Prometheus answers: enough of what
//! Grafana would do to show what they show.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{
    Scene,
    panel::{Panel, Series},
};

/// Pixels of a column and of a row of the dashboard's grid.
const CELL: (f64, f64) = (60.0, 32.0);
/// Between panels.
const GAP: f64 = 6.0;
const TEXT: &str = "#ccccdc";
const FAINT: &str = "#8e8e9a";
/// Grafana's, of lines without a colour of their own.
const PALETTE: [&str; 8] = [
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#37872d",
];

/// The dashboard's panels down to the row of this title, from when the scene began to `end`
/// (Unix seconds).
pub fn draw(scene: &Scene, dashboard: &Value, until: &str, end: f64) -> Result<String> {
    let panels = Panel::all(dashboard);
    let shown: Vec<Panel> = panels
        .into_iter()
        .take_while(|panel| panel.title() != until)
        .collect();
    let bottom = shown
        .iter()
        .map(|panel| panel.place()[1] + panel.place()[3]);
    let (width, height) = (
        24.0 * CELL.0 + GAP,
        bottom.fold(0.0, f64::max) * CELL.1 + GAP,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"Inter,Helvetica,Arial,sans-serif\" font-size=\"12\" fill=\"{TEXT}\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#111217\"/>\n"
    );
    let range = (scene.begin, end);
    for panel in &shown {
        let [x, y, w, h] = panel.place();
        let (w, h) = (w * CELL.0 - GAP, h * CELL.1 - GAP);
        let (x, y) = (x * CELL.0 + GAP, y * CELL.1 + GAP);
        writeln!(svg, "<g transform=\"translate({x} {y})\">")?;
        if panel.kind() == "row" {
            writeln!(
                svg,
                "<text x=\"4\" y=\"18\" font-size=\"15\" font-weight=\"600\">{}</text></g>",
                escaped(panel.title())
            )?;
            continue;
        }
        let mut series = Vec::new();
        for target in panel.targets() {
            series.extend(panel.ask(target, &scene.prometheus, range)?);
        }
        let mut pen = Pen {
            svg: &mut svg,
            panel,
            w,
            h,
        };
        match panel.kind() {
            "stat" => pen.stat(&series)?,
            "bargauge" => pen.bars(&series)?,
            "table" => pen.table(&series)?,
            _ => pen.lines(&series, range)?,
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

struct Pen<'a> {
    svg: &'a mut String,
    panel: &'a Panel,
    w: f64,
    h: f64,
}

impl Pen<'_> {
    fn defaults(&self) -> &Value {
        &self.panel.json["fieldConfig"]["defaults"]
    }

    fn frame(&mut self, fill: &str) -> Result<()> {
        let (w, h) = (self.w, self.h);
        writeln!(
            self.svg,
            "<rect width=\"{w}\" height=\"{h}\" rx=\"3\" fill=\"{fill}\" stroke=\"#2c2d33\"/>\
             <text x=\"10\" y=\"20\" font-weight=\"500\">{}</text>",
            escaped(self.panel.title())
        )?;
        Ok(())
    }

    /// The colour of a value by the panel's thresholds.
    fn threshold(&self, value: f64) -> &'static str {
        let steps = self.defaults()["thresholds"]["steps"].as_array();
        let reached = steps
            .into_iter()
            .flatten()
            .rfind(|step| step["value"].as_f64().is_none_or(|from| value >= from));
        named(
            reached
                .and_then(|step| step["color"].as_str())
                .unwrap_or_default(),
        )
    }

    fn unit(&self) -> &str {
        self.panel.json["fieldConfig"]["defaults"]["unit"]
            .as_str()
            .unwrap_or("short")
    }

    fn stat(&mut self, series: &[Series]) -> Result<()> {
        let value = last(series.first());
        let fill = self.threshold(value);
        self.frame(fill)?;
        writeln!(
            self.svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-size=\"40\" font-weight=\"600\" fill=\"#fff\">{}</text>",
            self.w / 2.0,
            self.h / 2.0 + 24.0,
            told(value, self.unit())
        )?;
        Ok(())
    }

    fn bars(&mut self, series: &[Series]) -> Result<()> {
        self.frame("#181b1f")?;
        let high = ((self.h - 40.0) / series.len().max(1) as f64).min(64.0);
        for (n, one) in series.iter().enumerate() {
            let (value, y) = (last(Some(one)), 34.0 + n as f64 * high);
            let full = self.w - 90.0;
            writeln!(
                self.svg,
                "<text x=\"10\" y=\"{}\" fill=\"{FAINT}\">{}</text>\
                 <rect x=\"10\" y=\"{}\" width=\"{full}\" height=\"{}\" rx=\"2\" fill=\"#22252b\"/>\
                 <rect x=\"10\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"2\" fill=\"{}\"/>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\" font-size=\"18\">{}</text>",
                y + 12.0,
                escaped(&one.name),
                y + 18.0,
                high - 28.0,
                y + 18.0,
                full * value.clamp(0.0, 1.0),
                high - 28.0,
                self.threshold(value),
                self.w - 10.0,
                y + 24.0 + (high - 28.0) / 2.0,
                told(value, self.unit()),
            )?;
        }
        Ok(())
    }

    fn table(&mut self, series: &[Series]) -> Result<()> {
        self.frame("#181b1f")?;
        let columns = ["severity", "kind", "address", "macs", "segment", "instance"];
        let left = |n: usize| 10.0 + [0.0, 0.09, 0.25, 0.39, 0.67, 0.82][n] * self.w;
        for (n, column) in columns.iter().enumerate() {
            writeln!(
                self.svg,
                "<text x=\"{}\" y=\"48\" fill=\"#6e9fff\">{column}</text>",
                left(n)
            )?;
        }
        let rows = ((self.h - 60.0) / 24.0) as usize;
        for (row, one) in series.iter().take(rows).enumerate() {
            let y = 74.0 + row as f64 * 24.0;
            for (n, column) in columns.iter().enumerate() {
                let text = one.labels[*column].as_str().unwrap_or_default();
                writeln!(
                    self.svg,
                    "<text x=\"{}\" y=\"{y}\">{}</text>",
                    left(n),
                    escaped(text)
                )?;
            }
        }
        Ok(())
    }

    fn lines(&mut self, series: &[Series], (begin, end): (f64, f64)) -> Result<()> {
        self.frame("#181b1f")?;
        let custom = self.defaults()["custom"].clone();
        let stacked = custom["stacking"]["mode"] == "normal";
        let is_bars = custom["drawStyle"] == "bars";
        let fill = custom["fillOpacity"].as_f64().unwrap_or_default() / 100.0;
        let mut series: Vec<Series> = series
            .iter()
            .filter(|one| !one.values.is_empty())
            .cloned()
            .collect();
        series.sort_by(|a, b| a.name.cmp(&b.name));
        // Each on top of those before it.
        let mut below: Vec<Vec<(f64, f64, f64)>> = Vec::new();
        for one in &series {
            let floor = |at: f64| match stacked {
                false => 0.0,
                true => { below.iter().rev() }
                    .find_map(|line| line.iter().find(|point| point.0 == at).map(|point| point.2))
                    .unwrap_or(0.0),
            };
            let line = one
                .values
                .iter()
                .map(|&(at, value)| (at, floor(at), floor(at) + value));
            below.push(line.collect());
        }
        let top = below
            .iter()
            .flatten()
            .map(|point| point.2)
            .fold(0.0, f64::max);
        let top = self.defaults()["max"]
            .as_f64()
            .unwrap_or_else(|| round_up(top));
        let legend = legend_rows(&series, self.w);
        let (left, right, high) = (58.0, self.w - 12.0, self.h - 48.0 - 18.0 * legend);
        let x = |at: f64| left + (at - begin) / (end - begin) * (right - left);
        let y = |value: f64| 32.0 + (1.0 - value / top) * (high - 32.0);
        for step in 0..=4 {
            let value = top * f64::from(step) / 4.0;
            writeln!(
                self.svg,
                "<path d=\"M{left} {0:.1}H{right}\" stroke=\"#2c2d33\"/>\
                 <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\" fill=\"{FAINT}\">{3}</text>",
                y(value),
                left - 6.0,
                y(value) + 4.0,
                told(value, self.unit())
            )?;
        }
        let mut at = begin;
        while at < end {
            let seconds = (at - begin) as u64;
            writeln!(
                self.svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"{FAINT}\">{}:{:02}</text>",
                x(at).max(left + 8.0),
                high + 16.0,
                seconds / 60,
                seconds % 60
            )?;
            at += if right - left > 500.0 { 10.0 } else { 20.0 };
        }
        let (mut lx, mut ly) = (12.0, high + 40.0);
        for (n, (one, line)) in series.iter().zip(&below).enumerate() {
            let colour = self.colour(&one.name, n);
            if is_bars {
                let wide = ((right - left) / (end - begin) * 0.5).max(1.0);
                for &(at, from, to) in line {
                    writeln!(
                        self.svg,
                        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{:.1}\" fill=\"{colour}\" fill-opacity=\"{fill}\"/>",
                        x(at) - wide / 2.0,
                        y(to),
                        (y(from) - y(to)).max(0.0)
                    )?;
                }
            } else {
                // What wasn't scraped is a gap.
                for part in line.chunk_by(|a, b| b.0 - a.0 < 1.6) {
                    let up: Vec<String> = part
                        .iter()
                        .map(|p| format!("{:.1} {:.1}", x(p.0), y(p.2)))
                        .collect();
                    let down: Vec<String> = part
                        .iter()
                        .rev()
                        .map(|p| format!("{:.1} {:.1}", x(p.0), y(p.1)))
                        .collect();
                    writeln!(
                        self.svg,
                        "<path d=\"M{}L{}Z\" fill=\"{colour}\" fill-opacity=\"{fill}\"/>\
                         <path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>",
                        up.join("L"),
                        down.join("L"),
                        up.join("L")
                    )?;
                }
            }
            let long = 26.0 + one.name.chars().count() as f64 * 6.4;
            if lx + long > self.w {
                (lx, ly) = (12.0, ly + 18.0);
            }
            writeln!(
                self.svg,
                "<rect x=\"{lx}\" y=\"{}\" width=\"12\" height=\"4\" rx=\"2\" fill=\"{colour}\"/><text x=\"{}\" y=\"{ly}\">{}</text>",
                ly - 6.0,
                lx + 16.0,
                escaped(&one.name)
            )?;
            lx += long;
        }
        Ok(())
    }

    /// As an override says, else of the palette.
    fn colour(&self, name: &str, n: usize) -> &'static str {
        let overrides = self.panel.json["fieldConfig"]["overrides"].as_array();
        let own = overrides
            .into_iter()
            .flatten()
            .find(|rule| rule["matcher"]["options"] == *name);
        match own.and_then(|rule| rule["properties"][0]["value"]["fixedColor"].as_str()) {
            Some(colour) => named(colour),
            None => PALETTE[n % PALETTE.len()],
        }
    }
}

fn last(series: Option<&Series>) -> f64 {
    series
        .and_then(|one| one.values.last())
        .map_or(0.0, |value| value.1)
}

/// How many rows a legend takes.
fn legend_rows(series: &[Series], w: f64) -> f64 {
    let long: f64 = series
        .iter()
        .map(|one| 26.0 + one.name.chars().count() as f64 * 6.4)
        .sum();
    (long / (w - 12.0)).ceil().max(1.0) - 1.0
}

/// The next 1, 2 or 5 of its order.
fn round_up(top: f64) -> f64 {
    if top <= 0.0 {
        return 1.0;
    }
    let order = 10f64.powf(top.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    order
        * steps
            .into_iter()
            .find(|step| top <= step * order)
            .unwrap_or(10.0)
}

/// A value in the panel's unit.
fn told(value: f64, unit: &str) -> String {
    let short = |value: f64| {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match unit {
        "percentunit" => format!("{} %", (value * 100.0).round()),
        "s" if value == 0.0 => String::from("0 s"),
        "s" if value < 0.001 => format!("{} µs", short(value * 1e6)),
        "s" if value < 1.0 => format!("{} ms", short(value * 1e3)),
        "s" => format!("{} s", short(value)),
        _ => short(value),
    }
}

/// Grafana's names of colours.
fn named(colour: &str) -> &'static str {
    match colour {
        "green" => "#56a64b",
        "blue" => "#5794f2",
        "orange" => "#e0752d",
        "red" => "#d44a3a",
        "purple" => "#b877d9",
        "yellow" => "#fade2a",
        _ => TEXT,
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
