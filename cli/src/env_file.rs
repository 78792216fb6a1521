//! systemd's EnvironmentFile syntax, the format of `/etc/nixos-containers/NAME.conf`.
//!
//! The rules are those of systemd v256's `parse_env_file_internal` (src/basic/env-file.c), which is lenient: a line
//! without `=` is dropped, blank lines and indentation mean nothing, quotes are only special where a value or a
//! further part of one begins, and whatever is still open at the end of the file counts as closed there.

/// One `KEY=value` of the file, in file order. The same key may occur again; the last one wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Name of the variable: always one that a process environment can carry in systemd's eyes
    /// (`[A-Za-z_][A-Za-z0-9_]*`).
    pub key: String,
    /// The value, quotes and escapes resolved.
    pub value: String,
    /// Line of the key's first character, counted from 1.
    pub line: u32,
}

/// Reads every assignment of `text`. Assignments to a name that systemd would not put into an environment are left
/// out, as systemd leaves them out.
#[must_use]
pub fn parse(text: &str) -> Vec<Assignment> {
    let mut parser = Parser::new();
    for c in text.chars() {
        parser.step(c);
    }
    parser.finish()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    BeforeKey,
    Key,
    BeforeValue,
    Value,
    ValueEscape,
    SingleQuoted,
    DoubleQuoted,
    DoubleQuotedEscape,
    Comment,
    CommentEscape,
}

struct Parser {
    state: State,
    line: u32,
    key: String,
    key_line: u32,
    value: String,
    /// Length of `value` without the unquoted, unescaped white space at its end.
    kept: usize,
    found: Vec<Assignment>,
}

impl Parser {
    fn new() -> Self {
        Parser {
            state: State::BeforeKey,
            line: 1,
            key: String::new(),
            key_line: 1,
            value: String::new(),
            kept: 0,
            found: Vec::new(),
        }
    }

    fn step(&mut self, c: char) {
        self.state = match self.state {
            State::BeforeKey => self.before_key(c),
            State::Key => self.key(c),
            State::BeforeValue => self.before_value(c),
            State::Value => self.value(c),
            State::ValueEscape => self.value_escape(c),
            State::SingleQuoted => self.single_quoted(c),
            State::DoubleQuoted => self.double_quoted(c),
            State::DoubleQuotedEscape => self.double_quoted_escape(c),
            State::Comment if c == '\\' => State::CommentEscape,
            State::Comment if is_newline(c) => State::BeforeKey,
            State::Comment => State::Comment,
            // Since v254 a comment ends with its line even where that line ends in a backslash.
            State::CommentEscape if is_newline(c) => State::BeforeKey,
            State::CommentEscape => State::Comment,
        };
        if c == '\n' {
            self.line = self.line.saturating_add(1);
        }
    }

    fn before_key(&mut self, c: char) -> State {
        if matches!(c, '#' | ';') {
            return State::Comment;
        }
        if is_space(c) {
            return State::BeforeKey;
        }
        self.key_line = self.line;
        self.key.clear();
        self.key.push(c);
        State::Key
    }

    fn key(&mut self, c: char) -> State {
        if is_newline(c) {
            return State::BeforeKey;
        }
        if c == '=' {
            self.value.clear();
            self.kept = 0;
            return State::BeforeValue;
        }
        self.key.push(c);
        State::Key
    }

    fn before_value(&mut self, c: char) -> State {
        match c {
            _ if is_newline(c) => self.end_assignment(),
            '\'' => State::SingleQuoted,
            '"' => State::DoubleQuoted,
            '\\' => State::ValueEscape,
            _ if is_space(c) => State::BeforeValue,
            _ => {
                self.push(c);
                State::Value
            }
        }
    }

    fn value(&mut self, c: char) -> State {
        if is_newline(c) {
            self.value.truncate(self.kept);
            return self.end_assignment();
        }
        if c == '\\' {
            self.kept = self.value.len();
            return State::ValueEscape;
        }
        if is_space(c) {
            self.value.push(c);
        } else {
            self.push(c);
        }
        State::Value
    }

    fn value_escape(&mut self, c: char) -> State {
        if !is_newline(c) {
            self.push(c);
        }
        State::Value
    }

    fn single_quoted(&mut self, c: char) -> State {
        if c == '\'' {
            return State::BeforeValue;
        }
        self.push(c);
        State::SingleQuoted
    }

    fn double_quoted(&mut self, c: char) -> State {
        match c {
            '"' => State::BeforeValue,
            '\\' => State::DoubleQuotedEscape,
            _ => {
                self.push(c);
                State::DoubleQuoted
            }
        }
    }

