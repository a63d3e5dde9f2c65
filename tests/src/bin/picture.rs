//! `cargo xtask picture` runs this: the dashboard's panels with real data, as SVG on stdout.

use anyhow::Result;
use tests::{lab, picture, prometheus};

fn main() -> Result<()> {
    let svg = lab::try_in_lab(|lab| {
        let scene = picture::play(lab)?;
        let end = picture::now()?;
        picture::draw(&scene, &prometheus::dashboard()?, "What is seen", end)
    })?;
    print!("{svg}");
    Ok(())
}
