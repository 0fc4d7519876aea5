//! Who may read the map.
//!
//! A reader shows a token made for the audience `external-ip.dev`; the API server says who that is (TokenReview) and
//! whether that account may read (SubjectAccessReview). Nothing is configured here: rights are given with RBAC.
//!
//! | document | right |
//! | --- | --- |
//! | `/`, `/v1/mapping` | `get` on the non-resource URL `/v1/mapping` |
//! | `/v1/mapping/{namespace}/{cluster}` | `get` on the ConfigMap `<cluster>-external-ips` in the namespace |
//!
//! `/` asks for the same right as `/v1/mapping`: on an API server `/` is an index of paths, and some distributions let
//! every account read it, so a right to `/` says nothing about the map.

mod budget;
mod cache;
mod review;

use std::borrow::Cow;
use std::sync::Arc;

use data_encoding::BASE64;
use external_ip_core::names;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::problem::Problem;
use crate::constants::{REVIEW_TIMEOUT, REVIEWS_IN_FLIGHT, TOKEN_BYTES};
use crate::metrics::Metrics;
use budget::Budget;
use cache::Cache;

pub use review::ApiReviewer;

/// The audience tokens must be made for, so that a token shown here is of no use at the API server.
pub const AUDIENCE: &str = "external-ip.dev";
/// The non-resource URL whose `get` is the right to the whole map.
pub const AGGREGATE_PATH: &str = "/v1/mapping";

/// What somebody wants to read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wish {
    /// The map over all clusters.
    Aggregate,
    /// One cluster.
    Cluster {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// An account, as the API server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// For people.
    pub name: String,
    /// TokenReview's `status.user`: goes into the access review as it is.
    pub user: Value,
}

/// The API server could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

/// Who answers the two questions: the API server, or a test.
pub trait Reviewer: Send + Sync + 'static {
    /// Whose token it is; `None` where it is nobody's, has ended, or is for another audience.
    fn authenticate(&self, token: &str) -> BoxFuture<'static, Result<Option<Account>, Unreachable>>;
    /// Whether the account may read.
    fn authorize(&self, account: &Account, wish: &Wish) -> BoxFuture<'static, Result<bool, Unreachable>>;
}

/// The decision who may read.
#[derive(Clone)]
pub enum Access {
    /// Everybody who reaches the listener.
    Open,
    /// Who has a token and the right.
    Token(Arc<TokenAccess>),
}

impl Access {
    /// By tokens that `reviewer` judges.
    pub fn token(reviewer: Arc<dyn Reviewer>) -> Self {
        Self::Token(Arc::new(TokenAccess {
            reviewer,
            accounts: Cache::new(Option::is_some),
            rights: Cache::new(|allowed| *allowed),
            budget: Budget::new(),
            places: Arc::new(Semaphore::new(REVIEWS_IN_FLIGHT)),
        }))
    }

    /// Whether a request with these headers may read. The error is the answer to send.
    pub(super) async fn check(
        &self,
        headers: &HeaderMap,
        wish: &Wish,
        metrics: &Metrics,
    ) -> Result<(), Problem> {
        let Self::Token(access) = self else { return Ok(()) };
        let (result, answer) = match access.check(headers, wish).await {
            Ok(()) => ("allowed", Ok(())),
            Err(Refusal::NoToken) => ("no_token", Err(no_token())),
            Err(Refusal::BadToken) => ("bad_token", Err(bad_token())),
            Err(Refusal::Forbidden(account)) => ("forbidden", Err(forbidden(&account, wish))),
            Err(Refusal::Unreachable(error)) => ("unreachable", Err(unreachable(&error))),
        };
        metrics.access(result);
        answer
    }
}

/// Tokens, accounts and rights, with what was learned of them.
pub struct TokenAccess {
    reviewer: Arc<dyn Reviewer>,
    accounts: Cache<Digest256, Option<Account>>,
    rights: Cache<(Digest256, Wish), bool>,
    /// For questions about those who were never let in.
    budget: Budget,
    places: Arc<Semaphore>,
}

/// SHA-256 of a token: what is kept is of no use to who reads the memory.
type Digest256 = [u8; 32];

#[derive(Debug)]
enum Refusal {
    NoToken,
    BadToken,
    Forbidden(String),
    Unreachable(Unreachable),
}

