//! What happens without anybody's doing: all that is under way arrives, time passes, and in the end all is as it shall be.

use std::sync::Arc;
use std::time::Duration;

use super::{World, services};
use crate::edits;
use crate::judge::{Kind, Seen, Truth, Verdict};
use crate::nodes;
use crate::replica::Replica;
use crate::step::{Balance, Fate};

impl World<'_> {
    /// The cluster's controllers work, all messages and writes arrive, pods start; no time passes.
    pub(super) fn settle(&mut self) -> Verdict {
        self.one_configuration_leads();
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

    /// Two leaders of different configurations would take turns for as long as both believe that they lead.
    fn one_configuration_leads(&mut self) {
        let [one, other] = &self.replicas;
        if one.planner.is_some() && other.planner.is_some() && !one.is_configured_like(other) {
            let current = self.setting.settings();
            let former = usize::from(self.replicas[0].has(&current));
            self.replicas[former].lead(false);
        }
    }

    fn write_all_slices(&mut self) -> bool {
        self.endpoints.see_all(&self.server);
        let services = services(&self.server);
        let written = services.iter().filter(|name| self.endpoints.write(&mut self.server, name));
        written.count() > 0
    }

    /// Time passes; leaders look when they want to, connections without anything late are heard of.
    pub(super) fn pass(&mut self, time: Duration) -> Verdict {
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
        let settings = Arc::new(self.setting.settings());
        for replica in self.replicas.iter_mut().filter(|r| !r.has(&settings)) {
            replica.crash(settings.clone());
        }
        self.replicas[leader].lead(true);
        let end = self.server.clock + Duration::from_secs(1500); // everything has rested, backed off and been retained
        while self.server.clock < end {
            nodes::restore(&mut self.server, self.setting.dual);
            edits::tidy(&mut self.server, self.has_had_pool);
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
        let promise = self.setting.promise();
        truth.nobody_asks_for_anothers()?;
        for replica in &self.replicas {
            replica.nothing_is_forgotten()?;
            replica.plans_nothing(self.server.clock)?;
            truth.nobody_is_left_out(&replica.documents(), &promise)?;
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
