//! The syntax of systemd's unit files, which `.nspawn` files have: sections, assignments, comments, lines that go on.
//!
//! The rules are those of systemd v256's `config_parse`: what cannot be understood is passed over with a warning that
//! has its line, but a section without its bracket makes the file unusable.

/// Longest line, with those that continue it.
const LINE_MAX: usize = 1 << 20;

/// `KEY=value` in a section that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The section.
    pub(super) section: String,
    /// The key.
    pub(super) key: String,
    /// The value, without white space around it.
    pub(super) value: String,
    /// Line where it ends, counted from 1.
    pub(super) line: usize,
}

/// What a file says: its assignments, and what was passed over, each with its line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UnitFile {
    pub(super) assignments: Vec<Assignment>,
    pub(super) warnings: Vec<(usize, String)>,
}

/// The section that lines belong to.
enum Section<'a> {
    None,
    Ignored,
    Named(&'a str),
}

/// Reads a file with these sections.
///
/// # Errors
/// The line that makes the file unusable, and why.
pub(super) fn parse(bytes: &[u8], sections: &[&'static str]) -> Result<UnitFile, (usize, String)> {
    let mut file = UnitFile::default();
    let mut section = Section::None;
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut pending: Vec<u8> = Vec::new();
    let mut number = 0;
    for raw in bytes.split(|byte| *byte == b'\n') {
        number += 1;
        let raw = raw.trim_ascii_start();
        if raw.first().is_some_and(|first| b"#;".contains(first)) {
            continue;
        }
        if pending.len() + raw.len() > LINE_MAX {
            return Err((number, format!("the line has more than {LINE_MAX} bytes")));
        }
        pending.extend_from_slice(raw);
        if let Some(last) = continues(&mut pending) {
            *last = b' ';
            continue;
        }
        line(&std::mem::take(&mut pending), number, sections, &mut section, &mut file)?;
    }
    line(&pending, number, sections, &mut section, &mut file)?;
    Ok(file)
}

/// The backslash at the end of a line that goes on: one that no other backslash escapes.
fn continues(line: &mut [u8]) -> Option<&mut u8> {
    let slashes = line.iter().rev().take_while(|byte| **byte == b'\\').count();
    if slashes % 2 == 1 { line.last_mut() } else { None }
}

fn line<'a>(
    bytes: &[u8],
    number: usize,
    sections: &[&'a str],
    section: &mut Section<'a>,
    file: &mut UnitFile,
) -> Result<(), (usize, String)> {
    let mut warn = |sentence: String| file.warnings.push((number, sentence));
    let Ok(text) = std::str::from_utf8(bytes) else {
        warn("String is not UTF-8 clean, ignoring line.".to_owned());
        return Ok(());
    };
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    if text.is_empty() {
        return Ok(());
    }
    if let Some(header) = text.strip_prefix('[') {
        let Some(name) = header.strip_suffix(']') else {
            return Err((
                number,
                format!("Invalid section header '{text}', write [Exec], [Files] or [Network]"),
            ));
        };
        *section = match sections.iter().find(|known| **known == name) {
            Some(known) => Section::Named(known),
            None => {
                if !name.starts_with("X-") {
                    warn(format!("Unknown section '{name}'. Ignoring."));
                }
                Section::Ignored
            }
        };
        return Ok(());
    }
    let name = match section {
        Section::Ignored => return Ok(()),
        Section::None => {
            warn("Assignment outside of section. Ignoring.".to_owned());
            return Ok(());
        }
        Section::Named(name) => *name,
    };
    match text.split_once('=') {
        None => warn("Missing '=', ignoring line.".to_owned()),
        Some(("", _)) => warn("Missing key name before '=', ignoring line.".to_owned()),
        Some((key, value)) => file.assignments.push(Assignment {
            section: name.to_owned(),
            key: key.trim_ascii().to_owned(),
            value: value.trim_ascii().to_owned(),
            line: number,
        }),
    }
    Ok(())
}

/// The words of a value, where quotes hold white space together. Backslashes stay.
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_ascii_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a second {open}, which the value lacks"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section, key, value, line.
    type Flat = (String, String, String, usize);

    fn read(text: &str) -> (Vec<Flat>, Vec<(usize, String)>) {
        let file = parse(text.as_bytes(), &["Exec", "Files"]).unwrap();
        let all = file.assignments.into_iter().map(|a| (a.section, a.key, a.value, a.line)).collect();
        (all, file.warnings)
    }

    fn is(section: &str, key: &str, value: &str, line: usize) -> Flat {
        (section.to_owned(), key.to_owned(), value.to_owned(), line)
    }

    #[test]
    fn sections_and_assignments() {
        let (all, warnings) =
            read("\u{feff}[Exec]\n# c\n ; c\n\n Boot = yes \r\n[Files]\nBind=/a=b\nBind=\n");
        assert_eq!(
            all,
            [is("Exec", "Boot", "yes", 5), is("Files", "Bind", "/a=b", 7), is("Files", "Bind", "", 8)]
        );
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn lines_go_on() {
        let (all, _) = read("[Exec]\nA=x \\\n# not this\n  y\\\nz\nB=a\\\\\nC=\\\n\nD=end \\");
        assert_eq!(
            all,
            [
                is("Exec", "A", "x  y z", 5),
                is("Exec", "B", "a\\\\", 6),
                is("Exec", "C", "", 8),
                is("Exec", "D", "end", 9)
            ]
        );
    }

    #[test]
    fn what_is_passed_over_is_named() {
        let (all, warnings) = read("A=1\n[Foo]\nB=2\n[X-Mine]\nC=3\n[Exec]\nword\n=v\n");
        assert!(all.is_empty());
        let lines: Vec<usize> = warnings.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 7, 8], "{warnings:?}");
        let file = parse(b"[Exec]\nA=\xff\nB=1", &["Exec"]).unwrap();
        assert_eq!((file.assignments.len(), file.warnings.len()), (1, 1));
        let (line, sentence) = parse(b"[Exec]\n[Files\nB=1", &["Exec"]).unwrap_err();
        assert!(line == 2 && sentence.contains("Invalid section header"), "{sentence}");
        let long = format!("[Exec]\nA={}", "x".repeat(LINE_MAX));
        assert!(parse(long.as_bytes(), &["Exec"]).is_err());
    }

    #[test]
    fn words_may_be_quoted() {
        let read = |text| words(text).map(|words| words.join("|"));
        assert_eq!(
            read(r#"bash /entry "foo bar" 'bar "baz"' x"y z"'' \n """#).as_deref(),
            Ok(r#"bash|/entry|foo bar|bar "baz"|xy z|\n|"#)
        );
        assert_eq!(words(" \t").as_deref(), Ok(&[][..]));
        assert!(words("a 'b").is_err());
    }
}
