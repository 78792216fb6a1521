//! Text for the guest's shell.

/// `text` as one word of a shell command.
#[must_use]
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["", "plain", "two words", "it's", "$HOME `id` \"x\" \\ *", "''", "a;b&c|d>e"] {
            let command = format!("printf %s {}", quote(text));
            let said = std::process::Command::new("sh").args(["-c", &command]).output().unwrap().stdout;
            assert_eq!(String::from_utf8(said).unwrap(), text);
        }
    }
}
