//! Columns for a terminal, as kubectl has them.

/// Rows below a head, columns aligned; an empty cell is `-`.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell };
    let lines: Vec<[String; N]> =
        std::iter::once(head.map(str::to_owned)).chain(rows.map(|row| row.map(shown))).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_are_seen() {
        let rows = [["a", "", "x"], ["longer", "b", ""]].map(|row| row.map(str::to_owned));
        let text = table(["ONE", "TWO", "THREE"], rows.into_iter());
        assert_eq!(text, "ONE     TWO  THREE\na       -    x\nlonger  b    -\n");
    }
}
