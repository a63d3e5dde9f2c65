//! The status page as people see it: the real daemon, real frames and leases, and a real
//! Chromium in the daemon's own network.

mod page {
    pub mod pictures;
    pub mod world;
}

use anyhow::{Result, ensure};
use tests::{
    browser::{Browser, key},
    lab::in_lab,
    runtime::{self, Network},
    skip,
};

use self::page::world::{ORIGIN, World, holders, leases, quiet};

/// Runs a test where there is a browser and a laboratory.
fn browsing(test: impl FnOnce(&mut tests::lab::Lab) -> Result<()> + Send + 'static) {
    match tests::browser::available() {
        Ok(()) => in_lab(test),
        Err(why) => {
            skip::skip(&why);
        }
    }
}

/// That nothing is wider than the window.
fn ensure_fits(browser: &Browser, what: &str) -> Result<()> {
    let widths = browser.value(
        "[document.documentElement.scrollWidth, innerWidth, \
         [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > \
         innerWidth + 1 && !e.closest('thead')).slice(0, 3).map(e => e.outerHTML.slice(0, 200))]",
    )?;
    ensure!(widths[0] == widths[1], "{what} runs over: {widths:#}");
    Ok(())
}

#[test]
fn it_reads_without_scripts() {
    browsing(|lab| {
        let world = World::start(lab, &leases(&["10.7.0.0/24"], 40))?;
        world.contest(&[5])?;
        let browser = Browser::start()?;
        browser.scripts(false)?;
        for (width, name) in [(1280, "a desk"), (360, "a phone")] {
            browser.look(width, 800, false)?;
            browser.open(ORIGIN)?;
            ensure_fits(&browser, name)?;
            let text = browser.value("document.body.innerText")?;
            let text = text.as_str().unwrap_or_default();
            for words in [
                "1 conflict, critical",
                "the one segment is watched",
                "duplicate-address",
                "10.7.0.5",
                "is used by",
                "at once",
                "veth-a",
                "veth-b",
                "vm/5",
                "10.7.0.0/24",
                "None: no lease was given back yet.",
            ] {
                ensure!(text.contains(words), "no `{words}` on {name}:\n{text}");
            }
        }
        // Every address of the pool is there, and each is a way to its story.
        ensure!(browser.value("document.querySelectorAll('.map a').length")? == 256);
        browser.click(".map a[href='/address/10.7.0.9']")?;
        ensure!(browser.url()?.ends_with("/address/10.7.0.9"));
        let story = browser.text("main")?;
        ensure!(story.contains("vm/9"), "{story}");
        ensure!(story.contains("against its release"), "{story}");
        browser.click("a.home")?;
        ensure!(browser.text("h1")?.contains("1 conflict"));
        browser.ensure_quiet(ORIGIN)
    });
}

#[test]
fn it_renews_itself_and_tells_stories_by_mouse_and_by_keys() {
    browsing(|lab| {
        let world = World::start(lab, &leases(&["10.7.0.0/24"], 40))?;
        let browser = Browser::start()?;
        browser.look(1280, 900, false)?;
        browser.open(ORIGIN)?;
        browser.wait(
            "all to be well",
            "document.querySelector('#standing h1').innerText.includes('Nothing contested')",
        )?;
        // A mark, which is gone if the page is loaded anew.
        browser.value("window.mark = 1")?;
        world.contest(&[5])?;
        browser.wait(
            "the conflict to appear by itself",
            "!!document.querySelector('.conflict[data-level=critical]')",
        )?;
        ensure!(
            browser.value("window.mark")? == 1,
            "the page was loaded anew"
        );
        ensure!(
            browser
                .text("#standing h1")?
                .contains("1 conflict, critical")
        );
        ensure!(browser.value("document.title.startsWith('1 conflict')")? == true);
        let hot = ".map a.hot[href='/address/10.7.0.5']";
        browser.wait(
            "its cell to tell",
            &format!("!!document.querySelector(\"{hot}\")"),
        )?;

        browser.click(hot)?;
        browser.wait(
            "its story",
            "document.querySelector('dialog')?.open === true",
        )?;
        let story = browser.text("dialog")?;
        ensure!(
            story.contains("What happened") && story.contains("a conflict opens"),
            "{story}"
        );
        browser.press(&[key::ESCAPE])?;
        browser.wait("it to close", "!document.querySelector('dialog').open")?;

        // Where the focus was; then by keys alone.
        let focus = "document.activeElement.getAttribute('href')";
        ensure!(browser.value(focus)? == "/address/10.7.0.5");
        browser.press(&[key::RIGHT, key::DOWN, key::LEFT, key::LEFT, key::UP])?;
        ensure!(browser.value(focus)? == "/address/10.7.0.4");
        browser.press(&[key::END])?;
        ensure!(browser.value(focus)? == "/address/10.7.0.255");
        browser.press(&[key::DOWN, key::HOME, key::UP, key::RIGHT])?;
        ensure!(browser.value(focus)? == "/address/10.7.0.1");
        ensure!(browser.text(".readout")?.contains("10.7.0.1"));
        let outline = "getComputedStyle(document.activeElement).outlineStyle";
        ensure!(
            browser.value(outline)? == "solid",
            "the focus isn't to be seen"
        );
        browser.press(&[key::ENTER])?;
        browser.wait(
            "its story",
            "document.querySelector('dialog').open && \
             document.querySelector('dialog h1').innerText === '10.7.0.1'",
        )?;
        browser.press(&[key::ESCAPE])?;

        // What has focus keeps it when the page is renewed.
        world.contest(&[7])?;
        browser.wait(
            "both",
            "document.querySelectorAll('.map a.hot').length === 2",
        )?;
        ensure!(browser.value(focus)? == "/address/10.7.0.1");
        browser.ensure_quiet(ORIGIN)?;

        // A daemon that is gone is told of, and what was seen stays.
        world.daemon.stop()?;
        browser.wait("word of it", "!document.getElementById('silent').hidden")?;
        let silence = browser.text("#silent")?;
        ensure!(silence.contains("no answer"), "{silence}");
        ensure!(browser.value("document.querySelectorAll('.conflict').length")? == 2);
        Ok(())
    });
}

