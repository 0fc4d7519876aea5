//! Everything together: one API server, the cluster's own controllers, two replicas, and the steps.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use external_ip_core::action::{Action, Outcome};
use external_ip_core::names;
use external_ip_core::settings::{ConfiguredCluster, Settings};
use serde_json::{Value, json};

use crate::balancer::{self, ASKS, Balancer};
use crate::edits;
use crate::endpoints::Endpoints;
use crate::judge::{Kind, Seen, Truth, Verdict};
use crate::pods::{self, Pods};
use crate::replica::{FEEDS, Replica};
use crate::server::{NS, Server};
use crate::stats::Stats;
use crate::step::{Balance, Fate, Leads, Step, Webhook};
use crate::zone::Zone;

/// What differs between histories from the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// IPv4 and IPv6.
    pub(crate) dual: bool,
    /// The class publishes pods that are not ready.
    pub(crate) not_ready_too: bool,
    /// Slots per cluster, per namespace, of all.
    pub(crate) limits: (u32, u32, u32),
    /// Static addresses of the class, of each family; 0: the load balancer chooses.
    pub(crate) pool: u8,
}

pub(crate) struct World<'s> {
    pub(crate) server: Server,
    pub(crate) replicas: [Replica; 2],
    limits: (u32, u32, u32),
    pool: u8,
    pods: Pods,
    endpoints: Endpoints,
    balancer: Balancer,
    zone: Zone,
    stats: &'s mut Stats,
}

fn settings(setting: &Setting) -> Settings {
    let mut settings = Settings::default();
    let class = settings.classes.get_mut("default").unwrap();
    class.service.publish_not_ready_addresses = setting.not_ready_too;
    class.readiness_gate = setting.not_ready_too;
    class.service.ip_family_policy = setting.dual.then(|| "PreferDualStack".to_owned());
    if setting.pool > 0 {
        class.service.annotations.insert(ASKS.to_owned(), "{address}".to_owned());
        let v4 = (0..setting.pool).map(|n| IpAddr::from([203, 0, 113, 101 + n]));
        let v6 =
            (0..setting.pool).map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x101 + u16::from(n)]));
        class.addresses = v4.chain(v6.filter(|_| setting.dual)).collect();
    }
    settings.clusters = vec![ConfiguredCluster {
        name: "e".parse().unwrap(),
        namespace: NS.to_owned(),
        selector: [("app".to_owned(), "e".to_owned())].into(),
        ports: Vec::new(),
        class: "default".to_owned(),
    }];
    let limits = &mut settings.limits;
    (limits.slots_per_cluster, limits.slots_per_namespace, limits.load_balancers) = setting.limits;
    settings
}

impl<'s> World<'s> {
    pub(crate) fn new(setting: &Setting, stats: &'s mut Stats) -> Self {
        let shared = Arc::new(settings(setting));
        let mut server = Server::default();
        server.clock = Duration::from_secs(1_000_000);
        server.create(
            Kind::Namespace,
            json!({"metadata": {"name": NS, "labels": {names::ENABLED_LABEL: "true"}}}),
        );
        let mut world = Self {
            server,
            replicas: [Replica::new(shared.clone()), Replica::new(shared)],
            limits: setting.limits,
            pool: setting.pool,
            pods: Pods::new(setting.dual),
            endpoints: Endpoints::default(),
            balancer: Balancer::new(setting.dual),
            zone: Zone::default(),
            stats,
        };
        world.replicas[0].lead(true);
        world
    }

    /// Takes a step; everything published or planned on the way has been judged.
    pub(crate) fn take(&mut self, step: Step) -> Verdict {
        if self.happens(step)? {
            self.stats.step(step);
        }
        self.replicas[0].agrees_with(&self.replicas[1])
    }

