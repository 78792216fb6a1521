//! Settings of a container by their path in `/etc/nixrun/NAME.json`: `resources.memory.max=2G`. The model that reads
//! the file says what there is; what a person has written into it keeps its order.

mod key;
mod node;

use std::path::Path;

pub use key::{Key, Step};
use node::Node;

use crate::json::{self, JsonError};

/// Why settings cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// What is there already is wrong.
    #[error(transparent)]
    Before(#[from] JsonError),
    /// One of the settings is.
    #[error("cannot set {setting:?}: {problem}")]
    Setting {
        /// As it was given.
        setting: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
}

/// One setting, `KEY=VALUE`.
#[derive(Debug, Clone)]
struct Setting<'a> {
    given: &'a str,
    key: Key,
    value: &'a str,
    /// The value is taken as a text, though it is JSON as well: `hostname=1234`.
    as_text: bool,
}

/// Makes `settings` in the document `text`, which may be empty, and returns the new one: checked by the model, with
/// what was there in its order. A value that is JSON is that, any other a text; none at all removes the key. The names
/// of the kernel's files do for those below `resources`: `memory.max=2G`. `file` only appears in messages.
///
/// # Errors
/// [`EditError`]: what was there is wrong, or a setting is; an unknown key brings the nearest to mind.
pub fn edit(text: &str, settings: &[String], file: &Path) -> Result<String, EditError> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    json::parse(text.as_bytes(), file)?;
    let before: Node = serde_json::from_str(text).map_err(|error| JsonError::syntax(file, &error))?;
    let mut settings = settings.iter().map(|given| Setting::read(given)).collect::<Result<Vec<_>, _>>()?;
    for setting in settings.iter().filter(|setting| setting.value.is_empty()) {
        setting.known(&before, file)?;
    }
    let mut first_error = None;
    loop {
        let after = apply(&before, &settings)?;
        let Err(error) = check(&after, file) else { return Ok(after.to_text()) };
        let guilty = guilty(&before, &settings, &error, file);
        let error = settings[guilty].error(error.0);
        match settings[guilty].other_way() {
            true => first_error = first_error.or(Some((guilty, error))),
            // What was said of the value as JSON is what its author expects to read.
            false => {
                let first = first_error.filter(|(before, _)| *before == guilty);
                return Err(first.map_or(error, |(_, first)| first));
            }
        }
    }
}

impl Setting<'_> {
    fn read(given: &str) -> Result<Setting<'_>, EditError> {
        let failed =
            |problem: &str| EditError::Setting { setting: given.to_owned(), problem: problem.into() };
        let (key, value) = Key::parse(given).map_err(failed)?;
        Ok(Setting { given, key, value, as_text: false })
    }

    fn error(&self, problem: String) -> EditError {
        EditError::Setting { setting: self.given.to_owned(), problem }
    }

    fn node(&self) -> Node {
        match serde_json::from_str(self.value) {
            Ok(node) if !self.as_text => node,
            _ => Node::text(self.value),
        }
    }

    /// Whether there is another way to read the value, which is taken from now on.
    fn other_way(&mut self) -> bool {
        let scalar = matches!(self.node(), Node::Leaf(value) if !value.is_string());
        self.as_text |= scalar;
        scalar
    }

    /// A key that is to be removed and is not there: a slip, or only not set?
    fn known(&self, before: &Node, file: &Path) -> Result<(), EditError> {
        let mut with_null = before.clone();
        if before.get(&self.key).is_some() || with_null.set(&self.key, Node::null()).is_err() {
            return Ok(());
        }
        match check(&with_null, file) {
            // Of the value null itself, which not every place takes.
            Err((_, path)) if path == self.key.to_string() => Ok(()),
            Err((problem, _)) => Err(self.error(problem)),
            Ok(()) => Ok(()),
        }
    }
}

