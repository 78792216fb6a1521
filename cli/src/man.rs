//! The manual pages: one of nixrun and one of each command, made from the definition of the command line.

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::{args, exit};

/// System administration commands.
const SECTION: &str = "8";

/// Every page: the name of its file, and its text.
///
/// # Errors
/// None but those of memory.
pub fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let nixrun = args::definition();
    let commands = nixrun.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help");
    let commands: Vec<clap::Command> = commands.cloned().collect();
    let others: Vec<String> = commands.iter().map(display_name).collect();
    let mut pages = vec![page(nixrun, &others)?];
    for command in commands {
        pages.push(page(command, &["nixrun".to_owned()])?);
    }
    Ok(pages)
}

fn display_name(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: clap::Command, see: &[String]) -> io::Result<(String, Vec<u8>)> {
    let file = format!("{}.{SECTION}", display_name(&command));
    let has_commands = command.has_subcommands();
    let source = format!("nixrun {}", env!("CARGO_PKG_VERSION"));
    let title = display_name(&command).to_uppercase();
    let man = Man::new(command).title(title).section(SECTION).source(source).manual("nixrun");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    exit_status(&mut text)?;
    see_also(see, &mut text)?;
    Ok((file, text))
}

fn exit_status(text: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in exit::rows() {
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(meaning)]);
    }
    roff.control("PP", []);
    roff.text([roman(exit::note())]);
    roff.to_writer(text)
}

fn see_also(pages: &[String], text: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (index, page) in pages.iter().enumerate() {
        line.extend([bold(page.as_str()), roman(format!("({SECTION})"))]);
        line.extend((index + 1 < pages.len()).then(|| roman(", ")));
    }
    roff.text(line);
    roff.to_writer(text)
}
