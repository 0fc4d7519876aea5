//! `check FILE`: what a configuration would put in force, without a cluster.

use std::process::ExitCode;

use external_ip_core::settings;

use crate::cli::Check;

/// Prints the configuration in force to standard output, or what is wrong to standard error.
pub fn run(args: &Check) -> ExitCode {
    let file = args.file.display();
    let text = match std::fs::read_to_string(&args.file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("error: {file}: {error}");
            return ExitCode::FAILURE;
        }
    };
    match settings::parse(&text) {
        Ok(parsed) => {
            if let Some(translation) = parsed.origin_translation {
                println!("# {file} is a configuration of external-ip-proxy. It means:");
                translation.lines().for_each(|line| println!("# {line}"));
            }
            parsed.settings.notes().iter().for_each(|note| println!("# {note}"));
            println!("{}", settings::render(&parsed.settings));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {file}: {error}");
            ExitCode::FAILURE
        }
    }
}
