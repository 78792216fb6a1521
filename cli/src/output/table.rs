//! The layout of tables.

use super::style::{Colour, paint};

/// One field of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    colour: Option<Colour>,
    right: bool,
}

impl Cell {
    /// Text, on the left of its column.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), colour: None, right: false }
    }

    /// A number, on the right of its column.
    #[must_use]
    pub fn number(text: impl Into<String>) -> Cell {
        Cell { right: true, ..Cell::new(text) }
    }

    /// The same in a colour.
    #[must_use]
    pub fn coloured(self, colour: Option<Colour>) -> Cell {
        Cell { colour, ..self }
    }

    /// How wide it is.
    #[must_use]
    pub fn width(&self) -> usize {
        cells(&self.text)
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Cell {
        Cell::new(text)
    }
}

impl From<&Cell> for Cell {
    fn from(cell: &Cell) -> Cell {
        cell.clone()
    }
}

/// Lays out a table: columns two blanks apart, as wide as their widest cell. When the whole is wider than `width`,
/// the widest columns lose characters first, down to the width of their header, and a cut cell ends in `…`.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<Cell>], width: Option<usize>, colours: bool) -> String {
    let column = |i: usize| rows.iter().filter_map(move |row| row.get(i));
    let columns: Vec<Column> = (0..header.len())
        .map(|i| {
            let least = cells(header[i]);
            let most = column(i).map(Cell::width).max().unwrap_or(0).max(least);
            Column { least, width: most }
        })
        .collect();
    let columns = fit(columns, width.map(|width| width.saturating_sub(2 * header.len().saturating_sub(1))));
    let head: Vec<Cell> = (0..header.len())
        .map(|i| Cell {
            right: column(i).next().is_some_and(|cell| cell.right),
            ..Cell::new(header[i]).coloured(Some(Colour::Bold))
        })
        .collect();
    std::iter::once(&head).chain(rows).map(|row| line(row, &columns, colours)).collect()
}

struct Column {
    least: usize,
    width: usize,
}

fn fit(mut columns: Vec<Column>, room: Option<usize>) -> Vec<Column> {
    let Some(room) = room else { return columns };
    while columns.iter().map(|c| c.width).sum::<usize>() > room {
        match columns.iter_mut().filter(|c| c.width > c.least).max_by_key(|c| c.width) {
            Some(widest) => widest.width -= 1,
            None => break,
        }
    }
    columns
}

fn line(row: &[Cell], columns: &[Column], colours: bool) -> String {
    let mut line = String::new();
    // Blanks are written once something follows them.
    let mut blanks = 0;
    for (cell, column) in row.iter().zip(columns) {
        let cut = if cell.width() > column.width {
            cell.text.chars().take(column.width.saturating_sub(1)).chain(['…']).collect()
        } else {
            cell.text.clone()
        };
        let (used, padding) = (cells(&cut), column.width.saturating_sub(cells(&cut)));
        if used > 0 {
            let before = blanks + if cell.right { padding } else { 0 };
            line += &" ".repeat(before);
            line += &match cell.colour.filter(|_| colours) {
                Some(colour) => paint(&cut, colour),
                None => cut,
            };
            blanks = if cell.right { 2 } else { padding + 2 };
        } else {
            blanks += padding + 2;
        }
    }
    line + "\n"
}

/// Characters stand for terminal cells: names and paths of this program are next to always ASCII.
fn cells(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[&str; 3]]) -> Vec<Vec<Cell>> {
        rows.iter().map(|row| row.map(Cell::new).to_vec()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let header = ["NAME", "STATE", "ADDRESS"];
        let rows = rows(&[["nextcloud", "up", ""], ["a", "down", "10.0.0.2"]]);
        let text = table(&header, &rows, None, false);
        assert_eq!(text, "NAME       STATE  ADDRESS\nnextcloud  up\na          down   10.0.0.2\n");
        assert_eq!(table(&header, &[], Some(10), false), "NAME  STATE  ADDRESS\n");
    }

    #[test]
    fn the_widest_column_is_cut_first() {
        let header = ["NAME", "STATE", "SYSTEM"];
        let rows = rows(&[["web", "up", "/nix/store/0123456789-nixos-system-web"]]);
        let text = table(&header, &rows, Some(30), false);
        assert_eq!(text, "NAME  STATE  SYSTEM\nweb   up     /nix/store/01234…\n");
        let text = table(&header, &rows, Some(3), false);
        assert_eq!(text, "NAME  STATE  SYSTEM\nweb   up     /nix/…\n");
    }

    #[test]
    fn characters_count_and_not_bytes() {
        let text = table(&["A", "B", "C"], &rows(&[["äöü", "x", "äöüäöü"]]), Some(11), false);
        assert_eq!(text, "A    B  C\näöü  x  äö…\n");
    }

    #[test]
    fn numbers_stand_on_the_right_and_colours_take_no_room() {
        let row = |name: &str, number: &str| {
            vec![Cell::new(name).coloured(Some(Colour::Green)), Cell::number(number), Cell::new("x")]
        };
        let rows = [row("a", "1"), row("bb", "1234567")];
        let plain = table(&["N", "NUMBER", "X"], &rows, None, false);
        assert_eq!(plain, "N    NUMBER  X\na         1  x\nbb  1234567  x\n");
        let coloured = table(&["N", "NUMBER", "X"], &rows, None, true);
        assert!(coloured.contains("\n\x1b[32ma\x1b[0m         1  x\n"), "{coloured:?}");
    }
}
