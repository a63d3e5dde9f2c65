//! The page with little, much and very much to show: it fits, paints and stays quiet. With
//! `IPAM_AGENT_PICTURES=DIR` in the environment, pictures of it all are left there; with
//! `UPDATE=1` those of the README are made anew.

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tests::{
    browser::{Browser, key},
    daemon::Daemon,
    lab::{Lab, ip},
    runtime::{self, Network, Pod},
    skip,
};

use super::world::{ORIGIN, World, leases};
use crate::{browsing, ensure_fits};

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
const DESK: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (360, 760);

fn pictures() -> Option<PathBuf> {
    let directory = PathBuf::from(env::var_os("IPAM_AGENT_PICTURES")?);
    fs::create_dir_all(&directory).ok()?;
    Some(directory)
}

/// Looks at desk and phone, light and dark.
fn look(browser: &Browser, name: &str) -> Result<()> {
    for ((width, height), size) in [(DESK, "desk"), (PHONE, "phone")] {
        for (dark, scheme) in [(false, "light"), (true, "dark")] {
            browser.look(width, height, dark)?;
            browser.open(ORIGIN)?;
            browser.wait("a first look", "document.readyState === 'complete'")?;
            let paint = first_paint(browser)?;
            eprintln!("{name}, {size}, {scheme}: first contentful paint after {paint:.0} ms");
            ensure_fits(browser, &format!("{name} at {size}"))?;
            if let Some(directory) = pictures() {
                let file = |part: &str| directory.join(format!("{name}-{size}-{scheme}{part}.png"));
                // Maps are drawn as they come into view.
                for map in ["at(0)", "at(-1)"] {
                    let map = format!("[...document.querySelectorAll('.tiles')].{map}");
                    browser.value(&format!("{map}?.scrollIntoView()"))?;
                    let drawn = format!("!{map} || !!{map}.querySelector('canvas')");
                    browser.wait("a map", &drawn)?;
                }
                browser.value("scrollTo(0, 0)")?;
                browser.picture_into(false, &file(""))?;
                browser.picture_into(true, &file("-whole"))?;
            }
        }
    }
    browser.ensure_quiet(ORIGIN)
}

fn first_paint(browser: &Browser) -> Result<f64> {
    let painted = "performance.getEntriesByName('first-contentful-paint')";
    browser.wait("something to be painted", &format!("{painted}.length > 0"))?;
    let at = browser.value(&format!("{painted}[0].startTime"))?;
    at.as_f64().context("no time")
}

fn contested(count: u32) -> Vec<Ipv4Addr> {
    let first = u32::from(Ipv4Addr::new(10, 7, 0, 2));
    (first..first + count).map(Ipv4Addr::from).collect()
}

fn with_conflicts(lab: &Lab, count: u32) -> Result<()> {
    let world = World::start(lab, &leases(&["10.7.0.0/22", "10.8.0.0/24"], 200))?;
    let addresses = contested(count);
    for some in addresses.chunks(100) {
        world.contest_all(some)?;
    }
    let browser = Browser::start()?;
    browser.open(ORIGIN)?;
    browser.wait(
        "all conflicts",
        &format!("document.querySelectorAll('.conflict').length === {count}"),
    )?;
    look(&browser, &format!("conflicts-{count}"))
}

#[test]
fn nothing_wrong() {
    browsing(|lab| with_conflicts(lab, 0));
}

#[test]
fn three_conflicts() {
    browsing(|lab| with_conflicts(lab, 3));
}

#[test]
fn five_hundred_conflicts() {
    browsing(|lab| with_conflicts(lab, 500));
}

#[test]
fn ten_pools_of_65536_addresses() {
    browsing(|lab| {
        let pools: Vec<String> = (20..30)
            .map(|second| format!("10.{second}.0.0/16"))
            .collect();
        let pools: Vec<&str> = pools.iter().map(String::as_str).collect();
        let world = World::start(lab, &leases(&pools, 10_000))?;
        let told = world.daemon.query("report", &[])?;
        let count: u64 = { told["leases"].as_object().into_iter().flatten() }
            .filter_map(|(_, count)| count.as_u64())
            .sum();
        ensure!(count > 60_000, "{count} leases");
        let browser = Browser::start()?;
        look(&browser, "ten-pools")?;

        // To the last of them, and into one of its blocks.
        browser.look(DESK.0, DESK.1, false)?;
        browser.open(ORIGIN)?;
        let last = "[...document.querySelectorAll('.tiles')].at(-1)";
        browser.value(&format!("{last}.scrollIntoView()"))?;
        browser.wait(
            "it to be drawn",
            &format!("!!{last}.querySelector('canvas')"),
        )?;
        ensure!(browser.value(&format!("{last}.querySelectorAll('a').length"))? == 256);
        browser.value(&format!("{last}.querySelectorAll('a')[17].focus()"))?;
        browser.press(&[key::ENTER])?;
        browser.wait(
            "its cells",
            "document.querySelectorAll('dialog .map a').length === 256",
        )?;
        ensure!(browser.text("dialog h1")?.starts_with("10.29.17.0"));
        browser.click("dialog .map a.q, dialog .map a.u, dialog .map a.a")?;
        browser.wait("a story", "!!document.querySelector('dialog .verdict')")?;
        if let Some(directory) = pictures() {
            browser.picture_into(false, &directory.join("story.png"))?;
        }
        // And the same without the script.
        browser.scripts(false)?;
        browser.open(&format!(
            "{ORIGIN}pool?store={}&prefix=10.29.0.0/16",
            store(&world)?
        ))?;
        ensure!(browser.value("document.querySelectorAll('.blocks tbody tr').length")? == 256);
        browser.click(".blocks tbody tr:nth-child(18) a")?;
        ensure!(browser.text("h1")?.starts_with("10.29.17.0"));
        browser.look(PHONE.0, PHONE.1, false)?;
        ensure_fits(&browser, "a block")?;
        browser.ensure_quiet(ORIGIN)
    });
}

