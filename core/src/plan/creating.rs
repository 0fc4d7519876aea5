//! Services that are being made count against the limits before the watch shows them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::service::SlotService;
use crate::settings::Exposure;
use crate::state::count;

/// How many Services are being created, as the state counts those that are there.
#[derive(Debug, Default)]
pub(super) struct Creating {
    slots: HashMap<(Arc<str>, Exposure), usize>,
    balancers: HashMap<String, usize>,
    /// Load balancers of all classes.
    pub(super) load_balancers: usize,
}

impl Creating {
    /// A creation begins, or is over.
    pub(super) fn take(&mut self, service: &SlotService, begins: bool) {
        let place = (Arc::clone(&service.key.namespace), service.exposure);
        count(&mut self.slots, &place, service.slots(), begins);
        if service.exposure != Exposure::NodePort {
            count(&mut self.balancers, &service.class, 1, begins);
            self.load_balancers = self.balancers.values().sum();
        }
    }

    /// Slots of a namespace with an exposure.
    pub(super) fn slots(&self, namespace: &Arc<str>, exposure: Exposure) -> usize {
        self.slots.get(&(Arc::clone(namespace), exposure)).copied().unwrap_or(0)
    }

    /// Load balancers of a class.
    pub(super) fn balancers(&self, class: &str) -> usize {
        self.balancers.get(class).copied().unwrap_or(0)
    }
}