#[test]
fn names_from_the_wire_and_from_leases_are_text() {
    browsing(|lab| {
        let hostile = [
            "<script>window.pwned=1</script>",
            "<img src=x onerror=window.pwned=1>",
            "\"><svg onload=window.pwned=1>",
            "' onmouseover='window.pwned=1",
            "</title></style></script><iframe srcdoc='<script>parent.pwned=1</script>'>",
            "<a href=javascript:window.pwned=1>x</a>",
            "{{constructor.constructor('window.pwned=1')()}}",
            "http://evil.example/<link rel=stylesheet href=//evil.example/x.css>",
            "\u{202e}gnp.exe\u{0}\u{7}\u{1b}[2J",
        ];
        let world = World::start_with_port(lab, &holders("10.7.0.0/24", &hostile), "\"><b>&x'y")?;
        // The holder's is the first; the other's name is that of its port.
        world.contest(&(1..=hostile.len() as u8).collect::<Vec<_>>())?;
        let browser = Browser::start()?;
        browser.look(360, 800, true)?;
        browser.open(ORIGIN)?;
        browser.wait(
            "all conflicts",
            &format!(
                "document.querySelectorAll('.conflict').length === {}",
                hostile.len()
            ),
        )?;
        ensure_fits(&browser, "what is hostile")?;
        let elements = "document.querySelectorAll('main script, main img, main iframe, main b b, \
                        main link, main a:not([href^=\"/\"]):not([href^=\"#\"]), main *[onerror], \
                        main *[onload], main *[onmouseover]').length";
        for at in 1..=hostile.len() {
            let page = browser.value("document.body.innerText")?;
            let name = hostile[at - 1];
            let shown = ipam_agent::report::clean(name);
            let is_shown = |text: &str| text.contains(&*shown);
            ensure!(
                page.as_str().is_some_and(is_shown),
                "{shown} isn't shown:\n{page}"
            );
            ensure!(
                page.as_str()
                    .is_some_and(|text| text.contains("\"><b>&x'y")),
                "{page}"
            );
            ensure!(browser.value(elements)? == 0, "{name} became elements");
            browser.open(&format!("{ORIGIN}address/10.7.0.{at}"))?;
            let story = browser.value("document.body.innerText")?;
            ensure!(story.as_str().is_some_and(is_shown), "{shown}:\n{story}");
            ensure!(browser.value(elements)? == 0, "{name} became elements");
            ensure_fits(&browser, "a hostile story")?;
            browser.open(ORIGIN)?;
        }
        ensure!(browser.value("window.pwned ?? null")?.is_null());
        browser.ensure_quiet(ORIGIN)?;

        // Paths and questions are anybody's too.
        for path in [
            "address/%3Cscript%3Ewindow.pwned=1%3C/script%3E",
            "pool?store=%3Cimg%20src=x%20onerror=window.pwned=1%3E",
            "pool?store=a&prefix=b&block=zzz",
            "pool",
            "map?store=x",
            "%3Cscript%3E",
        ] {
            browser.open(&format!("{ORIGIN}{path}"))?;
            ensure!(browser.value("window.pwned ?? null")?.is_null(), "{path}");
            ensure!(browser.value("document.querySelectorAll('main script, img').length")? == 0);
        }
        Ok(())
    });
}

#[test]
fn a_real_duplicate_of_real_leases_is_the_first_thing_to_see() {
    if let Err(why) = runtime::available() {
        skip::skip(&why);
        return;
    }
    browsing(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24", "fd00:9::/64"])?;
        let (one, two) = (net.start(lab, "one")?, net.start(lab, "two")?);
        let state = lab.disk().join("state");
        let config = format!("state_dir: {}", state.display());
        let daemon = tests::daemon::Daemon::start(&lab.disk().join("daemon"), &config)?;
        let browser = Browser::start()?;
        browser.look(1280, 900, false)?;
        browser.open(ORIGIN)?;
        for v6 in [false, true] {
            let address = one.address(v6)?;
            for pod in [&one, &two, &one, &two] {
                pod.claims(address)?;
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            browser.wait(
                "the duplicate",
                &format!(
                    "[...document.querySelectorAll('.conflict')].some(c => c.innerText.includes\
                     ('{address}') && c.innerText.includes('{}') && c.innerText.includes('{}') && \
                     c.innerText.includes('default/one') && c.innerText.includes('duplicate-address'))",
                    one.mac, two.mac
                ),
            )?;
        }
        // Both families' pools are drawn, from what the plugin's configuration says.
        for prefix in ["10.9.0.0/24", "fd00:9::/64"] {
            let drawn = format!(
                "[...document.querySelectorAll('.pool')].some(p => \
                 p.innerText.includes('{prefix}') && p.querySelectorAll('.map a').length === 256 && \
                 p.querySelectorAll('.map a:is(.a, .q, .u)').length === 2)"
            );
            browser.wait(prefix, &drawn)?;
        }
        quiet(&daemon)?;
        browser.ensure_quiet(ORIGIN)
    });
}
