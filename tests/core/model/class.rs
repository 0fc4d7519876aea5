//! The configuration: one class, which may change while pods live by it.

use std::net::IpAddr;

use external_ip_core::settings::{ConfiguredCluster, Exposure, Settings};

use crate::balancer::ASKS;
use crate::judge::Promise;
use crate::server::NS;

/// What the class wants first, and its steps down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Dedicated,
    Shared,
    NodePort,
    SharedNodePort,
    DedicatedShared,
    DedicatedNodePort,
    All,
}

impl Order {
    pub(crate) fn exposures(self) -> &'static [Exposure] {
        use Exposure::{Dedicated, NodePort, Shared};
        match self {
            Self::Dedicated => &[Dedicated],
            Self::Shared => &[Shared],
            Self::NodePort => &[NodePort],
            Self::SharedNodePort => &[Shared, NodePort],
            Self::DedicatedShared => &[Dedicated, Shared],
            Self::DedicatedNodePort => &[Dedicated, NodePort],
            Self::All => &[Dedicated, Shared, NodePort],
        }
    }

    fn shares(self) -> bool {
        self.exposures().contains(&Exposure::Shared)
    }
}

/// The class of all pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) order: Order,
    /// It publishes pods that are not ready.
    pub(crate) not_ready_too: bool,
    /// Static addresses, of each family; 0: the load balancer chooses. A class that shares has none.
    pub(crate) pool: u8,
    /// Ports of a shared Service.
    pub(crate) room: u8,
    /// Load balancers of the class; 0: as many as the installation may have.
    pub(crate) budget: u8,
}

impl Class {
    fn pool(self) -> u8 {
        if self.order.shares() { 0 } else { self.pool }
    }
}

/// What differs between histories from the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// IPv4 and IPv6.
    pub(crate) dual: bool,
    /// Slots per cluster, per namespace, load balancers of all.
    pub(crate) limits: (u32, u32, u32),
    pub(crate) class: Class,
}

impl Setting {
    /// As the product reads it.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        let class = settings.classes.get_mut("default").unwrap();
        class.exposure = self.class.order.exposures().to_vec();
        class.shared.ports_per_service = self.class.room.into();
        class.load_balancers = Some(self.class.budget.into()).filter(|budget| *budget > 0);
        class.service.publish_not_ready_addresses = self.class.not_ready_too;
        class.readiness_gate = self.class.not_ready_too;
        class.service.ip_family_policy = self.dual.then(|| "PreferDualStack".to_owned());
        let pool = self.class.pool();
        if pool > 0 {
            class.service.annotations.insert(ASKS.to_owned(), "{address}".to_owned());
            let v4 = (0..pool).map(|n| IpAddr::from([203, 0, 113, 101 + n]));
            let v6 = (0..pool).map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x101 + u16::from(n)]));
            class.addresses = v4.chain(v6.filter(|_| self.dual)).collect();
        }
        settings.clusters = vec![ConfiguredCluster {
            name: "e".parse().unwrap(),
            namespace: NS.to_owned(),
            selector: [("app".to_owned(), "e".to_owned())].into(),
            ports: Vec::new(),
            class: "default".to_owned(),
        }];
        let limits = &mut settings.limits;
        (limits.slots_per_cluster, limits.slots_per_namespace, limits.load_balancers) = self.limits;
        settings
    }

    /// As the judge reads it.
    pub(crate) fn promise(&self) -> Promise {
        let (cluster, namespace, installation) = self.limits;
        Promise {
            exposures: self.class.order.exposures().iter().map(|e| e.as_str()).collect(),
            slots_per_cluster: cluster as usize,
            slots_per_namespace: namespace as usize,
            balancers: installation.min(match self.class.budget {
                0 => u32::MAX,
                budget => budget.into(),
            }) as usize,
            pool: self.class.pool().into(),
            room: self.class.room.into(),
        }
    }
}
