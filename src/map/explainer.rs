use external_ip_core::explain::Explanation;
use external_ip_core::names::Key;
use tokio::sync::{mpsc, oneshot};

use super::Position;
use crate::constants::POD_QUESTIONS;

/// Asks the state loop about single pods: explanations need more than the map holds, and are asked for too seldom to be
/// kept for all pods.
#[derive(Debug, Clone)]
pub struct Explainer {
    questions: mpsc::Sender<PodQuestion>,
}

/// One question on its way.
#[derive(Debug)]
pub struct PodQuestion {
    /// About whom.
    pub pod: Key,
    /// For the answer. Dropped while not everything has been listed.
    pub answer: oneshot::Sender<Explained>,
}

/// What the state loop says.
#[derive(Debug)]
pub struct Explained {
    /// `None`: no pod of this name is known.
    pub explanation: Option<Explanation>,
    /// The last changes it takes into account.
    pub position: Position,
}

impl Explainer {
    /// The two ends.
    pub fn new() -> (Self, mpsc::Receiver<PodQuestion>) {
        let (questions, asked) = mpsc::channel(POD_QUESTIONS);
        (Self { questions }, asked)
    }

    /// Asks about a pod; `None` where there are too many questions already, or nobody answers any more.
    pub async fn ask(&self, pod: Key) -> Option<Explained> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(PodQuestion { pod, answer }).ok()?;
        answered.await.ok()
    }
}
