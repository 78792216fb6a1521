//! docs/schema has the schema of each output as a file. `NIXRUN_BLESS=1` writes them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use nixrun::args::Invocation;
use nixrun::outputs;

/// Commands whose JSON is no fixed form: `plan` prints whole plans.
const WITHOUT: [&str; 1] = ["plan"];

#[test]
fn the_published_schemas_are_those_of_the_program() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let mut expected = BTreeSet::new();
    for command in outputs::commands() {
        let schema = outputs::schema_of(command).unwrap();
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let file = directory.join(format!("{command}.json"));
        if std::env::var_os("NIXRUN_BLESS").is_some() {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&file, &text).unwrap();
        }
        assert!(fs::read_to_string(&file).is_ok_and(|there| there == text), "{} differs", file.display());
        expected.insert(format!("{command}.json"));
    }
    let there: BTreeSet<String> =
        fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, expected);
}

#[test]
fn every_command_with_json_has_a_schema() {
    let with_json: BTreeSet<String> = Invocation::command()
        .get_subcommands()
        .filter(|command| command.get_arguments().any(|arg| arg.get_long() == Some("json")))
        .map(|command| command.get_name().to_owned())
        .filter(|name| !WITHOUT.contains(&name.as_str()))
        .collect();
    let known: BTreeSet<String> = outputs::commands().map(str::to_owned).collect();
    let missing: Vec<_> = with_json.difference(&known).collect();
    assert!(missing.is_empty(), "without a schema: {missing:?}");
}