fn apply(before: &Node, settings: &[Setting<'_>]) -> Result<Node, EditError> {
    let mut after = before.clone();
    for setting in settings {
        if setting.value.is_empty() {
            after.remove(&setting.key);
        } else {
            after.set(&setting.key, setting.node()).map_err(|problem| setting.error(problem))?;
        }
    }
    Ok(after)
}

/// The problem and the path of it, if there is one.
fn check(node: &Node, file: &Path) -> Result<(), (String, String)> {
    match json::parse(node.to_text().as_bytes(), file) {
        Ok(_) => Ok(()),
        Err(JsonError::Wrong { problem, path, .. }) => Err((problem, path)),
        Err(error) => Err((error.to_string(), String::new())),
    }
}

/// Which of the settings brings the error in: the first one with which it is there.
fn guilty(before: &Node, settings: &[Setting<'_>], error: &(String, String), file: &Path) -> usize {
    let there = |end: &usize| {
        let after = apply(before, &settings[..*end]);
        after.is_ok_and(|after| check(&after, file).as_ref() == Err(error))
    };
    (1..=settings.len()).find(there).unwrap_or(settings.len()).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, settings: &[&str]) -> Result<String, String> {
        let settings: Vec<String> = settings.iter().map(|one| (*one).to_owned()).collect();
        edit(text, &settings, Path::new("/etc/nixrun/web.json")).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn compact(text: &str, settings: &[&str]) -> String {
        let text = edited(text, settings).unwrap();
        let node: Node = serde_json::from_str(&text).unwrap();
        serde_json::to_string(&node).unwrap()
    }

    #[test]
    fn a_value_is_json_or_a_text_and_what_was_there_keeps_its_order() {
        let before = r#"{"tmpfs": ["/var"], "ephemeral": true, "hostname": "a"}"#;
        assert_eq!(
            compact(before, &["resources.memory.max=2G", "ephemeral=false", "oomScoreAdjust=5"]),
            r#"{"tmpfs":["/var"],"ephemeral":false,"hostname":"a","resources":{"memory":{"max":"2G"}},"oomScoreAdjust":5}"#
        );
        assert_eq!(
            compact("", &[r#"tmpfs=["/var","/srv:size=1M"]"#]),
            r#"{"tmpfs":["/var","/srv:size=1M"]}"#
        );
        assert_eq!(edited("", &["ephemeral=true"]).unwrap(), "{\n  \"ephemeral\": true\n}\n");
    }

    #[test]
    fn a_text_that_is_a_number_stays_one_where_the_model_wants_a_text() {
        assert_eq!(
            compact("", &["hostname=1234", "environment.PORT=80", "environment.ON=true"]),
            r#"{"hostname":"1234","environment":{"PORT":"80","ON":"true"}}"#
        );
        let error = edited("", &["autoStart=1"]).unwrap_err();
        assert!(error.contains("autoStart=1") && error.contains("integer"), "{error}");
    }

    #[test]
    fn the_kernels_names_and_keys_of_any_kind_are_understood() {
        assert_eq!(
            compact("", &["memory.max=1G", "memory.swap.max=0", "cpu.weight=50", "pids.max=max"]),
            r#"{"resources":{"memory":{"max":"1G","swap":{"max":0}},"cpu":{"weight":50},"pids":{"max":"max"}}}"#
        );
        assert_eq!(
            compact(
                "",
                &["bindMounts./srv/data.isReadOnly=false", r#"bindMounts["/srv/a.b"].hostPath=/x=y"#]
            ),
            r#"{"bindMounts":{"/srv/data":{"isReadOnly":false},"/srv/a.b":{"hostPath":"/x=y"}}}"#
        );
        assert_eq!(
            compact("", &["forwardPorts[0].containerPort=80", "forwardPorts[0].hostPort=8080"]),
            r#"{"forwardPorts":[{"containerPort":80,"hostPort":8080}]}"#
        );
    }

    #[test]
    fn no_value_removes_a_key_that_there_is() {
        let before = r#"{"resources": {"memory": {"max": 1}}, "tmpfs": ["/a", "/b"], "bindMounts": {"/a": {"ids": "map"}}}"#;
        assert_eq!(
            compact(
                before,
                &["memory.max=", "tmpfs[0]=", "bindMounts./a.ids=", "hostname=", "environment.A="]
            ),
            r#"{"tmpfs":["/b"],"bindMounts":{"/a":{}}}"#
        );
        let error = edited(before, &["resources.memroy.max="]).unwrap_err();
        assert!(error.contains("did you mean \"memory\"?"), "{error}");
    }

    #[test]
    fn the_setting_that_is_wrong_is_named() {
        let refused = [
            (
                &["ephemeral=true", "resources.memroy.max=1G"][..],
                "resources.memroy.max=1G",
                "did you mean \"memory\"?",
            ),
            (&["memory.max=lots", "cpu.weight=1"], "memory.max=lots", "such as 512M"),
            (&["forwardPorts[0].containerPort=80"], "containerPort=80", "\"hostPort\" is missing"),
            (&["ephemeral"], "ephemeral", "KEY=VALUE"),
            (&["=1"], "=1", "KEY=VALUE"),
            (&["a..b=1"], "a..b=1", "empty"),
            (&["tmpfs[1]=/x"], "tmpfs[1]", "0 items"),
            (&["tmpfs[x]=/x"], "tmpfs[x]", "number"),
            (&["hostname=a", "hostname.b=c"], "hostname.b=c", "hostname"),
            (&["ephemerall=true"], "ephemerall", "did you mean \"ephemeral\"?"),
        ];
        for (settings, named, problem) in refused {
            let error = edited("", settings).unwrap_err();
            assert!(error.contains(named) && error.contains(problem), "{settings:?}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_before_is_said_by_its_place() {
        let error = edited("{\n\"ephemeral\": 3}", &["hostname=a"]).unwrap_err();
        assert!(error.starts_with("/etc/nixrun/web.json:2:"), "{error}");
    }
}