    /// Answers whether it changed something.
    fn happens(&mut self, step: Step) -> Result<bool, String> {
        let server = &mut self.server;
        let pod = |server: &Server, index: u8| server.nth(Kind::Pod, index).unwrap_or_default();
        Ok(match step {
            Step::Born { who, webhook, forged } => return self.born(who, webhook, forged),
            Step::Kubelet { pod: p } => {
                from(server.names(Kind::Pod), p).any(|name| self.pods.kubelet(server, &name))
            }
            Step::NewIp { pod: p } => self.pods.new_ip(server, &pod(server, p)),
            Step::Delete { pod: p } => Pods::delete(server, &pod(server, p)),
            Step::ForceDelete { pod: p } => self.pods.force_delete(server, &pod(server, p)),
            Step::Finish { pod: p, failed } => self.pods.finish(server, &pod(server, p), failed),
            Step::Ready { pod: p } => self.pods.ready(server, &pod(server, p)),
            Step::Move { pod: p, to } => pods::relabel(server, &pod(server, p), to),
            Step::CopyIdentity { from, to } => {
                let from = server.get(Kind::Pod, &pod(server, from)).cloned();
                let id = from.map(|p| p["metadata"]["labels"][names::POD_ID_LABEL].clone());
                let id = id.filter(Value::is_string);
                id.is_some() && pods::identify(server, &pod(server, to), id.as_ref())
            }
            Step::DropIdentity { pod: p } => pods::identify(server, &pod(server, p), None),
            Step::Ports { pod: p, ports } => pods::ports(server, &pod(server, p), ports),
            Step::EditService { service, edit } => edits::edit_service(server, service, edit),
            Step::Squat { slot, adopt } => edits::squat(server, slot, adopt),
            Step::EditSlice { slice, edit } => edits::edit_slice(server, slice, edit),
            Step::Balance { service, what } => {
                from(server.names(Kind::Service), service).any(|name| self.balancer.act(server, &name, what))
            }
            Step::Name { service, leads } => {
                from(server.names(Kind::Service), service).any(|name| self.name(&name, leads))
            }
            Step::Namespace { enabled } => self.enable(enabled),
            Step::EndpointsSee { pods, events } => self.endpoints.see(server, pods, events),
            Step::Endpoints { service } => {
                from(services(server), service).any(|name| self.endpoints.write(server, &name))
            }
            Step::Settle => return self.settle().map(|()| true),
            Step::Pass { seconds } => return self.pass(Duration::from_secs(seconds.into())).map(|()| true),
            _ => return self.happens_to_replica(step),
        })
    }

    fn happens_to_replica(&mut self, step: Step) -> Result<bool, String> {
        let Self { server, replicas, zone, stats, .. } = self;
        let (replica, happened) = match step {
            Step::Deliver { replica, feed, messages } => {
                let to = &mut replicas[usize::from(replica % 2)];
                (replica, (0..FEEDS).any(|n| to.deliver(server, feed.wrapping_add(n), messages.into())))
            }
            Step::Repeat { replica, feed } => {
                (replica, replicas[usize::from(replica % 2)].repeat(server, feed))
            }
            Step::Relist { replica, feed } => (replica, replicas[usize::from(replica % 2)].feed(feed).lose()),
            Step::Bookmark { replica, feed } => {
                (replica, replicas[usize::from(replica % 2)].bookmark(server, feed))
            }
            Step::CatchUp { replica, first } => return self.catch_up(replica, first),
            Step::Crash { replica } => {
                replicas[usize::from(replica % 2)].crash();
                (replica, true)
            }
            Step::Lead { replica, leads } => (replica, replicas[usize::from(replica % 2)].lead(leads)),
            Step::Ask { replica, which } => {
                let first = usize::from(replica % 2);
                let mut of = |n: usize| replicas[n].ask(zone, which);
                if of(first) { (replica, true) } else { (replica ^ 1, of(1 - first)) }
            }
            Step::Write { replica, which, fate } => {
                return Ok(self.write(replica, which, fate)? || self.write(replica ^ 1, which, fate)?);
            }
            Step::Answers { replica } => {
                let first = usize::from(replica % 2);
                let mut of = |n: usize| replicas[n].take_answers(server.clock);
                if of(first) { (replica, true) } else { (replica ^ 1, of(1 - first)) }
            }
            _ => return Ok(false),
        };
        replicas[usize::from(replica % 2)].look(server, stats)?;
        Ok(happened)
    }

    fn born(&mut self, who: u8, webhook: Webhook, forged: bool) -> Result<bool, String> {
        let Some(wanted) = Pods::wanted(&self.server, who, forged) else { return Ok(false) };
        let admitted = match webhook {
            Webhook::Absent => wanted,
            Webhook::Of(replica) => {
                let replica = &self.replicas[usize::from(replica % 2)];
                let admitted = replica.admit(&self.server, &wanted);
                Truth::new(&self.server.history, &replica.seen()).judge_stamp(&admitted)?;
                let stamped =
                    admitted["metadata"]["annotations"][names::STAMP_ADDRESS_ANNOTATION].is_string();
                self.stats.stamped += u64::from(stamped);
                admitted
            }
        };
        self.pods.store(&mut self.server, admitted);
        Ok(true)
    }

