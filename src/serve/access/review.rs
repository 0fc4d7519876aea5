use external_ip_core::names;
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AGGREGATE_PATH, AUDIENCE, Account, Reviewer, Unreachable, Wish};
use crate::client::call;
use crate::constants::REVIEW_TIMEOUT;

/// Asks the API server.
pub struct ApiReviewer {
    client: Client,
}

impl ApiReviewer {
    /// With this client; its account needs `create` on tokenreviews and subjectaccessreviews.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn ask<S: for<'de> Deserialize<'de> + 'static>(
        &self,
        path: &'static str,
        review: &Value,
    ) -> BoxFuture<'static, Result<S, Unreachable>> {
        let client = self.client.clone();
        let request = call::create(path, review.to_string().into_bytes());
        async move {
            let answer = call::whole(&client, request, REVIEW_TIMEOUT).await.map_err(|error| {
                // a right that is missing is ours, not the reader's: nobody could read until somebody sees this
                if error.code() == Some(403) {
                    tracing::error!("{path}: {error}: the controller's own account needs `create` on it");
                }
                Unreachable(error.to_string())
            })?;
            let answer: Answered<S> =
                serde_json::from_slice(&answer).map_err(|e| Unreachable(format!("{path}: {e}")))?;
            Ok(answer.status)
        }
        .boxed()
    }
}

#[derive(Deserialize)]
struct Answered<S> {
    status: S,
}

#[derive(Deserialize)]
struct TokenStatus {
    #[serde(default)]
    authenticated: bool,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    user: Value,
}

#[derive(Deserialize)]
struct AccessStatus {
    #[serde(default)]
    allowed: bool,
}

impl Reviewer for ApiReviewer {
    fn authenticate(&self, token: &str) -> BoxFuture<'static, Result<Option<Account>, Unreachable>> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        });
        let status = self.ask::<TokenStatus>("/apis/authentication.k8s.io/v1/tokenreviews", &review);
        async move {
            let status = status.await?;
            // an authenticator that knows no audiences names none: such a token is good everywhere, so not here
            let good = status.authenticated && status.audiences.iter().any(|a| a == AUDIENCE);
            let name = status.user["username"].as_str().unwrap_or_default().to_owned();
            Ok(good.then_some(Account { name, user: status.user }))
        }
        .boxed()
    }

    fn authorize(&self, account: &Account, wish: &Wish) -> BoxFuture<'static, Result<bool, Unreachable>> {
        let mut spec = json!({
            "user": account.user["username"], "uid": account.user["uid"],
            "groups": account.user["groups"], "extra": account.user["extra"],
        });
        match wish {
            Wish::Aggregate => spec["nonResourceAttributes"] = json!({"path": AGGREGATE_PATH, "verb": "get"}),
            Wish::Cluster { namespace, name } => {
                spec["resourceAttributes"] = json!({
                    "namespace": namespace, "verb": "get", "group": "", "version": "v1",
                    "resource": "configmaps", "name": names::cluster_config_map(name),
                });
            }
        }
        let review =
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let status = self.ask::<AccessStatus>("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review);
        async move { Ok(status.await?.allowed) }.boxed()
    }
}
