//! `ipam-agent completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, CliError, Io, Status};

/// What a shell needs to complete the agent's commands and options.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent completions bash > /etc/bash_completion.d/ipam-agent
  ipam-agent completions zsh > /usr/local/share/zsh/site-functions/_ipam-agent
  ipam-agent completions fish > /etc/fish/completions/ipam-agent.fish

In the shell that runs: source <(ipam-agent completions bash)")]
pub struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

impl CompletionsArgs {
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ipam-agent", &mut script);
        // clap_complete 4.6 takes the hyphen of the name for a command's in one of two places
        // of bash's script, which would then complete nothing behind a command.
        let script = String::from_utf8_lossy(&script).replace("ipam__subcmd__agent", "ipam__agent");
        io.put(&script)?;
        Ok(Status::Nothing)
    }
}
