//! Replacing the CA without a handshake that fails. The Secret holds where a rotation stands, so that all replicas see
//! the same, and each step carries the version it was decided from:
//!
//! ```text
//! asked for, or the CA grows old
//!   -> next.crt, next.key    trusted, does not sign: caBundle and every ca.crt hold it
//!   -> tls.crt, tls.key      it signs, once it is trusted everywhere and its day has come
//!   -> former.crt            the old one, trusted until all replicas have a new leaf; then it goes
//! ```
//! Any replica may take a step; two at once are one, as the second one's write is refused and it reads again.

use std::time::Duration;

use data_encoding::BASE64;
use external_ip_core::names::{self, FORMER_CA_ANNOTATION, NEXT_CA_ANNOTATION, ROTATE_CA_ANNOTATION};
use external_ip_core::settings::duration;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::authority::{Authority, AuthorityError, certificate_pem, read_certificates, seconds};
use super::secret::{CERTIFICATE, KEY, Secret};
use crate::constants::{AUTHORITY_RENEWAL, FORMER_AUTHORITY, NEXT_AUTHORITY};

/// Keys of the CA Secret beside `tls.crt` and `tls.key`.
pub(super) const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
pub(super) const FORMER_CERTIFICATE: &str = "former.crt";

/// What is wrong with a rotation. The CA goes on signing meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RotationError {
    /// Not ours to guess.
    #[error(
        "annotation {ROTATE_CA_ANNOTATION}: '{0}' is no duration: write how long clients shall have the next CA before it signs, for example 24h"
    )]
    Wish(String),
    /// An edited date.
    #[error("annotation {0}: '{1}' is no time: write it like 2027-01-31T12:00:00Z, or remove the annotation")]
    Date(&'static str, String),
    /// A CA somebody brought.
    #[error("next.crt and next.key: {0}; remove both, or put a CA and its key there")]
    Next(AuthorityError),
    /// Should not be.
    #[error("{0} of the CA's Secret: {1}")]
    Broken(&'static str, String),
}

/// Where a rotation stands; times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rotation {
    /// How long somebody wants the next CA to be known before it signs.
    wish: Option<Duration>,
    next: bool,
    signs_from: Option<i64>,
    former: bool,
    trusted_until: Option<i64>,
    /// When the signing CA ends.
    not_after: i64,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing before this time, seconds since 1970, or before something changes.
    Wait(Option<i64>),
    /// Make the next CA.
    Announce {
        /// When it shall sign.
        signs_from: i64,
    },
    /// There is a next CA; settle when it signs.
    Schedule {
        /// When it shall sign.
        signs_from: i64,
    },
    /// The next CA signs from now on. Only where it is trusted everywhere.
    Sign,
    /// Settle how long the former CA is trusted.
    Keep {
        /// Until then.
        until: i64,
    },
    /// Trust the former CA no more.
    Forget,
}

impl Step {
    /// What the log says once it is taken.
    pub(super) fn told(self) -> String {
        match self {
            Self::Wait(_) => "nothing to do for the CA".to_owned(),
            Self::Announce { signs_from } | Self::Schedule { signs_from } => format!(
                "a new CA is published and will sign from {} on: clients that were given the CA by hand need ca.crt of \
                 ConfigMap {} again before then",
                rfc3339(signs_from),
                names::CA_CONFIG_MAP
            ),
            Self::Sign => {
                "the new CA signs from now on; the former one is trusted for a minute more".to_owned()
            }
            Self::Keep { until } => format!("the former CA is trusted until {}", rfc3339(until)),
            Self::Forget => "the former CA is not trusted any more".to_owned(),
        }
    }
}

fn decide(at: &Rotation, now: i64) -> Step {
    let later = |wait: Duration| now.saturating_add(seconds(wait));
    // one after the other: clients never have to know three
    match (at.former, at.trusted_until) {
        (true, None) => return Step::Keep { until: later(FORMER_AUTHORITY) },
        (true, Some(until)) if now >= until => return Step::Forget,
        (true, Some(until)) => return Step::Wait(Some(until)),
        (false, _) => {}
    }
    match (at.next, at.wish, at.signs_from) {
        (true, Some(wish), _) => Step::Schedule { signs_from: later(wish) },
        (true, None, None) => Step::Schedule { signs_from: later(NEXT_AUTHORITY) },
        (true, None, Some(from)) if now >= from => Step::Sign,
        (true, None, Some(from)) => Step::Wait(Some(from)),
        (false, Some(wish), _) => Step::Announce { signs_from: later(wish) },
        (false, None, _) if at.not_after - now < seconds(AUTHORITY_RENEWAL) => {
            Step::Announce { signs_from: later(NEXT_AUTHORITY).min(midway(now, at.not_after)) }
        }
        (false, None, _) => Step::Wait(None),
    }
}

