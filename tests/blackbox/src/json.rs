//! What commands print with `--json`, held against the schema that they publish.

use serde_json::Value;

use crate::Host;

impl Host<'_> {
    /// `nixrun`, which must succeed and print JSON that [`nixrun::outputs::schema_of`] its command allows; that JSON:
    ///
    /// ```no_run
    /// # blackbox::on_host(|host| {
    /// let all = host.json(&["list", "--json"]);
    /// assert_eq!(all[0]["phase"], "running");
    /// # });
    /// ```
    ///
    /// # Panics
    /// When it fails, prints anything else, or its command has no schema.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(args);
        let value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("nixrun {args:?} printed no JSON: {error}: {text}"));
        assert_schema(args[0], &value);
        value
    }

    /// The same for a command that prints a value a line, from the text that it has printed.
    ///
    /// # Panics
    /// When a line is anything else.
    #[must_use]
    #[track_caller]
    pub fn json_lines(&self, command: &str, text: &str) -> Vec<Value> {
        let line = |line: &str| {
            let value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("nixrun {command} printed no JSON: {error}: {line}"));
            assert_schema(command, &value);
            value
        };
        text.lines().map(line).collect()
    }
}

/// Checks a value against the schema of what `command` prints.
#[track_caller]
fn assert_schema(command: &str, value: &Value) {
    let Some(schema) = nixrun::outputs::schema_of(command) else {
        panic!("cli/src/outputs.rs has no row for {command}");
    };
    let validator = jsonschema::validator_for(schema.as_value()).expect("a schema is a schema");
    let errors: Vec<String> =
        validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "not as the schema of {command} says: {errors:#?}\n{value:#}");
}
