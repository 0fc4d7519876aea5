//! Lines for the person who waits: seconds since the start, then what has just happened.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A silent minute looks hung: long steps report at least this often.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Short enough not to add to a start of a few seconds, long enough not to load two cores.
const POLL: Duration = Duration::from_millis(40);

/// Prints to standard error, so that standard output stays for results.
#[derive(Clone, Debug)]
pub struct Progress {
    start: Instant,
}

impl Progress {
    /// Starts to count now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// One line.
    pub fn say(&self, what: &str) {
        eprintln!("{:7.1}s  {what}", self.start.elapsed().as_secs_f64());
    }

    /// Asks again until `done` says yes, then prints `what`. An error of `done` ends the wait at once.
    pub(crate) fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let begun = Instant::now();
        let mut reported = begun;
        while !done()? {
            if begun.elapsed() > limit {
                bail!("gave up after {} s waiting for: {what}", limit.as_secs());
            }
            if reported.elapsed() > REPORT_EVERY {
                reported = Instant::now();
                self.say(&format!("... waiting for: {what}"));
            }
            std::thread::sleep(POLL);
        }
        self.say(what);
        Ok(())
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
