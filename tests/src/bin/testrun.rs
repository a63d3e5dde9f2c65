//! Prints what a packet costs, one figure a line.

fn main() -> anyhow::Result<()> {
    for figure in tests::testrun::figures()? {
        let tests::testrun::Figure {
            name,
            value,
            unit,
            target,
            baseline,
        } = figure;
        println!("{name} {value} {unit} (target {target}, over {baseline})");
    }
    Ok(())
}