impl TokenAccess {
    async fn check(&self, headers: &HeaderMap, wish: &Wish) -> Result<(), Refusal> {
        let token = token(headers).ok_or(Refusal::NoToken)?;
        let token = &*token;
        if token.len() > TOKEN_BYTES {
            return Err(Refusal::BadToken);
        }
        let digest: Digest256 = Sha256::digest(token.as_bytes()).into();
        let ask = |known| self.allowed(known).map(|()| self.bounded(self.reviewer.authenticate(token)));
        let account = self.accounts.get(digest, ask).await.map_err(Refusal::Unreachable)?;
        let account = account.ok_or(Refusal::BadToken)?;
        let ask = |known| self.allowed(known).map(|()| self.bounded(self.reviewer.authorize(&account, wish)));
        let allowed = self.rights.get((digest, wish.clone()), ask).await.map_err(Refusal::Unreachable)?;
        if allowed { Ok(()) } else { Err(Refusal::Forbidden(account.name)) }
    }

    /// Whether the API server may be asked. About who was let in before, always: each of them asks once in ten seconds.
    fn allowed(&self, known: bool) -> Result<(), Unreachable> {
        if known || self.budget.take() {
            return Ok(());
        }
        Err(Unreachable("more readers it does not know yet than are asked about at once".to_owned()))
    }

    /// One of few reviews at a time, and none for ever.
    fn bounded<T: Send + 'static>(
        &self,
        review: BoxFuture<'static, Result<T, Unreachable>>,
    ) -> BoxFuture<'static, Result<T, Unreachable>> {
        let places = Arc::clone(&self.places);
        Box::pin(async move {
            let reviewed = async {
                // the semaphore is never closed
                let _place = places.acquire_owned().await.map_err(|e| Unreachable(e.to_string()))?;
                review.await
            };
            let late = || Unreachable(format!("no answer within {} s", REVIEW_TIMEOUT.as_secs()));
            tokio::time::timeout(REVIEW_TIMEOUT, reviewed).await.map_err(|_| late())?
        })
    }
}

/// The token of `Authorization: Bearer TOKEN`, or the password of `Basic`, which is what browsers can send. Of two such
/// headers neither counts: something on the way may have looked at the other one.
fn token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    let token = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Cow::from(token),
        "basic" => {
            let pair = String::from_utf8(BASE64.decode(token.as_bytes()).ok()?).ok()?;
            Cow::from(pair.split_once(':')?.1.to_owned())
        }
        _ => return None,
    };
    (!token.is_empty()).then_some(token)
}

fn no_token() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "NoToken")
        .message("the map is for those who may read it, and the request shows no token")
        .remedy(format!(
            "send `Authorization: Bearer TOKEN`; make one with: kubectl -n NAMESPACE create token SERVICE-ACCOUNT --audience {AUDIENCE}"
        ))
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"external-ip.dev\""))
}

fn bad_token() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "InvalidToken")
        .message(format!("the API server does not know the token, or it has ended, or it is not for the audience {AUDIENCE}"))
        .remedy(format!(
            "make a new one with: kubectl -n NAMESPACE create token SERVICE-ACCOUNT --audience {AUDIENCE}; in a pod, project one with that audience and read it again when it is renewed"
        ))
        .header(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"external-ip.dev\", error=\"invalid_token\""),
        )
}

fn forbidden(account: &str, wish: &Wish) -> Problem {
    let (right, remedy) = match wish {
        Wish::Aggregate => (
            format!("`get` on the non-resource URL {AGGREGATE_PATH}"),
            "kubectl create clusterrolebinding NAME --clusterrole=external-ip-mapping-reader --serviceaccount=NAMESPACE:ACCOUNT".to_owned(),
        ),
        Wish::Cluster { namespace, name } => {
            let map = names::cluster_config_map(name);
            (
                format!("`get` on ConfigMap {map} in namespace {namespace}"),
                format!(
                    "kubectl -n {namespace} create role NAME --verb=get --resource=configmaps --resource-name={map}, and bind it to the account"
                ),
            )
        }
    };
    Problem::new(StatusCode::FORBIDDEN, "Forbidden")
        .message(format!("{account} lacks {right}"))
        .remedy(format!("ask who manages the cluster for: {remedy}"))
}

fn unreachable(error: &Unreachable) -> Problem {
    Problem::unavailable("AccessUnknown")
        .message(format!("the API server cannot be asked whether this token may read: {error}"))
        .remedy("ask again; the token may well be good")
}

/// A path's namespace and cluster as a wish. Names that cannot exist are asked about like all others: what does not
/// exist is told only to those who may know.
pub(super) fn cluster(namespace: &str, name: &str) -> Wish {
    Wish::Cluster { namespace: namespace.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests;
