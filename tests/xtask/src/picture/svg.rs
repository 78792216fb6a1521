//! A terminal's screen as SVG.

use std::fmt::Write;
use std::num::NonZeroU16;

use vt100::{Cell, Color, Parser};

/// A cell, in pixels.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 18.0;
/// Around the text.
const MARGIN: f64 = 14.0;
/// The bar with the title.
const BAR: f64 = 30.0;
/// More rows than any output has.
const ROWS: u16 = 2000;
/// The eight colours of ECMA-48.
const COLOURS: [&str; 8] =
    ["#3b4048", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d7dae0"];
const TEXT: &str = "#c8ccd4";
const BACKGROUND: &str = "#1e2127";

/// Draws what a terminal of so many columns shows of the text; it is as high as it needs to be.
pub(super) fn draw(title: &str, text: &str, columns: u16) -> String {
    let size = |length| NonZeroU16::new(length).unwrap_or(NonZeroU16::MIN);
    let mut parser = Parser::new(size(ROWS), size(columns), 0);
    parser.process(text.as_bytes());
    let screen = parser.screen();
    let used = (0..ROWS).rev().find(|row| !blank(screen, *row, columns)).map_or(1, |row| row + 1);
    let (width, height) =
        (2.0 * MARGIN + f64::from(columns) * WIDTH, BAR + 2.0 * MARGIN + f64::from(used) * HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <title>{0}</title>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" fill=\"{TEXT}\" opacity=\"0.6\">$ {0}</text>\n",
        escaped(title)
    );
    for row in 0..used {
        let y = BAR + MARGIN + (f64::from(row) + 0.75) * HEIGHT;
        let mut column = 0;
        while column < columns {
            let run = run(screen, row, column, columns);
            let text = run.text.trim_end();
            if !text.is_empty() {
                let x = MARGIN + f64::from(column) * WIDTH;
                // A browser's font may be of another width.
                let length = text.chars().count() as f64 * WIDTH;
                let _ = writeln!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{length:.1}\" xml:space=\"preserve\"{}>{}</text>",
                    run.style,
                    escaped(text)
                );
            }
            column += run.width;
        }
    }
    svg + "</svg>\n"
}

/// Cells that look alike.
struct Run {
    text: String,
    width: u16,
    style: String,
}

fn run(screen: &vt100::Screen, row: u16, from: u16, columns: u16) -> Run {
    let style_at = |column| screen.cell(row, column).map(style).unwrap_or_default();
    let style = style_at(from);
    let mut run = Run { text: String::new(), width: 0, style };
    while from + run.width < columns && style_at(from + run.width) == run.style {
        let cell = screen.cell(row, from + run.width);
        run.text += cell.map(Cell::contents).filter(|text| !text.is_empty()).unwrap_or(" ");
        run.width += 1;
    }
    run
}

fn style(cell: &Cell) -> String {
    let colour = match cell.fgcolor() {
        Color::Idx(index) => COLOURS.get(usize::from(index % 8)).copied().unwrap_or(TEXT),
        _ => TEXT,
    };
    let bold = if cell.bold() { " font-weight=\"bold\"" } else { "" };
    let dim = if cell.dim() { " opacity=\"0.6\"" } else { "" };
    format!(" fill=\"{colour}\"{bold}{dim}")
}

fn blank(screen: &vt100::Screen, row: u16, columns: u16) -> bool {
    let is_blank = |column| screen.cell(row, column).is_none_or(|cell| cell.contents().trim().is_empty());
    (0..columns).all(is_blank)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_places_are_those_of_the_terminal() {
        let svg = draw("a <b>", "plain \u{1b}[32mgreen\u{1b}[0m\r\n\u{1b}[1mbold & <x>\u{1b}[0m\r\n\r\n", 40);
        assert!(svg.contains("<title>a &lt;b&gt;</title>"));
        assert!(svg.contains("fill=\"#98c379\">green</text>"), "{svg}");
        assert!(svg.contains("font-weight=\"bold\">bold &amp; &lt;x&gt;</text>"), "{svg}");
        let rows = svg.matches("<text ").count();
        assert_eq!(rows, 4, "the title, two runs of the first line, one of the second: {svg}");
    }
}
