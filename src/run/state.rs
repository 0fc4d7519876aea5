//! The state loop and the watches it lives on.

use std::sync::Arc;

use external_ip_core::action::{Action, Outcome};
use external_ip_core::objects::Service;
use external_ip_core::reach::Target;
use external_ip_core::resolve::{Answer, Question};
use tokio::sync::{mpsc, watch};

use super::Shared;
use super::tasks::{Stop, Tasks};
use crate::act::lease;
use crate::control::{Control, Inputs, Outputs};
use crate::dial::Targets;
use crate::map::PodQuestion;
use crate::resolve::Questions;
use crate::watch::{self as feeds, Watchers};

/// Updates on their way to the state loop. Bounds memory while the loop is busy; watches wait, the API server buffers.
const UPDATES: usize = 1024;

/// What a process is told that leads or follows.
pub(super) struct Told {
    pub(super) role: watch::Receiver<lease::Role>,
    /// The Service the mapping is published by.
    pub(super) service: watch::Receiver<Option<Arc<Service>>>,
    /// Of readers, about single pods.
    pub(super) questions: mpsc::Receiver<PodQuestion>,
}

/// The other ends of the loop's channels: who carries out what it plans takes them.
pub(super) struct Ends {
    pub(super) actions: mpsc::UnboundedSender<Action>,
    pub(super) planned: mpsc::UnboundedReceiver<Action>,
    pub(super) outcomes: mpsc::UnboundedSender<(Action, Outcome)>,
    pub(super) targets: watch::Receiver<Targets>,
    pub(super) dialled: mpsc::Sender<(Target, bool)>,
    pub(super) names: watch::Receiver<Questions>,
    pub(super) answers: mpsc::Sender<(Question, Answer)>,
}

/// Starts every watch, and the loop.
pub(super) fn keep(shared: &Shared, told: Told, tasks: &mut Tasks, stop: &Stop) -> Ends {
    let (updates_in, updates) = mpsc::channel(UPDATES);
    let watched = feeds::feeds(&shared.settings);
    let watchers = Watchers {
        liveness: Arc::clone(&shared.liveness),
        refresh: Arc::clone(&shared.refresh),
        metrics: Arc::clone(&shared.metrics),
    };
    feeds::spawn(tasks.set(), watched.clone(), &shared.client, &watchers, &updates_in, &stop.all);

    let (actions, planned) = mpsc::unbounded_channel();
    let (outcomes_in, outcomes) = mpsc::unbounded_channel();
    let (targets_out, targets) = watch::channel(Targets::default());
    let (dialled_in, dialled) = mpsc::channel(UPDATES);
    let (names_out, names) = watch::channel(Questions::default());
    let (answers_in, answers) = mpsc::channel(UPDATES);
    let Told { role, service: mapping_service, questions } = told;
    let liveness = Arc::clone(&shared.liveness);
    let inputs = Inputs { updates, outcomes, role, mapping_service, questions, dialled, answers, liveness };
    let outputs = Outputs {
        current: Arc::clone(&shared.current),
        actions: actions.clone(),
        targets: targets_out,
        questions: names_out,
        metrics: Arc::clone(&shared.metrics),
    };
    let control = Control::new(Arc::clone(&shared.settings), &watched, inputs, outputs);
    tasks.spawn("state", control.run(stop.all.clone()));
    Ends { actions, planned, outcomes: outcomes_in, targets, dialled: dialled_in, names, answers: answers_in }
}
