//! The figures: as they are recorded, and compared.

use std::fmt::{self, Write};

use anyhow::{Context, Result};

/// What may become dearer unnoticed: inlining that falls out differently is a few per cent.
const TOLERATED: f64 = 0.10;
/// Below these a tenth is nothing: one more allocation of a dozen is not a change worth a failure, nor is what a map
/// whose hashes are random does differently each time.
const SLACK: (u64, u64) = (200, 2);

/// Of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) name: String,
    pub(crate) instructions: u64,
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
}

/// Of all cases, and who compiled them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) compiler: String,
    pub(crate) costs: Vec<Cost>,
}

impl Cost {
    /// From the line a case prints: name, allocations, bytes.
    pub(crate) fn of(line: &str, instructions: u64) -> Result<Self> {
        let mut fields = line.split('\t');
        let name = fields.next().context("no name")?.to_owned();
        let mut number =
            || fields.next().and_then(|n| n.parse().ok()).with_context(|| format!("no number: {line}"));
        Ok(Self { name, instructions, allocations: number()?, bytes: number()? })
    }

    fn is_dearer_than(&self, before: &Self) -> bool {
        let dearer = |now: u64, before: u64, slack: u64| {
            #[allow(clippy::cast_precision_loss)] // far below 2^52
            let limit = before as f64 * (1.0 + TOLERATED);
            #[allow(clippy::cast_precision_loss)]
            let now_exactly = now as f64;
            now_exactly > limit && now > before + slack
        };
        dearer(self.instructions, before.instructions, SLACK.0)
            || dearer(self.allocations, before.allocations, SLACK.1)
    }
}

impl Figures {
    /// What [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let compiler =
            lines.next().and_then(|l| l.strip_prefix("# ")).context("the first line names no compiler")?;
        let cost = |line: &str| {
            let (name, rest) = line.split_once('\t').with_context(|| format!("no name: {line}"))?;
            let (instructions, rest) =
                rest.split_once('\t').with_context(|| format!("no figures: {line}"))?;
            Cost::of(&format!("{name}\t{rest}"), instructions.parse()?)
        };
        Ok(Self { compiler: compiler.to_owned(), costs: lines.skip(1).map(cost).collect::<Result<_>>()? })
    }

    fn get(&self, name: &str) -> Option<&Cost> {
        self.costs.iter().find(|c| c.name == name)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}\n# case\tinstructions\tallocations\tbytes", self.compiler)?;
        for Cost { name, instructions, allocations, bytes } in &self.costs {
            writeln!(f, "{name}\t{instructions}\t{allocations}\t{bytes}")?;
        }
        Ok(())
    }
}

/// Cases that have become dearer, or that nobody has recorded.
pub(crate) fn dearer(before: &Figures, now: &Figures) -> Vec<String> {
    let dearer = |cost: &&Cost| before.get(&cost.name).is_none_or(|b| cost.is_dearer_than(b));
    now.costs.iter().filter(dearer).map(|c| c.name.clone()).collect()
}

/// Both side by side, for people.
pub(crate) fn table(before: &Figures, now: &Figures) -> String {
    let mut text =
        format!("{:<58} {:>12} {:>8} {:>11} {:>10}\n", "case", "instructions", "", "allocations", "bytes");
    for cost in &now.costs {
        let change = before.get(&cost.name).map_or_else(String::new, |b| {
            #[allow(clippy::cast_precision_loss)] // far below 2^52
            let change = (cost.instructions as f64 / b.instructions.max(1) as f64 - 1.0) * 100.0;
            format!("{change:+.1} %")
        });
        let Cost { name, instructions, allocations, bytes } = cost;
        // a String takes everything
        let _ = writeln!(text, "{name:<58} {instructions:>12} {change:>8} {allocations:>11} {bytes:>10}");
    }
    text
}

/// The instructions in a part of callgrind's output.
pub(crate) fn instructions(part: &str) -> Result<u64> {
    let total = part.lines().find_map(|l| l.strip_prefix("totals: ").or_else(|| l.strip_prefix("summary: ")));
    Ok(total.context("callgrind tells no total")?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failure here is a failed test

    use super::*;

    fn figures(costs: &[(&str, u64, u64)]) -> Figures {
        let cost = |(name, instructions, allocations): &(&str, u64, u64)| Cost {
            name: (*name).to_owned(),
            instructions: *instructions,
            allocations: *allocations,
            bytes: 1,
        };
        Figures { compiler: "rustc 1".into(), costs: costs.iter().map(cost).collect() }
    }

    #[test]
    fn what_is_recorded_reads_back() {
        let figures = figures(&[("a case: of some kind", 1000, 3), ("another", 7, 0)]);
        assert_eq!(Figures::parse(&figures.to_string()).unwrap(), figures);
    }

    #[test]
    fn a_jump_of_more_than_a_tenth_is_found_and_so_is_a_case_nobody_recorded() {
        let before = figures(&[("same", 10_000, 100), ("slower", 10_000, 100), ("fatter", 10_000, 100)]);
        let now = figures(&[
            ("same", 10_900, 109),
            ("slower", 11_100, 100),
            ("fatter", 10_000, 111),
            ("new", 1, 1),
        ]);
        assert_eq!(dearer(&before, &now), ["slower", "fatter", "new"]);
    }

    #[test]
    fn a_few_instructions_of_a_small_case_are_no_jump() {
        let before = figures(&[("small", 500, 5)]);
        assert!(dearer(&before, &figures(&[("small", 650, 7)])).is_empty());
        assert_eq!(dearer(&before, &figures(&[("small", 701, 5)])), ["small"]);
    }

    #[test]
    fn the_total_of_a_part_is_found() {
        assert_eq!(instructions("events: Ir\nfn=(1) x\n1 2\ntotals: 4711\n").unwrap(), 4711);
        assert!(instructions("events: Ir\n").is_err());
    }
}