    fn double_quoted_escape(&mut self, c: char) -> State {
        // As in a shell: the backslash only disappears before what it can escape, and before a newline.
        if !matches!(c, '"' | '\\' | '`' | '$' | '\n') {
            self.push('\\');
        }
        if c != '\n' {
            self.push(c);
        }
        State::DoubleQuoted
    }

    fn push(&mut self, c: char) {
        self.value.push(c);
        self.kept = self.value.len();
    }

    fn end_assignment(&mut self) -> State {
        let key = self.key.trim_end_matches(is_space);
        if is_variable_name(key) {
            let (key, value) = (key.to_owned(), self.value.clone());
            self.found.push(Assignment { key, value, line: self.key_line });
        }
        State::BeforeKey
    }

    fn finish(mut self) -> Vec<Assignment> {
        match self.state {
            State::BeforeKey | State::Key | State::Comment | State::CommentEscape => {}
            State::Value => {
                self.value.truncate(self.kept);
                self.end_assignment();
            }
            State::BeforeValue
            | State::ValueEscape
            | State::SingleQuoted
            | State::DoubleQuoted
            | State::DoubleQuotedEscape => {
                self.end_assignment();
            }
        }
        self.found
    }
}

fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_variable_name(key: &str) -> bool {
    let mut chars = key.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).into_iter().map(|a| (a.key, a.value)).collect()
    }

    fn value(text: &str) -> String {
        let found = pairs(text);
        assert_eq!(found.len(), 1, "{text:?} gave {found:?}");
        found[0].1.clone()
    }

    #[test]
    fn white_space_around_keys_and_values_is_dropped() {
        assert_eq!(pairs("  A=1\n\n\t B = 2 \t\n"), [("A".into(), "1".into()), ("B".into(), "2".into())]);
        assert_eq!(value("A=one two  "), "one two");
        assert_eq!(value("A=1\r\n"), "1");
    }

    #[test]
    fn comments_begin_only_where_a_key_may() {
        assert_eq!(pairs("# A=1\n; B=2\n  #C=3\nD=4"), [("D".into(), "4".into())]);
        assert_eq!(value("A=1 # 2"), "1 # 2");
        assert_eq!(value("# A=1 \\\nB=2"), "2");
        assert_eq!(value("# \\n A=1\nB=2"), "2");
    }

    #[test]
    fn quotes_are_special_where_a_part_begins() {
        assert_eq!(value("A='x y '"), "x y ");
        assert_eq!(value("A=\"x y \""), "x y ");
        assert_eq!(value("A='x' \"y\" z"), "xyz");
        assert_eq!(value("A=it's"), "it's");
        assert_eq!(value("A='two\nlines'"), "two\nlines");
        assert_eq!(value("A='a\\b'"), "a\\b");
    }

    #[test]
    fn escapes_follow_the_quotes_they_stand_in() {
        assert_eq!(value("A=a\\tb\\\\"), "atb\\");
        assert_eq!(value("A=one\\\ntwo"), "onetwo");
        assert_eq!(value("A=one \\\n two"), "one  two");
        assert_eq!(value("A=one\\ "), "one ");
        assert_eq!(value(r#"A="\"\\\`\$\n""#), "\"\\`$\\n");
        assert_eq!(value("A=\"one\\\ntwo\""), "onetwo");
    }

    #[test]
    fn what_is_open_at_the_end_is_closed_there() {
        assert_eq!(value("A='x y "), "x y ");
        assert_eq!(value("A=\"x"), "x");
        assert_eq!(value("A=x  "), "x");
        assert_eq!(value("A=x \\"), "x ");
        assert_eq!(value("A="), "");
        assert_eq!(pairs("A"), []);
    }

    #[test]
    fn lines_that_systemd_drops_are_dropped() {
        assert_eq!(pairs("junk\nexport A=1\n1A=2\n=3\nÄ=4\n"), []);
    }

    #[test]
    fn a_line_number_is_the_keys() {
        let lines: Vec<u32> =
            parse("\n# c\nA=1\\\n2\r\nB='x\ny'\n\n  C=3").into_iter().map(|a| a.line).collect();
        assert_eq!(lines, [3, 5, 8]);
    }

    proptest! {
        #[test]
        fn any_text_parses(text in "\\PC*|[A-C=# ;'\"\\\\\n\r\t]*") {
            let lines = u32::try_from(text.matches('\n').count()).unwrap() + 1;
            for found in parse(&text) {
                prop_assert!(is_variable_name(&found.key));
                prop_assert!((1..=lines).contains(&found.line));
            }
        }

        #[test]
        fn a_quoted_value_comes_back(text in "[^\\x00]*") {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace('`', "\\`").replace('$', "\\$");
            prop_assert_eq!(value(&format!("A=\"{quoted}\"\n")), text);
        }
    }
}
