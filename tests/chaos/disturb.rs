//! What breaks. Each disturbance notes when it began and ended; the oracle judges by these notes how long recovery took.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use local_cluster::Component;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::churn::NAMESPACES;
use crate::rig::Rig;
use crate::support::https;
use crate::support::proxy::Wire;
use crate::support::within;

/// For everything that has a limit of its own and is far below this one.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// Somebody else writes selectors and annotations of our Services.
    Edits,
    /// Pods are born without it.
    WebhookUnreachable,
    /// SIGSTOP for less than the lease's duration: its writes come late.
    LeaderPaused,
    /// And for longer: it goes on as a leader that was deposed.
    LeaderPausedForLong,
    /// kill -9.
    LeaderKilled,
    /// Killed; etcd is compacted before it comes back, so watches cannot go on where they were.
    ApiServerRestarted,
    /// Its packets are dropped until it says that it is not ready.
    ReplicaCutOff,
    /// Renewals take effect, and nobody hears of it.
    LeaseAnswersSwallowed,
    /// The leader's wall clock jumps hours ahead, then behind.
    ClockStepped,
    /// Every replica is ended by SIGTERM and started again, one after the other.
    Updated,
}

impl Disturbance {
    pub(crate) const ALL: [Self; 10] = [
        Self::Edits,
        Self::WebhookUnreachable,
        Self::LeaderPaused,
        Self::ReplicaCutOff,
        Self::LeaderKilled,
        Self::ClockStepped,
        Self::ApiServerRestarted,
        Self::LeaseAnswersSwallowed,
        Self::Updated,
        Self::LeaderPausedForLong,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Edits => "Services edited",
            Self::WebhookUnreachable => "webhook unreachable",
            Self::LeaderPaused => "leader paused",
            Self::LeaderPausedForLong => "leader paused for long",
            Self::LeaderKilled => "leader killed",
            Self::ApiServerRestarted => "API server restarted",
            Self::ReplicaCutOff => "replica cut off",
            Self::LeaseAnswersSwallowed => "lease answers swallowed",
            Self::ClockStepped => "clock stepped",
            Self::Updated => "updated",
        }
    }

    /// Whether pods may be born unstamped meanwhile: nobody is there who could answer, or the API server does not know yet.
    fn costs_admission(self) -> bool {
        !matches!(self, Self::Edits | Self::LeaseAnswersSwallowed | Self::ClockStepped | Self::Updated)
    }
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

impl Rig {
    /// Does it, waits until it is over, notes it.
    pub(crate) async fn disturb(&mut self, disturbance: Disturbance) {
        self.say(disturbance.name());
        let begin = now();
        let replica = match disturbance {
            Disturbance::Edits => self.edit().await,
            Disturbance::WebhookUnreachable => self.close_front().await,
            Disturbance::LeaderPaused => self.pause(Duration::from_secs(3)).await,
            Disturbance::LeaderPausedForLong => self.pause(Duration::from_secs(18)).await,
            Disturbance::LeaderKilled => self.kill().await,
            Disturbance::ApiServerRestarted => self.restart_api_server().await,
            Disturbance::ReplicaCutOff => self.cut_off().await,
            Disturbance::LeaseAnswersSwallowed => self.swallow().await,
            Disturbance::ClockStepped => self.step_clock().await,
            Disturbance::Updated => self.update().await,
        };
        let note = json!({"kind": disturbance.name(), "replica": replica, "begin": begin, "end": now(),
            "costs_admission": disturbance.costs_admission()});
        self.notes.push(note);
    }

    /// The leader's place among the replicas.
    async fn leader(&self) -> usize {
        within(PATIENCE, "a replica leads", async || {
            for (index, replica) in self.replicas.iter().enumerate() {
                if replica.leads().await {
                    return Ok(index);
                }
            }
            Err("nobody".to_owned())
        })
        .await
    }

