//! docs/configuration.md is made from the schema. `NIXRUN_BLESS=1` writes it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use nixrun::json;
use serde_json::Value;

const HEAD: &str = "\
# /etc/nixrun/NAME.json
The typed configuration of a container: a key for everything that nixrun can be asked for. `nixrun boot NAME`, `start` and
`plan` read it beside `NAME.conf` of /etc/nixos-containers, which nixpkgs' module and nixos-container(8) write; either file is
enough. `nixrun schema` prints the same as JSON Schema (draft 2020-12), and `nixrun schema --check FILE` says what is wrong
with a file by itself. This page is made from that schema.

- **Both files.** The JSON adds to what `NAME.conf` says. Where both say something they must agree: a contradiction is an
  error that names both files and keys, and neither silently wins. Lists (`forwardPorts`, `interfaces`, `macvlans`) are joined.
  A mount of `EXTRA_NSPAWN_FLAGS` may be in `bindMounts`, too, which then says more about it, such as its `ids`.
- **The command line wins** over both: `--nat`, `--console`.
- **Unknown keys are refused**, with the place, the path and the nearest key that there is; so is a key that is there twice.
- **Which container.** With neither `command` nor `boot` it is a NixOS container, as nixpkgs' start script makes it: its store,
  its Nix database and profiles, `/var/lib/nixos-containers/NAME` as its root. With one of them it is an ordinary root
  directory, `/var/lib/machines/NAME` unless `root` says otherwise, which gets nothing from the host's Nix store.
- **The network is complete before the first instruction**, as with `NAME.conf`; a link that only `EXTRA_NSPAWN_FLAGS` asks for
  is as systemd-nspawn makes it: `host0`, without addresses.

```json
{
  \"system\": \"/nix/store/6x8chxxay97fb488ajmajqpqqlj6d6dv-nixos-system-web-25.11\",
  \"hostAddress\": \"10.233.1.1\",
  \"localAddress\": \"10.233.1.2\",
  \"forwardPorts\": [{ \"hostAddress\": \"192.0.2.1\", \"hostPort\": 8080, \"containerPort\": 80 }],
  \"tmpfs\": [\"/var/cache:size=1G\"],
  \"resources\": { \"memory\": { \"max\": \"2G\" }, \"cpu\": { \"max\": \"150%\" }, \"pids\": { \"max\": 4096 } },
  \"credentials\": { \"db-password\": { \"file\": \"/run/secrets/db-password\" } }
}
```
";

/// The page.
fn page(schema: &Value) -> String {
    let mut text = HEAD.to_owned();
    text += "\n## Keys\n";
    table(&mut text, schema);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        if definition.get("properties").is_some() {
            write!(text, "\n### {name}\n{}\n", description(definition)).unwrap();
            table(&mut text, definition);
        }
    }
    text += "\n## Values\n| | written as | |\n|---|---|---|\n";
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        if definition.get("properties").is_none() {
            let written = form(definition);
            writeln!(text, "| **{name}** | {written} | {} |", description(definition)).unwrap();
        }
    }
    text
}

fn description(schema: &Value) -> String {
    schema["description"]
        .as_str()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

fn table(text: &mut String, schema: &Value) {
    text.push_str("| key | value | |\n|---|---|---|\n");
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, property) in schema["properties"].as_object().unwrap() {
        let must = if required.contains(&key.as_str()) { "**required**; " } else { "" };
        writeln!(text, "| `{key}` | {} | {must}{} |", value(property), description(property)).unwrap();
    }
}

/// What a property takes, in words.
fn value(property: &Value) -> String {
    if let Some(reference) = property["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if let Some(any) = property["anyOf"].as_array() {
        let some: Vec<&Value> = any.iter().filter(|one| one["type"] != "null").collect();
        return some.iter().map(|one| value(one)).collect::<Vec<_>>().join(" or ");
    }
    let kind = match &property["type"] {
        Value::String(kind) => kind.as_str(),
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or_default()
        }
        _ => "anything",
    };
    match kind {
        "array" => format!("list of {}", value(&property["items"])),
        "object" => {
            format!("{} by {}", value(&property["additionalProperties"]), value(&property["propertyNames"]))
        }
        "integer" => match (property["minimum"].as_i64(), property["maximum"].as_i64()) {
            (Some(low), Some(high)) => format!("number from {low} to {high}"),
            _ => "number".to_owned(),
        },
        kind => kind.to_owned(),
    }
}

/// How a value is written.
fn form(definition: &Value) -> String {
    if let Some(words) = definition["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    if let Some(any) = definition["anyOf"].as_array() {
        return any.iter().map(form).collect::<Vec<_>>().join(", or ");
    }
    if let Some(word) = definition.get("const") {
        return format!("`{word}`");
    }
    let examples = definition["examples"].as_array().into_iter().flatten();
    let examples: Vec<String> = examples.map(|example| format!("`{example}`")).collect();
    match definition["type"].as_str() {
        Some("integer") => "a number".to_owned(),
        _ if examples.is_empty() => "a string".to_owned(),
        _ => format!("a string such as {}", examples.join(", ")),
    }
}

#[test]
fn the_page_is_that_of_the_schema() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = page(&serde_json::to_value(json::schema()).unwrap());
    if std::env::var_os("NIXRUN_BLESS").is_some() {
        fs::write(&file, page).unwrap();
        return;
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == page, "docs/configuration.md is not what the schema says; NIXRUN_BLESS=1 writes it");
}

#[test]
fn the_example_is_one() {
    let example = HEAD.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    json::parse(example.as_bytes(), Path::new("example")).unwrap();
}

#[test]
fn every_key_and_value_is_described() {
    let schema = serde_json::to_value(json::schema()).unwrap();
    let mut objects: Vec<(&str, &Value)> = vec![("", &schema)];
    objects.extend(schema["$defs"].as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value)));
    for (name, object) in objects {
        assert!(object["description"].is_string(), "{name} has no description");
        for (key, property) in object["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{key} has no description");
        }
    }
}
