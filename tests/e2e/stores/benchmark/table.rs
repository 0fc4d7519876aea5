//! From raw results to means with intervals. The unit is the fork: parts within one are not independent.

use std::fmt::Write;

use serde_json::Value;

pub(super) const WAYS: [&str; 3] = ["inside", "by the map", "one load balancer"];
/// What the goal is about.
pub(super) const BOTH: Measure = Measure::Sum(&["puts_ns", "gets_ns"]);
const MEASURES: [Measure; 5] = [
    Measure::Sum(&["puts_ns"]),
    Measure::Sum(&["gets_ns"]),
    BOTH,
    Measure::Median("put_median_ns"),
    Measure::Median("get_median_ns"),
];

/// What one fork is reduced to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Measure {
    /// Milliseconds for all operations of these kinds.
    Sum(&'static [&'static str]),
    /// Microseconds for one: the median of its parts' medians, which a disturbance of less than half of them does not move.
    Median(&'static str),
}

impl Measure {
    fn of(self, parts: &[Value]) -> f64 {
        let all =
            |kind: &str| -> Vec<f64> { parts.iter().map(|part| part[kind].as_f64().unwrap()).collect() };
        match self {
            Self::Sum(kinds) => kinds.iter().flat_map(|kind| all(kind)).sum::<f64>() / 1e6,
            Self::Median(kind) => {
                let mut all = all(kind);
                all.sort_by(f64::total_cmp);
                all[all.len() / 2] / 1e3
            }
        }
    }
}

/// A 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval {
    /// Student's, of independent samples.
    fn of(samples: &[f64]) -> Self {
        let count = f64::from(u32::try_from(samples.len()).unwrap());
        let mean = samples.iter().sum::<f64>() / count;
        let variance = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let half = student(samples.len() - 1) * (variance / count).sqrt();
        Self { mean, low: mean - half, high: mean + half }
    }

    fn exp(self) -> Self {
        Self { mean: self.mean.exp(), low: self.low.exp(), high: self.high.exp() }
    }
}

/// 0.975 quantile of Student's distribution.
fn student(freedom: usize) -> f64 {
    const QUANTILES: [f64; 15] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131,
    ];
    QUANTILES[freedom - 1]
}

/// Of each fork.
fn times(results: &Value, way: &str, measure: Measure) -> Vec<f64> {
    let forks = results["forks"].as_array().unwrap();
    forks.iter().map(|fork| measure.of(fork[way].as_array().unwrap())).collect()
}

/// How many times the time of the other: the geometric mean of the forks' ratios.
pub(super) fn ratio(results: &Value, way: &str, other: &str, measure: Measure) -> Interval {
    let pairs = times(results, way, measure).into_iter().zip(times(results, other, measure));
    Interval::of(&pairs.map(|(one, other)| (one / other).ln()).collect::<Vec<_>>()).exp()
}

/// How many times the store is asked for one operation.
fn asked(results: &Value, way: &str) -> f64 {
    let forks = results["forks"].as_array().unwrap();
    let parts: Vec<&Value> = forks.iter().flat_map(|fork| fork[way].as_array().unwrap()).collect();
    let operations =
        2.0 * results["operations"].as_f64().unwrap() * f64::from(u32::try_from(forks.len()).unwrap());
    parts.iter().map(|part| part["asked"].as_f64().unwrap()).sum::<f64>() / operations
}

/// As the documentation has it.
pub(super) fn of(results: &Value) -> String {
    let operations = &results["operations"];
    let mut text = format!(
        "| {} | {operations} puts, ms | {operations} gets, ms | both, ms | a put, median µs | a get, median µs | asked per operation |\n|---|---|---|---|---|---|---|\n",
        results["store"].as_str().unwrap()
    );
    for way in WAYS {
        let cells = MEASURES.map(|measure| {
            let Interval { mean, high, .. } = Interval::of(&times(results, way, measure));
            format!("{mean:.0} ± {:.0}", high - mean)
        });
        writeln!(text, "| {way} | {} | {:.2} |", cells.join(" | "), asked(results, way)).unwrap();
    }
    for (way, other) in [(WAYS[1], WAYS[0]), (WAYS[2], WAYS[1])] {
        let cells = MEASURES.map(|measure| {
            let Interval { mean, low, high } = ratio(results, way, other, measure);
            format!("{mean:.3} ({low:.3} to {high:.3})")
        });
        writeln!(text, "| {way} / {other} | {} | |", cells.join(" | ")).unwrap();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rig::root;

    #[test]
    fn the_documented_tables_are_what_the_raw_results_say() {
        let page = std::fs::read_to_string(root().join("docs/benchmarks-stores.md")).unwrap();
        for store in ["infinispan", "redis"] {
            let file = root().join(format!("docs/benchmarks-stores-{store}.json"));
            let results = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
            let table = of(&results);
            assert!(page.contains(&table), "docs/benchmarks-stores.md has not:\n{table}");
        }
    }

    #[test]
    fn intervals_are_students() {
        let Interval { mean, low, high } = Interval::of(&[9.0, 10.0, 11.0]);
        assert!((mean - 10.0).abs() < 1e-9);
        // s = 1, n = 3, t = 4.303
        assert!((low - 7.5157).abs() < 1e-3 && (high - 12.4843).abs() < 1e-3, "{low} {high}");
    }

    #[test]
    fn a_median_is_not_moved_by_what_is_far_away() {
        let part = |ns: u64| json!({"put_median_ns": ns});
        let median = Measure::Median("put_median_ns").of(&[part(900_000), part(2000), part(1000)]);
        assert!((median - 2.0).abs() < 1e-9, "{median}");
    }

    #[test]
    fn a_ratio_is_of_the_same_forks_times() {
        let part = |ns: u64| json!([{"puts_ns": ns, "gets_ns": ns, "asked": 2}]);
        let fork = |inside, map| json!({"inside": part(inside), "by the map": part(map)});
        let results = json!({"operations": 1, "forks": [fork(100, 200), fork(1000, 2000), fork(10, 20)]});
        let Interval { mean, low, high } = ratio(&results, "by the map", "inside", BOTH);
        assert!([mean, low, high].iter().all(|value| (value - 2.0).abs() < 1e-9), "{mean} {low} {high}");
        assert!((asked(&results, "inside") - 1.0).abs() < 1e-9);
    }
}