    async fn edit(&self) -> Option<&'static str> {
        for round in 0..10 {
            let namespace = NAMESPACES[fastrand::usize(..NAMESPACES.len())];
            let path = format!("/api/v1/namespaces/{namespace}/services");
            let names = self.api.names(&format!("{path}?labelSelector=external-ip.dev/slot")).await;
            let Some(name) = fastrand::choice(&names) else { continue };
            let other = fastrand::choice(&names).expect("there is one");
            let path = |name: &str| format!("{path}/{name}");
            let edit = if round % 2 == 0 {
                // another slot's pod
                json!({"spec": {"selector": self.api.get(&path(other)).await.body["spec"]["selector"]}})
            } else {
                let key = fastrand::choice(["external-ip.dev/pod", "example.com/touched"]).expect("one");
                json!({"metadata": {"annotations": {key: format!("{round}")}}})
            };
            let answer = self.api.patch(&path(name), &edit).await;
            assert!(answer.status.is_success() || answer.status == 404, "{}", answer.body);
            sleep(Duration::from_millis(100)).await;
        }
        None
    }

    async fn close_front(&self) -> Option<&'static str> {
        self.front.set_open(false);
        let born = self.born();
        within(PATIENCE, "pods are born without the webhook", async || {
            if self.born() > born + 5 { Ok(()) } else { Err(format!("{} since {born}", self.born())) }
        })
        .await;
        self.front.set_open(true);
        None
    }

    async fn pause(&self, time: Duration) -> Option<&'static str> {
        let replica = &self.replicas[self.leader().await];
        replica.product.signal("STOP");
        sleep(time).await;
        replica.product.signal("CONT");
        Some(replica.name)
    }

    async fn kill(&mut self) -> Option<&'static str> {
        let leader = self.leader().await;
        self.replicas[leader].product.signal("KILL");
        sleep(Duration::from_millis(fastrand::u64(500..3000))).await;
        self.replicas[leader].again(&self.cluster, None);
        None
    }

    async fn restart_api_server(&self) -> Option<&'static str> {
        self.cluster.kill(Component::ApiServer).unwrap();
        self.compact().await;
        self.cluster.start(Component::ApiServer).unwrap();
        within(PATIENCE, "the API server is ready", async || {
            let ask = self.api.try_send(http::Method::GET, "/readyz", None, "application/json");
            match ask.await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        // it waits for long after an outage; a kubelet would start it again
        self.cluster.kill(Component::MetalLb).unwrap();
        self.cluster.start(Component::MetalLb).unwrap();
        None
    }

    /// etcd forgets every revision but the present one.
    async fn compact(&self) {
        let etcd = self.cluster.etcd_address().unwrap();
        let answer = https::post_plain(etcd, "/v3/kv/range", &json!({"key": "bm9uZQ=="})).await.unwrap();
        let revision = answer.json()["header"]["revision"].clone();
        let compacted =
            https::post_plain(etcd, "/v3/kv/compaction", &json!({"revision": revision, "physical": true}))
                .await;
        assert_eq!(compacted.unwrap().status, 200);
    }

    async fn cut_off(&self) -> Option<&'static str> {
        let leader = self.leader().await;
        let replica = &self.replicas[fastrand::usize(..self.replicas.len())];
        let cut = Instant::now();
        replica.wire.set(Wire::Silent);
        within(PATIENCE, "a replica that is cut off is not ready any more", async || {
            let ready = replica.product.admin("/readyz").await;
            if ready.status == 503 { Ok(()) } else { Err(ready.body) }
        })
        .await;
        self.say(&format!(
            "{} ({}) is not ready {:.1} s after it was cut off",
            replica.name,
            if replica.name == self.replicas[leader].name { "the leader" } else { "a follower" },
            cut.elapsed().as_secs_f32()
        ));
        // connections from before are dead for good
        replica.wire.set(Wire::Cut);
        replica.wire.set(Wire::Open);
        replica.product.ready().await;
        Some(replica.name)
    }

    async fn swallow(&self) -> Option<&'static str> {
        let replica = &self.replicas[self.leader().await];
        let before = replica.gateway.swallow_lease_answers(true);
        within(PATIENCE, "a leader that hears nothing of its lease stops to lead", async || {
            if replica.leads().await { Err("it leads".to_owned()) } else { Ok(()) }
        })
        .await;
        let swallowed = replica.gateway.swallow_lease_answers(false) - before;
        assert!(swallowed > 0, "no answer was swallowed");
        None
    }

    async fn step_clock(&self) -> Option<&'static str> {
        const HOURS: i64 = 5 * 3600;
        let replica = &self.replicas[self.leader().await];
        for offset in [HOURS, -HOURS, 0] {
            replica.clock.step(offset);
            within(
                PATIENCE,
                "the lease was renewed under the stepped clock by the same leader",
                async || {
                    let lease = self.lease().await;
                    let (holder, renewed) = (&lease["holderIdentity"], &lease["renewTime"]);
                    let holder = holder.as_str().unwrap_or_default();
                    assert!(
                        holder.starts_with(&format!("{}_", replica.name)),
                        "a step of the clock cost the lease"
                    );
                    let renewed: jiff::Timestamp = renewed.as_str().unwrap_or_default().parse().unwrap();
                    let shift = renewed.as_second() - jiff::Timestamp::now().as_second();
                    if (shift - offset).abs() < 60 { Ok(()) } else { Err(format!("{shift} s")) }
                },
            )
            .await;
        }
        Some(replica.name)
    }

    async fn lease(&self) -> Value {
        const LEASE: &str =
            "/apis/coordination.k8s.io/v1/namespaces/external-ip-controller/leases/external-ip-controller";
        self.api.get(LEASE).await.ok()["spec"].clone()
    }

    async fn update(&mut self) -> Option<&'static str> {
        for index in 0..self.replicas.len() {
            self.replicas[index].product.signal("TERM");
            let (status, took) = self.replicas[index].product.ended(PATIENCE).await;
            assert!(status.success(), "{status}\n{}", self.replicas[index].product.log());
            self.say(&format!(
                "{} has ended {:.1} s after SIGTERM",
                self.replicas[index].name,
                took.as_secs_f32()
            ));
            self.replicas[index].again(&self.cluster, None);
            self.replicas[index].product.ready().await;
        }
        None
    }
}