/// An old CA found late is still replaced before it ends.
fn midway(now: i64, end: i64) -> i64 {
    now + (end - now) / 2
}

/// What `secret`, with `signing` in it, asks for at `now`.
pub(super) fn step(secret: &Secret, signing: &Authority, now: i64) -> Result<Step, RotationError> {
    let date = |key: &'static str| {
        let text = secret.annotation(key);
        text.map(|t| t.parse::<Timestamp>().map_err(|_| RotationError::Date(key, t.to_owned()))).transpose()
    };
    let wish = secret.annotation(ROTATE_CA_ANNOTATION);
    let wish = wish.map(|text| duration::parse(text).ok_or_else(|| RotationError::Wish(text.to_owned())));
    let at = Rotation {
        wish: wish.transpose()?,
        next: secret.holds(NEXT_CERTIFICATE) || secret.holds(NEXT_KEY),
        signs_from: date(NEXT_CA_ANNOTATION)?.map(Timestamp::as_second),
        former: secret.holds(FORMER_CERTIFICATE),
        trusted_until: date(FORMER_CA_ANNOTATION)?.map(Timestamp::as_second),
        not_after: signing.not_after(),
    };
    if at.next {
        next(secret, now)?;
    }
    Ok(decide(&at, now))
}

/// The CA that shall sign next.
pub(super) fn next(secret: &Secret, now: i64) -> Result<Authority, RotationError> {
    let text = |key| secret.text(key);
    let certificate =
        text(NEXT_CERTIFICATE).map_err(|e| RotationError::Next(AuthorityError::Certificate(e)))?;
    let key = text(NEXT_KEY).map_err(|e| RotationError::Next(AuthorityError::Key(e)))?;
    Authority::parse(&certificate, &key, now).map_err(RotationError::Next)
}

/// The merge patch of the Secret that takes `step`; `None` where there is nothing to write.
pub(super) fn patch(
    secret: &Secret,
    signing: &Authority,
    step: Step,
    now: i64,
) -> Result<Option<Value>, RotationError> {
    let text = |pem: &str| BASE64.encode(pem.as_bytes());
    Ok(Some(match step {
        Step::Wait(_) => return Ok(None),
        Step::Announce { signs_from } => {
            let made = Authority::generate(now).map_err(RotationError::Next)?;
            json!({
                "metadata": {"annotations": {ROTATE_CA_ANNOTATION: null, NEXT_CA_ANNOTATION: rfc3339(signs_from)}},
                "data": {NEXT_CERTIFICATE: text(made.bundle()), NEXT_KEY: text(&made.key_pem())},
            })
        }
        Step::Schedule { signs_from } => json!({
            "metadata": {"annotations": {ROTATE_CA_ANNOTATION: null, NEXT_CA_ANNOTATION: rfc3339(signs_from)}},
        }),
        Step::Sign => {
            let next = next(secret, now)?;
            let until = now.saturating_add(seconds(FORMER_AUTHORITY));
            let (former, more) = (signing.signer(), besides(secret, signing, &next)?);
            json!({
                "metadata": {"annotations": {NEXT_CA_ANNOTATION: null, FORMER_CA_ANNOTATION: rfc3339(until)}},
                "data": {
                    CERTIFICATE: text(&format!("{}{more}", next.bundle())), KEY: text(&next.key_pem()),
                    NEXT_CERTIFICATE: null, NEXT_KEY: null, FORMER_CERTIFICATE: text(&certificate_pem(former)),
                },
            })
        }
        Step::Keep { until } => json!({"metadata": {"annotations": {FORMER_CA_ANNOTATION: rfc3339(until)}}}),
        Step::Forget => json!({
            "metadata": {"annotations": {FORMER_CA_ANNOTATION: null}}, "data": {FORMER_CERTIFICATE: null},
        }),
    }))
}

/// What somebody has put into `tls.crt` to be trusted besides: it stays.
fn besides(secret: &Secret, signing: &Authority, next: &Authority) -> Result<String, RotationError> {
    let read = secret.text(CERTIFICATE).and_then(|text| read_certificates(&text));
    let read = read.map_err(|e| RotationError::Broken(CERTIFICATE, e))?;
    let more = read.iter().filter(|c| *c != signing.signer() && !next.certificates().contains(c));
    Ok(more.map(|c| certificate_pem(c)).collect())
}

/// Seconds since 1970 as text; far beyond any calendar, as its end.
fn rfc3339(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests;
