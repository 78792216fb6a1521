//! The path of a setting: `resources.memory.max`, `forwardPorts[0].hostPort`, `bindMounts["/srv/a.b"].hostPath`.

use std::fmt;

/// A path from the document down, at least one step long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Vec<Step>);

/// One step of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A key of an object.
    Name(String),
    /// An item of a list, from 0 on.
    Index(usize),
}

/// What the names of the kernel's files begin with.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
/// Where the document has their limits.
pub(super) const RESOURCES: &str = "resources";

impl Key {
    /// Reads `KEY=VALUE` up to the equals sign; returns what is behind it, too.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(setting: &str) -> Result<(Key, &str), &'static str> {
        const EXPECTED: &str = "expected KEY=VALUE, such as resources.memory.max=2G";
        let mut steps = Vec::new();
        let mut rest = setting;
        loop {
            if let Some(inside) = rest.strip_prefix('[') {
                let (step, behind) = bracketed(inside)?;
                steps.push(step);
                rest = behind;
            } else {
                let end = rest.find(['.', '[', '=']).ok_or(EXPECTED)?;
                let (name, behind) = rest.split_at(end);
                if name.is_empty() {
                    return Err(if steps.is_empty() { EXPECTED } else { "a part of the key is empty" });
                }
                steps.push(Step::Name(name.to_owned()));
                rest = behind;
            }
            rest = match rest.chars().next() {
                Some('=') => return Ok((Key(steps).in_full(), &rest[1..])),
                Some('.') => &rest[1..],
                Some('[') => rest,
                Some(_) => return Err("expected . or [ or = behind ]"),
                None => return Err(EXPECTED),
            };
        }
    }

    /// The steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    fn in_full(mut self) -> Key {
        if matches!(&self.0[..], [Step::Name(first), _, ..] if CONTROLLERS.contains(&first.as_str())) {
            self.0.insert(0, Step::Name(RESOURCES.to_owned()));
        }
        self
    }
}

/// What stands between `[` and `]`, and what behind.
fn bracketed(inside: &str) -> Result<(Step, &str), &'static str> {
    const OPEN: &str = "a [ has no ]";
    if inside.starts_with('"') {
        let mut quoted = serde_json::Deserializer::from_str(inside).into_iter::<String>();
        let name = quoted.next().and_then(Result::ok).ok_or("expected a text in quotes behind [\"")?;
        let rest = inside.get(quoted.byte_offset()..).and_then(|rest| rest.strip_prefix(']')).ok_or(OPEN)?;
        return Ok((Step::Name(name), rest));
    }
    let (number, rest) = inside.split_once(']').ok_or(OPEN)?;
    let index =
        number.parse().map_err(|_| "expected a number, or a text in double quotes, between [ and ]")?;
    Ok((Step::Index(index), rest))
}

/// As errors of the model write a path.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(at) => write!(f, "[{at}]")?,
                Step::Name(name) => {
                    let plain = (1..=64).contains(&name.len())
                        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                    match (plain, index) {
                        (true, 0) => f.write_str(name)?,
                        (true, _) => write!(f, ".{name}")?,
                        (false, _) => write!(f, "[{name:?}]")?,
                    }
                }
            }
        }
        Ok(())
    }
}
