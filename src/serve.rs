//! The three listeners and what they answer.
