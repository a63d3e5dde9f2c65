//! `cargo xtask bench` runs this: measures what is promised, and prints it.

use clap::{Parser, ValueEnum};
use serde::Serialize;
use tests::bench::{Figure, measure};

#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    about = "Measure what is promised; progress goes to stderr"
)]
struct Args {
    /// As a table for people, or as one JSON document
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Measure these figures only
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    figures: Vec<Figure>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let figures = measure(&args.names)?;
    match args.output {
        Output::Table => figures.iter().for_each(line),
        Output::Json => {
            let document = Document {
                schema: "ipam-agent/bench/v1",
                figures,
            };
            println!("{}", serde_json::to_string(&document)?);
        }
    }
    Ok(())
}

fn line(figure: &Figure) {
    let Figure {
        name,
        value,
        unit,
        target,
        least,
        baseline,
    } = figure;
    let number = format!("{value:.3}");
    let bounds = [
        ("at most", *target, *target >= Some(*value)),
        ("at least", *least, *least <= Some(*value)),
    ];
    let bounds = bounds.into_iter().filter_map(|(word, bound, kept)| {
        let verdict = if kept { "kept" } else { "MISSED" };
        bound.map(|bound| format!("{word} {bound}: {verdict}"))
    });
    let bounds = bounds.collect::<Vec<_>>().join(", ");
    let baseline = match baseline {
        Some(baseline) => format!("over {baseline:.3}"),
        None => String::new(),
    };
    let line = format!("{name:<26} {number:>14} {unit:<9} {bounds:<24} {baseline}");
    println!("{}", line.trim_end());
}
