//! What the demo tells as it goes.

use std::time::Instant;

/// Writes the story, to stdout or, where that is for figures, to stderr.
#[derive(Debug)]
pub struct Story {
    begun: Instant,
    aside: bool,
}

impl Story {
    /// A story; `aside`: to stderr.
    pub fn new(aside: bool) -> Self {
        Self {
            begun: Instant::now(),
            aside,
        }
    }

    /// A chapter's heading.
    pub fn chapter(&self, title: &str) {
        self.line(&format!("\n== {title}\n"));
    }

    /// A sentence, with the seconds since the beginning.
    pub fn say(&self, text: &str) {
        self.line(&format!("{:6.1} s  {text}", self.seconds()));
    }

    /// What a command of the agent printed, with the command.
    pub fn show(&self, command: &str, output: &str) {
        self.line(&format!("\n    $ ipam-agent {command}"));
        for line in output.lines() {
            self.line(&format!("    {line}"));
        }
        self.line("");
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn line(&self, text: &str) {
        if self.aside {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}
