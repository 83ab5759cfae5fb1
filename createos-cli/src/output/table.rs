//! Columns of text, two blanks apart, without borders.

use console::{measure_text_width, style};

use super::printable;

/// The text of a cell without a value.
const EMPTY: &str = "-";

/// Rows under a header.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone)]
struct Column {
    title: &'static str,
    /// The narrowest terminal that still shows this column.
    from_width: usize,
}

impl Table {
    /// A table whose columns are shown from a terminal width on; 0 is always.
    pub(crate) fn new(columns: &[(&'static str, usize)]) -> Self {
        let columns =
            columns.iter().map(|&(title, from_width)| Column { title, from_width }).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row with one cell per column; an empty cell becomes `-`.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| match cell.as_str() {
            "" => EMPTY.to_owned(),
            // A line break would fall out of its row.
            cell => printable(cell).replace(['\n', '\t'], " "),
        };
        let cells: Vec<String> = cells.into_iter().map(shown).collect();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The lines of the table; all columns when the width is unknown.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|&at| width.is_none_or(|width| width >= self.columns[at].from_width))
            .collect();
        let widths: Vec<usize> = shown.iter().map(|&at| self.column_width(at)).collect();
        let header = shown.iter().map(|&at| self.columns[at].title);
        let mut text = style(line(header, &widths)).bold().to_string();
        for row in &self.rows {
            text.push('\n');
            text.push_str(&line(shown.iter().map(|&at| row[at].as_str()), &widths));
        }
        text
    }

    fn column_width(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| measure_text_width(&row[at]));
        cells.chain([self.columns[at].title.len()]).max().unwrap_or_default()
    }
}

/// Joins cells; the last one is not padded.
fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, &width) in cells.zip(widths) {
        text.push_str(cell);
        let missing = width.saturating_sub(measure_text_width(cell));
        text.extend(std::iter::repeat_n(' ', missing + 2));
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        console::set_colors_enabled(false);
        let mut table = Table::new(&[("ID", 70), ("NAME", 0), ("IP", 90)]);
        table.row(["sb-1".into(), "demo".into(), String::new()]);
        table.row(["sb-22".into(), "größer".into(), "10.0.0.1".into()]);
        table
    }

    #[test]
    fn cells_line_up_and_empty_ones_are_a_dash() {
        let text = "ID     NAME    IP\nsb-1   demo    -\nsb-22  größer  10.0.0.1";
        assert_eq!(sample().render(None), text);
        assert_eq!(sample().render(Some(90)), text);
    }

    #[test]
    fn a_narrow_terminal_drops_columns() {
        assert_eq!(sample().render(Some(89)), "ID     NAME\nsb-1   demo\nsb-22  größer");
        assert_eq!(sample().render(Some(69)), "NAME\ndemo\ngrößer");
    }
}
