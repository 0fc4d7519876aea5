//! The shell around the pure core.
