//! A strict reader of Prometheus's text format 0.0.4: stricter than the format, as `promtool check metrics` is.

use std::collections::{BTreeMap, BTreeSet};

/// A series: the metric's name and its labels.
pub type Series = (String, BTreeMap<String, String>);

/// Reads every sample.
///
/// # Errors
/// The first line that is wrong, and why: a sample without HELP and TYPE before it, a family in two places, a counter
/// without `_total` or a gauge with it, a name, label, escape or value that the format has not, a series twice.
pub fn parse(text: &str) -> Result<BTreeMap<Series, f64>, String> {
    if !text.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let mut reader = Reader::default();
    for (number, line) in text.lines().enumerate() {
        reader.line(line).map_err(|why| format!("line {}: {why}: {line:?}", number + 1))?;
    }
    Ok(reader.samples)
}

#[derive(Default)]
struct Reader {
    samples: BTreeMap<Series, f64>,
    families: BTreeSet<String>,
    /// The family with HELP and, behind it, TYPE.
    help: Option<String>,
    family: Option<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("HELP without a text")?;
            if help.trim().is_empty() || !is_name(name, true) {
                return Err("a wrong HELP".to_owned());
            }
            (self.help, self.family) = (Some(name.to_owned()), None);
            return if self.families.insert(name.to_owned()) {
                Ok(())
            } else {
                Err("a family twice".to_owned())
            };
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("TYPE without a type")?;
            if self.help.take().as_deref() != Some(name) {
                return Err("TYPE without its HELP before it".to_owned());
            }
            if !matches!((kind, name.ends_with("_total")), ("counter", true) | ("gauge", false)) {
                return Err("a type that its name denies".to_owned());
            }
            self.family = Some(name.to_owned());
            return Ok(());
        }
        let ((name, labels), value) = sample(line)?;
        if self.family.as_ref() != Some(&name) {
            return Err("a sample outside its family".to_owned());
        }
        let counter = name.ends_with("_total");
        if !value.is_finite() || counter && value < 0.0 {
            return Err("a value that it cannot have".to_owned());
        }
        match self.samples.insert((name, labels), value) {
            None => Ok(()),
            Some(_) => Err("a series twice".to_owned()),
        }
    }
}

fn sample(line: &str) -> Result<(Series, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no sample")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err("no name of a metric".to_owned());
    }
    let mut labels = BTreeMap::new();
    if let Some(behind) = rest.strip_prefix('{') {
        rest = behind;
        loop {
            let (label, behind) = rest.split_once("=\"").ok_or("no label")?;
            let (value, behind) = quoted(behind)?;
            if !is_name(label, false) || labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("a wrong label {label:?}"));
            }
            rest = behind;
            match (rest.strip_prefix(','), rest.strip_prefix('}')) {
                (Some(behind), _) => rest = behind,
                (_, Some(behind)) => break rest = behind,
                _ => return Err("labels without an end".to_owned()),
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no blank before the value")?;
    let value = value.parse().map_err(|_| "no number".to_owned())?;
    Ok(((name.to_owned(), labels), value))
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                _ => return Err("an unknown escape".to_owned()),
            }),
            char => value.push(char),
        }
    }
    Err("a label's value without an end".to_owned())
}

fn is_name(name: &str, colon: bool) -> bool {
    let may = |c: char| c.is_ascii_alphabetic() || c == '_' || colon && c == ':';
    name.starts_with(may) && name.chars().all(|c| may(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_is_read() {
        let text = "# HELP a_total b c\n# TYPE a_total counter\na_total{x=\"1\\\"\\\\\\n\",y=\"\"} 2.5\na_total 1e3\n";
        let samples = parse(text).unwrap();
        assert_eq!(samples.len(), 2);
        let labels =
            BTreeMap::from([("x".to_owned(), "1\"\\\n".to_owned()), ("y".to_owned(), String::new())]);
        assert_eq!(samples[&("a_total".to_owned(), labels)], 2.5);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let head = "# HELP a b\n# TYPE a gauge\n";
        for wrong in [
            "a 1",
            "a 1\n",
            "# TYPE a gauge\na 1\n",
            "# HELP a b\n# TYPE a counter\na 1\n",
            "# HELP a_total b\n# TYPE a_total gauge\n",
            &format!("{head}b 1\n"),
            &format!("{head}a x\n"),
            &format!("{head}a NaN\n"),
            &format!("{head}a  1\n"),
            &format!("{head}a{{x=\"1\"}}1\n"),
            &format!("{head}a{{x=\"1\",x=\"2\"}} 1\n"),
            &format!("{head}a{{x=\"\\t\"}} 1\n"),
            &format!("{head}a{{x=\"1}} 1\n"),
            &format!("{head}a{{1x=\"1\"}} 1\n"),
            &format!("{head}a{{x=\"1\";}} 1\n"),
            &format!("{head}a 1\na 1\n"),
            &format!("{head}a 1\n\n"),
            &format!("{head}a 1\n{head}"),
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
