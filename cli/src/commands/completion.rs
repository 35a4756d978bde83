//! `orloj completion`: what a shell needs to complete command lines.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Arguments;
use crate::exit::{Code, Outcome};
use crate::output;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj completion bash > /etc/bash_completion.d/orloj
  orloj completion zsh > ~/.zfunc/_orloj
  orloj completion fish > ~/.config/fish/completions/orloj.fish")]
pub(crate) struct CompletionArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(arguments: &CompletionArguments) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "orloj", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Code::Ok)
}
