//! Everything together: one API server, the cluster's own controllers, two replicas, and the steps.

mod quiet;

use std::sync::Arc;
use std::time::Duration;

use external_ip_core::action::{Action, Outcome};
use external_ip_core::names;
use serde_json::{Value, json};

use crate::balancer::{self, Balancer};
use crate::class::Setting;
use crate::edits;
use crate::endpoints::{self, Endpoints};
use crate::judge::{Kind, Truth, Verdict};
use crate::nodes;
use crate::pods::{self, Pods};
use crate::replica::{FEEDS, Replica};
use crate::server::{NS, Server};
use crate::stats::Stats;
use crate::step::{Fate, Leads, Step, Webhook};
use crate::zone::Zone;

pub(crate) struct World<'s> {
    pub(crate) server: Server,
    pub(crate) replicas: [Replica; 2],
    setting: Setting,
    /// Some class has had static addresses.
    has_had_pool: bool,
    pods: Pods,
    endpoints: Endpoints,
    balancer: Balancer,
    zone: Zone,
    stats: &'s mut Stats,
}

impl<'s> World<'s> {
    pub(crate) fn new(setting: &Setting, stats: &'s mut Stats) -> Self {
        let shared = Arc::new(setting.settings());
        let mut server = Server::default();
        server.clock = Duration::from_secs(1_000_000);
        server.create(
            Kind::Namespace,
            json!({"metadata": {"name": NS, "labels": {names::ENABLED_LABEL: "true"}}}),
        );
        nodes::restore(&mut server, setting.dual);
        let mut world = Self {
            server,
            replicas: [Replica::new(shared.clone()), Replica::new(shared)],
            setting: *setting,
            has_had_pool: setting.promise().pool > 0,
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
            Step::Born { who, ports, webhook, forged } => {
                let Some(wanted) = Pods::wanted(server, who, ports, forged) else { return Ok(false) };
                return self.born(wanted, webhook);
            }
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
            Step::Share { pod: p, with } => pods::share(server, &pod(server, p), with),
            Step::Node { node, change } => nodes::change(server, node, change, self.setting.dual),
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
        if let Step::Configure { class, .. } = step {
            self.setting.class = class;
            self.has_had_pool |= self.setting.promise().pool > 0;
        }
        let settings = || Arc::new(self.setting.settings());
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
            Step::Crash { replica } | Step::Configure { replica, .. } => {
                replicas[usize::from(replica % 2)].crash(settings());
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

    fn born(&mut self, wanted: Value, webhook: Webhook) -> Result<bool, String> {
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
        if let Outcome::Refused(why) = &outcome {
            return Err(format!("the API server refuses {action:?}: {why}"));
        }
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
}

/// Services there are, and those whose slices are left.
fn services(server: &Server) -> Vec<String> {
    let mut services = server.names(Kind::Service);
    services.extend(server.all(Kind::Slice).filter_map(|s| Some(endpoints::owner(s)?.to_owned())));
    services
}

/// All, beginning with one of them.
fn from(mut names: Vec<String>, first: u8) -> impl Iterator<Item = String> {
    let middle = usize::from(first) % names.len().max(1);
    names.rotate_left(middle);
    names.into_iter()
}
