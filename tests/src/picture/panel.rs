//! A panel of the dashboard, and what Prometheus answers to it.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::prometheus::Prometheus;

/// A panel, as the dashboard has it.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its JSON.
    pub json: Value,
}

/// A line of a panel: its legend, its labels, and its values by Unix seconds.
#[derive(Clone, Debug)]
pub struct Series {
    /// As the legend names it.
    pub name: String,
    /// Its labels.
    pub labels: Value,
    /// In order of time; one, of an instant query.
    pub values: Vec<(f64, f64)>,
}

impl Panel {
    /// Those of a dashboard, in its order.
    pub fn all(dashboard: &Value) -> Vec<Self> {
        let panels = dashboard["panels"].as_array().into_iter().flatten();
        panels.map(|json| Self { json: json.clone() }).collect()
    }

    /// Its title.
    pub fn title(&self) -> &str {
        self.json["title"].as_str().unwrap_or_default()
    }

    /// What kind it is.
    pub fn kind(&self) -> &str {
        self.json["type"].as_str().unwrap_or_default()
    }

    /// Its queries.
    pub fn targets(&self) -> impl Iterator<Item = &Value> {
        self.json["targets"].as_array().into_iter().flatten()
    }

    /// Its place: x, y, width and height in the grid of 24 columns.
    pub fn place(&self) -> [f64; 4] {
        ["x", "y", "w", "h"].map(|key| self.json["gridPos"][key].as_f64().unwrap_or_default())
    }

    /// What Prometheus knows for one of its queries, as Grafana would ask.
    pub fn ask(
        &self,
        target: &Value,
        prometheus: &Prometheus,
        (begin, end): (f64, f64),
    ) -> Result<Vec<Series>> {
        let expression = filled(target["expr"].as_str().context("no expression")?);
        let result = match target["instant"] == true {
            true => prometheus.query(&expression)?,
            false => prometheus.range(&expression, begin, end, 0.5)?,
        };
        let legend = target["legendFormat"].as_str().unwrap_or_default();
        let series = result.into_iter().map(|series| {
            let labels = series["metric"].clone();
            let pairs = series["values"].as_array().cloned();
            let pairs = pairs.unwrap_or_else(|| vec![series["value"].clone()]);
            let value = |pair: &Value| {
                let value = pair[1].as_str()?.parse::<f64>().ok()?;
                Some((pair[0].as_f64()?, value)).filter(|_| value.is_finite())
            };
            Series {
                name: named(legend, &labels),
                values: pairs.iter().filter_map(value).collect(),
                labels,
            }
        });
        Ok(series.collect())
    }
}

/// With its variables as Grafana fills them in when all is chosen.
pub fn filled(expression: &str) -> String {
    expression
        .replace("$__rate_interval", "8s")
        .replace("$instance", ".*")
        .replace("$segment", ".*")
        .replace("$store", ".*")
}

/// A legend with its labels.
fn named(legend: &str, labels: &Value) -> String {
    let mut name = legend.to_owned();
    for (key, value) in labels.as_object().into_iter().flatten() {
        name = name.replace(
            &format!("{{{{{key}}}}}"),
            value.as_str().unwrap_or_default(),
        );
    }
    name
}