    /// DNS says something of the name of a Service's load balancer.
    fn name(&mut self, service: &str, leads: Leads) -> bool {
        let found = |name: &str| self.server.get(Kind::Service, name).map(|s| s.as_ref().clone());
        let Some(own) = found(service) else { return false };
        let host = balancer::host(own["metadata"]["uid"].as_str().unwrap());
        let to: Option<Value> = match leads {
            Leads::Home => Some(own),
            Leads::Astray { service } => {
                self.server.nth(Kind::Service, service).and_then(|name| found(&name))
            }
            Leads::Nowhere => None,
        };
        let ips = to.map_or_else(Vec::new, |service| self.balancer.addresses(&service));
        self.zone.lead(&host, ips)
    }

    fn enable(&mut self, enabled: bool) -> bool {
        self.server.edit(Kind::Namespace, NS, |n| {
            n["metadata"]["labels"][names::ENABLED_LABEL] = json!(if enabled { "true" } else { "false" });
        })
    }

    fn look(&mut self, replica: usize) -> Verdict {
        self.replicas[replica].look(&self.server, self.stats)
    }

    fn catch_up(&mut self, replica: u8, first: u8) -> Result<bool, String> {
        let mut happened = false;
        for feed in 0..FEEDS {
            let number = usize::from(replica % 2);
            happened |= self.replicas[number].deliver(&self.server, first.wrapping_add(feed), usize::MAX);
            self.look(number)?;
        }
        Ok(happened)
    }

    fn write(&mut self, replica: u8, which: u8, fate: Fate) -> Result<bool, String> {
        let number = usize::from(replica % 2);
        let requests = &mut self.replicas[number].requests;
        if requests.is_empty() {
            return Ok(false);
        }
        let request = requests.remove(usize::from(which) % requests.len());
        let nobody = Outcome::Unreachable("no answer".to_owned());
        let outcome = match fate {
            Fate::Lost => nobody,
            Fate::Refused => Outcome::Refused("exceeded quota".to_owned()),
            Fate::Answered => self.perform(&request.action, request.planned_from.as_ref())?,
            Fate::Unanswered => {
                self.perform(&request.action, request.planned_from.as_ref())?;
                nobody
            }
        };
        self.stats.conflicts += u64::from(outcome == Outcome::Conflict);
        self.replicas[number].answered(request, outcome);
        Ok(true)
    }

    /// No write is carried out on an object that has changed since it was planned.
    fn perform(&mut self, action: &Action, planned_from: Option<&Value>) -> Result<Outcome, String> {
        let found = action.service().and_then(|key| self.server.get(Kind::Service, &key.name)).cloned();
        let pod = match action {
            Action::LabelPod { key, uid, .. }
            | Action::LiftGate { key, uid, .. }
            | Action::MarkRouted { key, uid, .. } => {
                self.server.get(Kind::Pod, &key.name).is_some_and(|p| p["metadata"]["uid"] != **uid)
            }
            _ => false,
        };
        if let Action::AnnotateService {
            annotation: names::RESOLVED_ANNOTATION, value: Some(records), ..
        } = action
            && !self.zone.has_said(records)
        {
            return Err(format!("DNS has never said {records}"));
        }
        let outcome = self.server.perform(action);
        let stale = match (planned_from, &found) {
            (Some(version), Some(found)) => found["metadata"]["resourceVersion"] != *version,
            _ => false,
        };
        if outcome == Outcome::Done && (stale || pod) {
            return Err(format!(
                "carried out though its object has changed since it was planned: {action:?} on {found:?}"
            ));
        }
        Ok(outcome)
    }

    /// The cluster's controllers work, all messages and writes arrive, pods start; no time passes.
    fn settle(&mut self) -> Verdict {
        for _ in 0..200 {
            let mut changed = false;
            for name in self.server.names(Kind::Pod) {
                if self
                    .server
                    .get(Kind::Pod, &name)
                    .is_some_and(|p| p["metadata"]["deletionTimestamp"].is_null())
                {
                    changed |= self.pods.kubelet(&mut self.server, &name);
                }
            }
            for name in self.server.names(Kind::Service) {
                changed |= self.balancer.act(&mut self.server, &name, Balance::Serve);
            }
            changed |= self.write_all_slices();
            for replica in 0..2 {
                changed |= self.catch_up(replica, 0)?;
                while self.write(replica, 0, Fate::Answered)? {
                    changed = true;
                }
                changed |= self.replicas[usize::from(replica)].take_answers(self.server.clock);
                self.look(replica.into())?;
            }
            if !changed && self.replicas.iter().all(|r| r.requests.is_empty()) {
                return Ok(());
            }
        }
        let last: Vec<_> = self.server.log.iter().rev().take(6).map(|e| &e.after).collect();
        Err(format!("never settles; last changes: {last:?}"))
    }