fn store(world: &World) -> Result<String> {
    let leases = world.daemon.query("leases", &[])?;
    let store = leases["leases"][0]["store"].as_str().context("a store")?;
    Ok(store.replace('/', "%2F"))
}

/// Pods come, two of them dispute, some leak their leases: what is given back, what could be,
/// and why, is on the page. This is what the README's pictures show.
#[test]
fn what_leaked_is_told_and_what_was_given_back_with_its_reasons() {
    if let Err(why) = runtime::available() {
        skip::skip(&why);
        return;
    }
    browsing(|lab| {
        let net = Network::bridge("k8s-pod-network", "cni0", &["10.52.0.0/24"])?;
        let names = ["web", "api", "db", "cache", "worker", "job"];
        let pods: Result<Vec<Pod>> = (0..24)
            .map(|number| net.start(lab, &format!("{}-{}", names[number % 6], number / 6)))
            .collect();
        let pods = pods?;
        let config = format!(
            "state_dir: {}\nholders: {{ cri: off }}\n\
             reclaim: {{ lab: true, gate: 2s, damaged_gate: 2500ms, asked_gate: 2s, \
             asked_damaged_gate: 2500ms, reboot_gate: 2s, pass_interval: 500ms }}",
            lab.disk().join("state").display()
        );
        let daemon = Daemon::start(&lab.disk().join("daemon"), &config)?;
        for pod in &pods {
            pod.claims(pod.address(false)?)?;
        }
        // Their namespaces go, and nobody says DEL.
        for (leaked, left) in [(0..3, "released"), (3..8, "stale")] {
            for pod in &pods[leaked.clone()] {
                ip(&["netns", "del", pod.netns.name()])?;
            }
            let count = leaked.len();
            daemon.wait_for("them to be stale", PATIENCE, "report", |report| {
                (report["leases"]["stale"] == count).then_some(())
            })?;
            if left == "released" {
                let (_, status) = daemon.command("reclaim apply", &["--yes"])?;
                ensure!(status == Some(0), "not all were released: {}", daemon.log());
            }
        }
        let (one, two) = (&pods[20], &pods[21]);
        for pod in [one, two, one, two] {
            pod.claims(one.address(false)?)?;
            std::thread::sleep(Duration::from_millis(150));
        }

        let browser = Browser::start()?;
        browser.look(1280, 1180, false)?;
        browser.open(ORIGIN)?;
        browser.wait(
            "all of it",
            "document.querySelectorAll('.map a.s').length === 5 && \
             document.querySelectorAll('.map a.r').length === 3 && \
             document.querySelectorAll('#releases .releases > li').length === 3 && \
             document.querySelectorAll('.conflict[data-level=critical]').length === 1",
        )?;
        let releases = browser.text("#releases")?;
        for words in [
            "3 leases given back within a day",
            "default/web-0",
            "probes unanswered",
        ] {
            ensure!(releases.contains(words), "no `{words}`:\n{releases}");
        }
        ensure!(browser.text("#pools-stale")?.contains("5 proven stale"));
        let quarantined =
            browser.value("document.querySelector('.map a.r').getAttribute('href')")?;
        browser.click(".map a.r")?;
        browser.wait("its story", "!!document.querySelector('dialog .verdict')")?;
        let story = browser.text("dialog")?;
        ensure!(story.contains("reclaim undo"), "{quarantined}: {story}");
        browser.press(&[key::ESCAPE])?;
        browser.ensure_quiet(ORIGIN)?;
        browser.value("document.activeElement.blur()")?;
        let directory = match env::var_os("UPDATE") {
            Some(_) => Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures")),
            None => pictures(),
        };
        let Some(directory) = directory else {
            return Ok(());
        };
        fs::create_dir_all(&directory)?;
        for (dark, name) in [(false, "light"), (true, "dark")] {
            browser.look(1280, 1180, dark)?;
            browser.picture_into(false, &directory.join(format!("status-page-{name}.png")))?;
        }
        Ok(())
    });
}
