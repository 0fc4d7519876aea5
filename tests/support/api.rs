//! Untyped requests to the API server as a given user.

use std::path::Path;

use http::{Method, Request, StatusCode};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::Value;

/// A user's way to the API server.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) kube::Client);

/// What the API server answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answer {
    /// The body of a success; panics with the server's message otherwise.
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.body["message"]);
        self.body
    }
}

/// What a kubeconfig says.
pub(crate) async fn config(kubeconfig: &Path) -> Config {
    let file = Kubeconfig::read_from(kubeconfig).expect("kubeconfig is there");
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("is valid")
}

impl Api {
    pub(crate) async fn new(kubeconfig: &Path) -> Self {
        Self(external_ip_controller::client::from_config(config(kubeconfig).await).expect("can be used"))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, "application/json").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(body), "application/json").await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, Some(body), "application/merge-patch+json").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None, "application/json").await
    }

    /// Names of the objects a list path answers.
    pub(crate) async fn names(&self, path: &str) -> Vec<String> {
        let list = self.get(path).await.ok();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>, content: &str) -> Answer {
        self.try_send(method, path, body, content).await.expect("the API server answers")
    }

    /// For callers that go on while the API server does not answer.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        content: &str,
    ) -> Result<Answer, kube::Error> {
        let body = body.map(ToString::to_string).unwrap_or_default().into_bytes();
        let request = Request::builder().method(method).uri(path).header("content-type", content);
        let request = request.body(kube::client::Body::from(body)).expect("a request");
        let response = self.0.send(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect_bytes().await?;
        Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }
}
