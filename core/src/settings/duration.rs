//! Durations as people write them: `30s`, `10m`, `1h30m`.

use std::time::Duration;

/// Seconds of a unit.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Longest duration: ten years. What shall be kept longer is kept `forever`.
pub const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);

/// Reads a duration of whole seconds; `None` where it is none or longer than [`LONGEST`].
pub fn parse(text: &str) -> Option<Duration> {
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        let unit = behind.chars().next()?;
        let (_, factor) = UNITS.into_iter().find(|(letter, _)| *letter == unit)?;
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = &behind[unit.len_utf8()..];
    }
    let duration = Duration::from_secs(seconds);
    (!text.is_empty() && duration <= LONGEST).then_some(duration)
}

/// Writes whole seconds in the largest unit that takes no fraction.
pub fn render(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (letter, factor) =
        UNITS.into_iter().find(|(_, f)| seconds > 0 && seconds.is_multiple_of(*f)).unwrap_or(('s', 1));
    format!("{}{letter}", seconds / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        let pairs =
            [("0s", "0s"), ("30s", "30s"), ("90s", "90s"), ("600s", "10m"), ("1h30m", "90m"), ("48h", "2d")];
        for (text, rendered) in pairs {
            let duration = parse(text).unwrap();
            assert_eq!(render(duration), rendered);
            assert_eq!(parse(rendered), Some(duration));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5h",
            "5 m",
            "1w",
            "99999999999999999999s",
            "18446744073709551615d",
            "3651d",
            "5ß",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
