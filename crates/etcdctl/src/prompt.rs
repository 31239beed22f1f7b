//! Questions to the person at the terminal.

use std::io::BufRead;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Asks for a password: prints the prompt and reads a line of standard input, without echo when
/// that is a terminal. The end of the input is an empty password.
///
/// # Errors
/// Standard input cannot be read.
pub(crate) fn password(prompt: &str) -> Result<String, String> {
    crate::out::text(prompt);
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).ok();
    if let Some(before) = &before {
        let mut silent: Termios = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // A terminal that keeps its echo is no reason not to ask.
        let _changed = tcsetattr(&stdin, OptionalActions::Now, &silent);
    }
    let mut line = String::new();
    let outcome = stdin.lock().read_line(&mut line);
    if let Some(before) = &before {
        let _changed = tcsetattr(&stdin, OptionalActions::Now, before);
    }
    crate::out::text("\n");
    match outcome {
        Ok(_) => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