    fn write_all_slices(&mut self) -> bool {
        self.endpoints.see_all(&self.server);
        let services = services(&self.server);
        let written = services.iter().filter(|name| self.endpoints.write(&mut self.server, name));
        written.count() > 0
    }

    /// Time passes; leaders look when they want to, connections without anything late are heard of.
    fn pass(&mut self, time: Duration) -> Verdict {
        let end = self.server.clock + time;
        for _ in 0..2000 {
            let now = self.server.clock;
            self.replicas.iter_mut().for_each(|r| r.hear(&self.server));
            let wake = self.replicas.iter().filter_map(|r| r.next_wake(now)).min().filter(|at| *at <= end);
            self.server.clock = wake.unwrap_or(end).max(now);
            for replica in 0..2 {
                self.replicas[replica].hear(&self.server);
                self.look(replica)?;
            }
            match wake {
                None => return Ok(()),
                Some(at)
                    if self
                        .replicas
                        .iter()
                        .any(|r| r.next_wake(self.server.clock).is_some_and(|w| w <= at)) =>
                {
                    return Err(format!("wakes at {at:?} again and again"));
                }
                Some(_) => {}
            }
        }
        Err("wakes too often".to_owned())
    }

    /// Nothing is disturbed any more and one replica leads: in the end all is as it shall be.
    pub(crate) fn quiet(&mut self) -> Verdict {
        self.replicas.iter().try_for_each(Replica::nothing_is_forgotten)?;
        let leader = usize::from(self.replicas[0].planner.is_none() && self.replicas[1].planner.is_some());
        self.replicas[1 - leader].lead(false);
        self.replicas[leader].lead(true);
        self.enable(true);
        let end = self.server.clock + Duration::from_secs(1500); // everything has rested, backed off and been retained
        while self.server.clock < end {
            edits::tidy(&mut self.server, self.pool > 0);
            self.pods.finish_what_has_begun(&mut self.server);
            self.balancer.repair(&mut self.server);
            self.settle()?;
            self.balancer.repair(&mut self.server);
            self.settle()?;
            let wake = self.replicas[leader].next_wake(self.server.clock);
            let next = wake.unwrap_or(end).max(self.server.clock + Duration::from_secs(1)).min(end);
            self.pass(next.saturating_sub(self.server.clock))?;
        }
        self.settle()?;
        self.all_is_well()
    }

    fn all_is_well(&self) -> Verdict {
        let truth = Truth::new(&self.server.history, &Seen::all(self.server.version()));
        let (cluster, namespace, all) = self.limits;
        let pool = self.pool.into();
        let limits = [("cluster", cluster), ("namespace", namespace), ("installation", all), ("pool", pool)];
        let limits = limits.into_iter().map(|(name, limit)| (name, limit as usize)).collect();
        truth.nobody_asks_for_anothers()?;
        for replica in &self.replicas {
            replica.nothing_is_forgotten()?;
            replica.plans_nothing(self.server.clock)?;
            truth.nobody_is_left_out(&replica.documents(), &limits)?;
        }
        if self.replicas[0].documents() == self.replicas[1].documents() {
            return Ok(());
        }
        Err(format!(
            "the replicas differ: {:?}",
            [&self.replicas[0], &self.replicas[1]].map(Replica::documents)
        ))
    }
}

/// Services there are, and those whose slices are left.
fn services(server: &Server) -> Vec<String> {
    let mut services = server.names(Kind::Service);
    services.extend(server.names(Kind::Slice).iter().filter_map(|s| Some(s.rsplit_once('-')?.0.to_owned())));
    services
}

/// All, beginning with one of them.
fn from(mut names: Vec<String>, first: u8) -> impl Iterator<Item = String> {
    let middle = usize::from(first) % names.len().max(1);
    names.rotate_left(middle);
    names.into_iter()
}
