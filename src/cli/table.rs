//! `Table`: rows for people, in columns as wide as they need to be.

use std::fmt;

/// Longest text of one cell, in characters; the rest is cut off.
const CELL_CHARS_MAX: usize = 200;

/// A head and rows; a column in which no row says anything is left out.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Table {
    pub(super) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()], indent: 0 }
    }

    /// Moved to the right by so many characters.
    pub(super) fn indented(mut self, by: usize) -> Self {
        self.indent = by;
        self
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| plain(&cell)).to_vec());
    }

    /// Whether it has no row but its head.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let said = self.rows.iter().skip(1).any(|row| !row[column].is_empty());
            said.then(|| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = " ".repeat(self.indent);
            for (cell, width) in row.iter().zip(&widths) {
                if let Some(width) = width {
                    line.push_str(&format!("{cell:width$}  "));
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// On one line, and without what a terminal would take for a command.
fn plain(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(CELL_CHARS_MAX).collect()
}

/// A time as people say it: `4 s`, `3 min`, `2 h`, `5 d`.
pub(super) fn time(seconds: f64) -> String {
    let (by, unit) = match seconds {
        s if s < 120.0 => (1.0, "s"),
        s if s < 7_200.0 => (60.0, "min"),
        s if s < 172_800.0 => (3_600.0, "h"),
        _ => (86_400.0, "d"),
    };
    format!("{:.0} {unit}", (seconds / by).floor())
}

/// An amount of memory: `512 B`, `1.5 GiB`.
pub(super) fn bytes(amount: f64) -> String {
    let mut amount = amount;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return format!("{} {unit}", (amount * 10.0).round() / 10.0);
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// An instant, in seconds since 1970, as date and time of day, UTC.
pub(super) fn instant(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (mut days, mut year) = (seconds / 86_400, 1970);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_of = |year| if leap(year) { 366 } else { 365 };
    while days >= days_of(year) && year < 9999 {
        days -= days_of(year);
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_silent_ones_are_left_out() {
        let mut table = Table::new(["NAME", "REASON", "STATE"]).indented(1);
        assert!(table.is_empty());
        table.row(["a".into(), String::new(), "RUNNING".into()]);
        table.row(["longer".into(), String::new(), "x\n\u{1b}[1m".into()]);
        assert_eq!(table.to_string(), " NAME    STATE\n a       RUNNING\n longer  x  [1m\n");
    }

    #[test]
    fn times_are_short_and_dates_are_right() {
        let times: Vec<_> = [0.4, 119.9, 120.0, 7_200.0, 172_800.0].map(time).into();
        assert_eq!(times, ["0 s", "119 s", "2 min", "2 h", "2 d"]);
        for (seconds, date) in [
            (0.0, "1970-01-01 00:00:00 UTC"),
            (951_782_399.0, "2000-02-28 23:59:59 UTC"),
            (951_782_400.5, "2000-02-29 00:00:00 UTC"),
            (1_735_689_599.0, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400.0, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(instant(seconds), date);
        }
    }
}
