//! What people have in a terminal: the live view on a real one, completion in a real shell,
//! the manual as man(1) formats it.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    daemon::{Daemon, agent, binary},
    lab::{Lab, run},
    runtime::{Network, in_lab},
    skip,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal of its own, by tmux; ended when dropped.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs a command in one of this size.
    fn start(lab: &Lab, command: &str, width: u16, height: u16) -> Result<Self> {
        let socket = lab.disk().join("tmux").display().to_string();
        let terminal = Self { socket };
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
            &format!("{command}; echo ended with $?; exec sleep 1000"),
        ])?;
        Ok(terminal)
    }

    fn tmux(&self, args: &[&str]) -> Result<String> {
        let output = Command::new("tmux")
            .args(["-S", &self.socket])
            .args(args)
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .context("no tmux: run `cargo xtask setup`")?;
        ensure!(
            output.status.success(),
            "tmux {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn press(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen has this text.
    fn shows(&self, text: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen()?;
            if screen.contains(text) {
                return Ok(screen);
            }
            ensure!(Instant::now() < deadline, "no `{text}` here:\n{screen}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether the program has a screen of its own, which goes with it.
    fn is_alternate(&self) -> Result<bool> {
        let on = self.tmux(&["display-message", "-p", "#{alternate_on}"])?;
        Ok(on.trim() == "1")
    }

    /// Which process runs in it: the shell's child.
    fn running(&self) -> Result<i32> {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"])?;
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        let children = std::fs::read_to_string(children)?;
        let child = children.split_whitespace().next().context("no child")?;
        Ok(child.parse()?)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

fn has_tmux() -> bool {
    let found = Command::new("tmux")
        .arg("-V")
        .stdout(Stdio::null())
        .status();
    if found.is_err() {
        skip::skip("there is no tmux: run `cargo xtask setup`");
    }
    found.is_ok()
}

fn config(lab: &Lab) -> String {
    format!(
        "holders: {{ cri: off }}\nstate_dir: {}",
        lab.disk().join("state").display()
    )
}

#[test]
fn top_is_live_and_goes_as_it_came() {
    if !has_tmux() {
        return;
    }
    in_lab(|lab| {
        let network = Network::bridge("pods", "cni0", &["10.7.0.0/24"])?;
        let first = network.start(lab, "web-1")?;
        let second = network.start(lab, "web-2")?;
        let directory = lab.disk().join("agent");
        let daemon = Daemon::start(&directory, &config(lab))?;
        let top = format!(
            "{} top --socket {}",
            binary()?.display(),
            daemon.socket().display()
        );
        let terminal = Terminal::start(lab, &top, 80, 24)?;
        terminal.shows("no conflict")?;
        ensure!(terminal.is_alternate()?, "a screen of its own");

        // What happens shows by itself.
        let address = first.address(false)?;
        first.claims(address)?;
        second.claims(address)?;
        first.claims(address)?;
        let screen = terminal.shows("duplicate-address")?;
        ensure!(screen.contains(&address.to_string()), "{screen}");

        // Its story, and back.
        terminal.press(&["Enter"])?;
        let story = terminal.shows("Esc back")?;
        ensure!(story.contains(&address.to_string()), "{story}");
        terminal.shows("default/web-1")?;
        terminal.press(&["Escape"])?;
        terminal.shows("Given back in 24 h")?;
        // Another size.
        terminal.tmux(&["resize-window", "-x", "160", "-y", "50"])?;
        terminal.shows("2 Segments")?;
        terminal.press(&["3", "Enter"])?;
        terminal.shows("host-local:pods: 2")?;
        terminal.press(&["/", "web-2"])?;
        let screen = terminal.shows("host-local:pods: 1")?;
        ensure!(!screen.contains("default/web-1"), "{screen}");
        // Two at once would be Alt and one.
        terminal.press(&["Escape"])?;
        terminal.shows("host-local:pods: 2")?;
        terminal.press(&["Escape"])?;
        terminal.shows("1 Conflicts")?;

        // The daemon goes, and comes back.
        daemon.stop()?;
        terminal.shows("NO DAEMON")?;
        let daemon = Daemon::start(&directory, &config(lab))?;
        let deadline = Instant::now() + PATIENCE;
        while terminal.screen()?.contains("NO DAEMON") {
            ensure!(Instant::now() < deadline, "it is not found again");
            thread::sleep(Duration::from_millis(50));
        }
        terminal.press(&["q"])?;
        terminal.shows("ended with 0")?;
        ensure!(!terminal.is_alternate()?, "the screen is not put back");

        // Ended from without, the terminal is put back as well.
        terminal.tmux(&[
            "respawn-pane",
            "-k",
            &format!("{top}; echo ended with $?; stty -a; sleep 1000"),
        ])?;
        terminal.shows("1 Conflicts")?;
        let pid = nix::unistd::Pid::from_raw(terminal.running()?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        terminal.shows("ended with 0")?;
        terminal.shows(" icanon")?;
        ensure!(!terminal.is_alternate()?, "the screen is not put back");
        daemon.stop()?;
        Ok(())
    });
}

#[test]
fn top_without_a_terminal_says_so_and_prints_one_look_when_asked() {
    in_lab(|lab| {
        let network = Network::bridge("pods", "cni0", &["10.7.0.0/24"])?;
        network.start(lab, "web-1")?;
        let daemon = Daemon::start(&lab.disk().join("agent"), &config(lab))?;
        let socket = daemon.socket().display().to_string();
        let refused = agent(&["top", "--socket", &socket])?;
        ensure!(
            refused.status == Some(2) && refused.out.is_empty(),
            "{refused:?}"
        );
        ensure!(refused.err.contains("no terminal"), "{refused:?}");
        ensure!(refused.err.contains("--output json"), "{refused:?}");
        let look = agent(&["top", "--socket", &socket, "--output", "json"])?;
        let document = look.json()?;
        ensure!(document["schema"] == "ipam-agent/top/v1", "{document:#}");
        ensure!(
            document["pools"][0]["store"] == "host-local:pods",
            "{document:#}"
        );
        ensure!(look.status == Some(0), "{look:?}");
        for format in ["table", "csv"] {
            let look = agent(&["top", "--socket", &socket, "--output", format])?;
            ensure!(look.out.contains("host-local:pods"), "{look:?}");
        }
        daemon.stop()?;
        Ok(())
    });
}

/// What Tab offers after these words.
fn offered(words: &[&str]) -> Result<Vec<String>> {
    let script = r#"
        source <("$0" completions bash)
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        complete=$(complete -p ipam-agent); function=${complete#*-F }; function=${function%% *}
        "$function" ipam-agent "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let output = Command::new("bash")
        .args(["--norc", "-c", script])
        .arg(binary()?)
        .args(words)
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(out.lines().map(str::to_owned).collect())
}

#[test]
fn bash_completes_commands_options_and_values() -> Result<()> {
    let commands = offered(&["ipam-agent", "re"])?;
    ensure!(commands == ["replay", "report", "reclaim"], "{commands:?}");
    let below = offered(&["ipam-agent", "reclaim", "p"])?;
    ensure!(below == ["plan", "pause"], "{below:?}");
    let options = offered(&["ipam-agent", "report", "--se"])?;
    ensure!(options == ["--segment"], "{options:?}");
    let values = offered(&["ipam-agent", "leases", "--output", ""])?;
    ensure!(values == ["table", "json", "csv"], "{values:?}");
    let kinds = offered(&["ipam-agent", "report", "--kind", "dup"])?;
    ensure!(kinds.contains(&"duplicate-address".to_owned()), "{kinds:?}");
    Ok(())
}

/// Each shell takes its script, as far as it is installed here.
#[test]
fn shells_take_their_scripts() -> Result<()> {
    for (shell, parse) in [("bash", "-n"), ("zsh", "-n"), ("fish", "-n")] {
        let script = agent(&["completions", shell])?;
        ensure!(
            script.status == Some(0) && script.out.len() > 1000,
            "{shell}"
        );
        if Command::new(shell).arg("-c").arg("true").status().is_err() {
            skip::skip(&format!("there is no {shell}: run `cargo xtask setup`"));
            continue;
        }
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), script.out)?;
        run(shell, &[parse, &file.path().display().to_string()])?;
    }
    Ok(())
}

#[test]
fn the_manual_is_clean_and_whole() -> Result<()> {
    let page = agent(&["man"])?;
    ensure!(page.status == Some(0), "{page:?}");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("ipam-agent.8");
    std::fs::write(&file, &page.out)?;
    for checker in [
        &["mandoc", "-T", "lint", "-W", "warning"][..],
        &["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-z"],
    ] {
        let (program, args) = checker.split_first().context("a program")?;
        let checked = Command::new(program).args(args).arg(&file).output();
        let Ok(checked) = checked else {
            skip::skip(&format!("there is no {program}: run `cargo xtask setup`"));
            continue;
        };
        let said = [checked.stdout, checked.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // Two builds of one version give one page, so that it has no date.
        let mut said = said.lines().filter(|line| !line.contains("missing date"));
        let first = said.next();
        ensure!(first.is_none(), "{program}: {first:?}");
    }
    // Every command is in it, with every option.
    let text = plain(&file)?;
    for (command, option) in [
        ("ipam-agent run", "--state-dir"),
        ("ipam-agent reclaim undo", "--output"),
        ("ipam-agent completions", "zsh"),
        ("ipam-agent check", "--within"),
    ] {
        let section = text.split_once(&format!("\n   {command}\n"));
        let (_, section) = section.with_context(|| format!("no {command} in:\n{text}"))?;
        let end = section.find("\n   ipam-agent").unwrap_or(section.len());
        ensure!(
            section[..end].contains(option),
            "{command} without {option}"
        );
    }
    ensure!(
        text.contains("EXIT STATUS") && text.contains("FILES"),
        "{text}"
    );
    Ok(())
}

/// The manual as it is read.
fn plain(file: &Path) -> Result<String> {
    let formatted = Command::new("groff")
        .args(["-Kutf8", "-man", "-Tascii", "-P-c", "-rLL=100n"])
        .arg(file)
        .output()
        .context("no groff")?;
    let text = String::from_utf8_lossy(&formatted.stdout).into_owned();
    // Bold and italics are overstruck.
    let mut plain = String::new();
    for character in text.chars() {
        if character == '\x08' {
            plain.pop();
        } else {
            plain.push(character);
        }
    }
    Ok(plain)
}
