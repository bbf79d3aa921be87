//! `poseidon metrics`: what a device's heartbeats said over time.

use super::client::{Client, segment};
use super::commands::rows;
use super::since;
use super::tables::{table, text};
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Points of a small plot, and of a metric that is listed.
const SMALL: u32 = 40;
const LISTED: u32 = 240;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[derive(Args)]
pub(super) struct Metrics {
    /// NAME or NAME/INSTANCE
    name: String,
    /// One metric, with all its points; without it, all of them in short
    metric: Option<String>,
    /// Since then: a Unix time, a date or date and time, or an age (90s, 15m, 2h, 3d); a day if absent
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<f64>,
    /// Until then
    #[arg(long, value_name = "TIME", value_parser = since)]
    until: Option<f64>,
    /// At most so many points of each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1500))]
    points: Option<u32>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

impl Metrics {
    pub(super) async fn run(self, client: &Client) -> Result<ExitCode, String> {
        let points = self.points.unwrap_or(match self.metric {
            Some(_) => LISTED,
            None => SMALL,
        });
        let mut path = format!("/agents/{}/metrics?points={points}", segment(&self.name));
        for (field, time) in [("since", self.since), ("until", self.until)] {
            if let Some(time) = time {
                let _ = write!(path, "&{field}={time}");
            }
        }
        if let Some(metric) = &self.metric {
            let _ = write!(path, "&name={}", segment(metric));
        }
        let answer: Value = client.get(&path).await?;
        if self.json {
            println!("{answer}");
            return Ok(ExitCode::SUCCESS);
        }
        let series: Vec<&Value> = rows(&answer, "metrics").collect();
        if let Some(metric) = &self.metric {
            let Some(one) = series.first() else {
                return Err(format!(
                    "{} has said nothing of {metric} in this time: `poseidon metrics {}` lists what it has said",
                    self.name, self.name
                ));
            };
            for (at, value) in points_of(one) {
                println!("{}  {}", triton::dates::utc(at), shown(value, &one["unit"]));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<Vec<String>> = series.iter().map(|one| row(one)).collect();
        print!(
            "{}",
            table(&["METRIC", "LAST", "LEAST", "MEAN", "MOST", ""], &rows)
        );
        Ok(ExitCode::SUCCESS)
    }
}

fn points_of(series: &Value) -> Vec<(f64, f64)> {
    let pair = |point: &Value| Some((point[0].as_f64()?, point[1].as_f64()?));
    let points = series["points"].as_array();
    points.into_iter().flatten().filter_map(pair).collect()
}

fn row(series: &Value) -> Vec<String> {
    let values: Vec<f64> = points_of(series)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    #[allow(clippy::cast_precision_loss)]
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let current = values.last().copied().unwrap_or(f64::NAN);
    let mut row = vec![text(&series["name"])];
    row.extend([current, least, mean, most].map(|value| shown(value, &series["unit"])));
    row.push(plot(&values, least, most));
    row
}

/// Bars from the least to the most.
fn plot(values: &[f64], least: f64, most: f64) -> String {
    let bar = |value: &f64| {
        let share = if most > least {
            (value - least) / (most - least)
        } else {
            0.0
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let place = (share * 7.0).round() as usize;
        BARS[place.min(7)]
    };
    values.iter().map(bar).collect()
}

/// A number with its unit.
fn shown(value: f64, unit: &Value) -> String {
    match unit.as_str().unwrap_or_default() {
        "share" => format!("{:.1} %", value * 100.0),
        "B" => super::tables::bytes(&value.into()),
        "B/s" => format!("{}/s", super::tables::bytes(&value.into())),
        unit => {
            let digits = if value.abs() >= 1000.0 || value.fract().abs() < 1e-9 {
                0
            } else {
                2
            };
            format!("{value:.digits$} {}", super::clean(unit))
                .trim_end()
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_metric_is_one_row() {
        let series = json!({"name": "system:load", "unit": "share", "points": [[60, 0.0], [120, 0.5], [180, 1.0], [240, 0.25]]});
        assert_eq!(
            row(&series),
            [
                "system:load",
                "25.0 %",
                "0.0 %",
                "43.8 %",
                "100.0 %",
                "▁▅█▃"
            ]
        );
        let none = json!({"name": "x\u{1b}", "unit": "\u{1b}", "points": []});
        assert_eq!(row(&none)[0], "x\u{FFFD}");
        assert_eq!(shown(7.0, &json!("mails")), "7 mails");
        assert_eq!(shown(7.125, &json!("°C")), "7.12 °C");
    }
}
