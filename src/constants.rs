//! Every time limit and size limit of the process, in one place. Each says what it trades, and against which other
//! constant it is measured.

use std::time::Duration;

/// How long a Lease counts after its last renewal. Shorter: less time without a writer after a `kill -9`. Longer:
/// fewer needless hand-overs when the API server is slow. More than [`LEASE_RENEW_DEADLINE`], so that the old leader
/// has stopped before another one may begin.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long a leader goes on without a renewal that succeeded. The gap to [`LEASE_DURATION`] must hold one
/// [`WRITE_TIMEOUT`]: a write begun at the last moment has its answer before another replica may write.
pub const LEASE_RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Between two attempts to get or renew the Lease. Two writes a second at the API server against a hand-over that
/// takes this long at most; several must fit into [`LEASE_RENEW_DEADLINE`].
pub const LEASE_RETRY: Duration = Duration::from_secs(2);

/// For one write to the API server. Admission chains with slow webhooks need seconds; a hanging server must not hold
/// the writer longer than the gap between [`LEASE_RENEW_DEADLINE`] and [`LEASE_DURATION`].
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one watch request runs before it is renewed. A renewal is the proof that the API server still answers, so
/// it is less than [`STALE_AFTER`] by more than one slow answer; shorter would cost requests for nothing.
pub const WATCH_RENEWAL: Duration = Duration::from_secs(20);

/// A feed that has been silent for this long makes the replica not ready and takes addresses out of its stamps.
/// Shorter: a cut-off replica leaves its Service sooner. Longer: a slow API server does not empty the Service. More
/// than [`WATCH_RENEWAL`].
pub const STALE_AFTER: Duration = Duration::from_secs(30);

/// Quiet time before a changed ConfigMap is written. A rollout changes the map in bursts, and each write is a
/// transfer to every node that mounts it; kubelets look every minute or so, so this costs readers nothing.
pub const CONFIG_MAP_DEBOUNCE: Duration = Duration::from_millis(200);

/// The longest a ConfigMap waits for that quiet time, so that steady change does not hold it back for ever.
pub const CONFIG_MAP_DEBOUNCE_MAX: Duration = Duration::from_secs(2);

/// What the registration allows an admission call to take (`timeoutSeconds`). Our own answer takes microseconds; this
/// bounds what a dead replica costs every new pod. Set in the manifests, not by the process: a test compares them.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// From SIGTERM until the listeners take no more connections. Nodes and API servers learn a moment later than we do that
/// this pod is going; until then reviews and readers still come here and must be answered. With [`DRAIN`] it fits into
/// the pod's grace period (30 s).
pub const LINGER: Duration = Duration::from_secs(4);

/// From the end of [`LINGER`] until connections that are still open are closed. Readers with a long request move to the other
/// replica meanwhile. Less than the pod's `terminationGracePeriodSeconds` (30 s), which ends in SIGKILL.
pub const DRAIN: Duration = Duration::from_secs(20);

/// From the first byte of a connection until TLS is up. Three round trips at one second each fit; a client that
/// trickles its handshake holds a connection no longer than this.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// From the first byte of a request until its headers are complete, and at once the longest an HTTP/1.1 connection
/// stays open without a request. The API server keeps its webhook connections (HTTP/2, [`HTTP2_PING`]) for as long as
/// they are of use; others come back at the price of a handshake.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// From the first byte of a body until it is complete. Less than [`HEADER_TIMEOUT`]: nobody who sends a review may be
/// this slow, the API server gives up after [`WEBHOOK_TIMEOUT`].
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval of HTTP/2 pings on a silent connection, and how long their answer may take. Finds peers that vanished
/// without a FIN (a node that lost power) so that they do not count against the connection cap for ever.
pub const HTTP2_PING: Duration = Duration::from_secs(30);

/// An HTTP/2 connection without any request in flight is closed gracefully after this. A cap alone would let idle
/// clients lock others out; longer than the usual polling interval of readers (60 s), so that those keep theirs.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the peer's kernel may leave sent bytes unacknowledged, or its receive window shut (`TCP_USER_TIMEOUT`), and
/// how long an HTTP/2 client may leave the next piece of an answer untaken. Ends answers to clients that stopped reading, or are gone; the system's default is a quarter of an hour.
pub const STALLED_PEER: Duration = Duration::from_secs(30);

/// Streams one HTTP/2 connection may have open at once. The API server sends all reviews over one connection; 250 is
/// what Go's own server allows.
pub const HTTP2_STREAMS: u32 = 250;

/// Bytes an HTTP/2 client may send ahead of what is read, per stream and per connection. Reviews have 5 to 50 kB, so
/// nobody honest waits for a window; times [`CONNECTIONS`], it bounds what unread bytes can cost.
pub const HTTP2_WINDOWS: (u32, u32) = (64 << 10, 128 << 10);

/// For the end of a connection that was closed for being idle: its client has been told, and what it has not read by
/// then it will not read. One round trip of the slowest network is a second or so.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's headers, all names and values together. A bearer token may take [`TOKEN_BYTES`] of it.
pub const HEADER_BYTES: usize = 16 << 10;

/// Header fields of a request over HTTP/1.1. Ours need six.
pub const HEADERS: usize = 100;

/// HTTP/2 streams a client may reset before we have looked at them. Above it the connection ends: making requests and
/// taking them back costs a client nothing and us a task each ("rapid reset", CVE-2023-44487).
pub const HTTP2_RESETS: usize = 20;

/// HTTP/2 streams that may end by the client's mistakes, until its connection ends.
pub const HTTP2_ERRORS: usize = 100;

/// Bytes of answers that wait per HTTP/2 stream for a client to read them. A document is one piece that all streams
/// share, so this costs only its copies in flight.
pub const HTTP2_SEND_BUFFER: usize = 64 << 10;

/// Connections of one listener at once; one more ends the one that is least of use. Each costs some 20 to 40 kB (TLS and
/// HTTP buffers). A flood at one listener leaves the others alone.
pub const CONNECTIONS: usize = 512;

/// The same of the mapping listener, whose readers stay: 1 000 of them on each of two replicas still fit on one. At some 40 kB
/// each that is 80 MB, beside 100 MB for 10 000 pods and the other listeners, in a container of 256 MiB.
pub const MAPPING_CONNECTIONS: usize = 2048;

/// Handshakes at the mapping listener at once. Readers of a replica that stops come back within [`WATCH_RETURN`]; half of
/// [`MAPPING_CONNECTIONS`], so that a flood of handshakes leaves those who read alone.
pub const MAPPING_HANDSHAKES: usize = 1024;

/// Handshakes of one listener at once; one more ends the oldest of the address that has most of them. An honest client
/// is through in milliseconds: a flood can neither use up [`CONNECTIONS`] nor keep an honest one waiting.
pub const HANDSHAKES: usize = 128;

/// First wait after `accept` failed for want of descriptors or memory; doubled up to [`ACCEPT_BACKOFF_MAX`]. Without
/// it the loop would spin, as the pending connection stays in the queue.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(5);

/// Longest wait of that kind. Less than a client's patience: descriptors come back as connections end.
pub const ACCEPT_BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Largest admission review. etcd takes objects of 1.5 MiB and the API server requests of 3 MiB; a review carries the
/// pod once at CREATE, re-encoded as JSON, which may be somewhat larger than the protobuf it came as. 4 MiB is above
/// anything the API server can send, so that no pod is left out for its size, and small enough that the reviews of
/// all HTTP/2 streams a client could fill are bounded by [`REVIEW_BYTES_IN_FLIGHT`].
pub const REVIEW_BYTES: usize = 4 << 20;

/// Bytes of reviews held in memory at once. Real reviews have 5 to 50 kB; only hostile or absurd ones make others
/// wait. Several of [`REVIEW_BYTES`], and far less than the container's memory limit (256 MiB).
pub const REVIEW_BYTES_IN_FLIGHT: usize = 32 << 20;

/// How long a request that names a position waits for a replica that is behind it. Watches are milliseconds apart when
/// all is well; a client would rather ask another replica than wait longer. Less than a client's usual 10 s timeout.
pub const POSITION_WAIT: Duration = Duration::from_secs(5);

/// Requests that wait for a position at once: all readers of another replica that has stopped. Each is a parked task of
/// about 2 kB.
pub const POSITION_WAITERS: usize = MAPPING_CONNECTIONS;

/// The longest an answer is held that a reader wants to wait for (`?wait=`). Less than the 60 s after which many proxies and
/// load balancers end a connection on which nothing is said.
pub const WAIT_MAX: Duration = Duration::from_secs(55);

/// Answers held at once, over all connections of the mapping listener: an HTTP/2 connection alone may have
/// [`HTTP2_STREAMS`]. Each is a parked task of some kilobytes.
pub const HELD_ANSWERS: usize = 4096;

/// Between two words to a reader of `/v1/watch` for whom there is nothing new. Several within the 60 s after which many proxies
/// and load balancers end a silent connection, and within [`STALLED_PEER`], so that readers that are gone are found.
pub const WATCH_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often the right of a reader of `/v1/watch` is looked at again. With [`ACCESS_CACHE`] it is how long a withdrawn right still
/// reads; a thousand readers, each with a token of its own, cost the API server some 70 reviews a second.
pub const WATCH_ACCESS: Duration = Duration::from_secs(30);

/// Pause of a reader of `/v1/watch` after each kilobyte it was sent: 4 MB a second for one reader at most. A cluster's document
/// follows the next change at once; the map of 10 000 pods, of 3 MB, once a second.
pub const WATCH_PACE: Duration = Duration::from_micros(250);

/// Within this time readers of a replica that stops come back to another one, each at a moment of its own: a thousand
/// handshakes in one moment would keep everybody waiting.
pub const WATCH_RETURN: Duration = Duration::from_secs(5);

/// Smallest document that is compressed. Below it an answer is one packet with or without.
pub const GZIP_FROM: usize = 1024;

/// How often the leader looks which external addresses are due to be dialled. A pod that has just become reachable is known
/// to be this much later, and a round is not begun before the last one has ended.
pub const DIAL_LOOK: Duration = Duration::from_secs(1);

/// Addresses dialled at once. With a dial's timeout of 3 s, a thousand addresses that swallow everything take three
/// minutes; more at once would look like a scan.
pub const DIALS_AT_ONCE: usize = 16;

/// How often the leader looks which names of load balancers are due to be asked for: a name that has just been given waits
/// this much longer.
pub const NAMES_LOOK: Duration = Duration::from_secs(1);

/// Names asked for at once, each with two questions (IPv4 and IPv6). A name server of a cluster answers in a millisecond
/// from its cache; a thousand names whose servers are silent take ten minutes ([`NAME_TIMEOUT`]).
pub const NAMES_AT_ONCE: usize = 16;

/// For one question at one name server, over UDP and, where the answer is cut off, TCP. A resolver that has to ask the
/// root takes a second or so.
pub const NAME_TIMEOUT: Duration = Duration::from_secs(2);

/// Name servers asked for one name, and how often each: with [`NAME_TIMEOUT`] a name nobody answers for takes 8 s.
pub const NAME_SERVERS: usize = 2;
/// Packets get lost.
pub const NAME_ATTEMPTS: usize = 2;

/// Bytes of an answer over TCP. Some 200 addresses; a load balancer has a few.
pub const NAME_ANSWER_BYTES: usize = 4096;

/// Questions about single pods that wait for the state loop at once. Each costs it some microseconds, between batches of
/// updates; more of them are answered 503 rather than put in the way of the map.
pub const POD_QUESTIONS: usize = 64;

/// `Retry-After` of answers 503. Long enough that a fleet of clients does not hammer a replica that cannot answer, and
/// short enough that nobody notices once it can.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How long the answer to a token review or an access review counts. Two API calls per reader and period, against the
/// time a withdrawn right still works.
pub const ACCESS_CACHE: Duration = Duration::from_secs(10);

/// Answers kept: tokens and rights together. About 200 bytes each; a flood of invented tokens turns the cache over and
/// cannot grow it.
pub const ACCESS_CACHE_SIZE: usize = 4096;

/// For one review at the API server. Longer than any healthy one by two orders, shorter than a client's patience.
pub const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Reviews under way at once: a flood of invented tokens must not become a flood at the API server.
pub const REVIEWS_IN_FLIGHT: usize = 16;

/// Reviews about readers who were never let in: this many at once, then one per [`REVIEWS_INTERVAL`]. A fleet of readers
/// that starts together needs two each; a flood of invented tokens costs the API server no more than this.
pub const REVIEWS_BURST: u32 = 400;

/// 100 such reviews a second: what an API server answers with a few hundredths of a core. It also bounds how fast
/// invented tokens fill the cache: [`ACCESS_CACHE_SIZE`] takes longer than [`ACCESS_CACHE`] by far.
pub const REVIEWS_INTERVAL: Duration = Duration::from_millis(10);

/// Life of the self-managed CA. Clients outside pin it, so it outlives installations.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Life of a leaf. It never leaves the process's memory; long enough that a process that nobody restarts renews it a
/// few times a year, short enough that a stolen one ends.
pub const LEAF_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// How far back a new certificate's life begins: clocks of clients and nodes differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Between two looks at mounted certificate files. Kubelets take up to a minute or so to swap them anyway; two `stat`
/// calls per look.
pub const FILES_POLL: Duration = Duration::from_secs(5);

/// Between two looks at the CA's Secret. One GET per replica and period, against the time replicas may differ after
/// a rotation's step. Less than [`FORMER_AUTHORITY`].
pub const AUTHORITY_POLL: Duration = Duration::from_secs(20);

/// A CA with less life than this is replaced by itself. Longer than [`NEXT_AUTHORITY`] by half a year, for the case that
/// something hinders it.
pub const AUTHORITY_RENEWAL: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long a CA that is made by itself is published before it signs: clients outside pin the CA and people have to
/// bring them the next one. Who asks for a rotation says how long.
pub const NEXT_AUTHORITY: Duration = Duration::from_secs(180 * 24 * 3600);

/// From when the next CA has been seen everywhere until it signs: API servers learn of a changed registration by
/// their own watch, in milliseconds as a rule.
pub const BUNDLE_SETTLES: Duration = Duration::from_secs(10);

/// How long the former CA is trusted once it signs no more. By then each replica has looked ([`AUTHORITY_POLL`]), or
/// was cut off for [`STALE_AFTER`] and has left its Services, so that nobody meets a certificate of it. Longer would
/// serve whoever has stolen its key.
pub const FORMER_AUTHORITY: Duration = Duration::from_secs(60);

/// Between two attempts while there is no CA yet. A replica that starts is not ready for this long at most after the
/// API server has come back.
pub const AUTHORITY_RETRY: Duration = Duration::from_secs(2);

/// How long the last answer about a token or a right still counts while the API server cannot be asked, from the time
/// it was given. The map is served through an outage of the API server, and its readers must be able to read it then;
/// a right that is withdrawn while this replica is cut off works for so much longer at most.
pub const ACCESS_OUTAGE: Duration = Duration::from_secs(600);

/// How long a failure to ask counts as an answer. Readers get the last answer, or 503, at once instead of one timeout
/// each; less than [`ACCESS_CACHE`].
pub const REVIEW_RETRY: Duration = Duration::from_secs(2);

/// Longest bearer token. Tokens of service accounts have about 1 kB, those of identity providers a few.
pub const TOKEN_BYTES: usize = 12 << 10;

/// Between two looks at the webhook's registration though nothing has changed here: somebody may have applied it anew,
/// without the bundle. Until then new pods are not stamped but adopted, against one GET per look.
pub const REGISTRATION_POLL: Duration = Duration::from_secs(60);

/// After a look that failed, or another writer's change. Less than [`REGISTRATION_POLL`]: the API server is there again
/// sooner.
pub const REGISTRATION_RETRY: Duration = Duration::from_secs(2);

/// How often the log repeats that there is no registration. Many of [`REGISTRATION_POLL`]: who runs without a webhook
/// on purpose keeps a readable log, who does not finds the line within the last hour.
pub const REGISTRATION_REMINDER: Duration = Duration::from_secs(3600);

/// How long `cleanup` waits for objects that others have to release first: a cloud's load balancer takes a minute or
/// two. Less than the time limits of the Jobs that run it, so that its last line says who is waited for.
pub const CLEANUP_PATIENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    /// The number behind `name:` wherever a manifest says it.
    fn said(manifest: &str, name: &str) -> Vec<u64> {
        let file = format!("{}/manifests/{manifest}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).unwrap();
        let values = text.lines().filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
        values.map(|value| value.split_whitespace().next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn the_manifests_say_what_the_constants_count_on() {
        for file in ["base/webhook.yaml", "examples/webhook-by-url.yaml"] {
            assert_eq!(said(file, "timeoutSeconds"), [WEBHOOK_TIMEOUT.as_secs()], "{file}");
        }
        let grace = said("base/deployment.yaml", "terminationGracePeriodSeconds");
        assert!(grace.len() == 1 && (LINGER + DRAIN).as_secs() + 5 < grace[0], "{grace:?}");
    }

    #[test]
    fn each_constant_leaves_room_for_the_one_it_is_measured_against() {
        assert!(LEASE_RENEW_DEADLINE + WRITE_TIMEOUT <= LEASE_DURATION);
        assert!(LEASE_RETRY * 3 < LEASE_RENEW_DEADLINE);
        assert!(WATCH_RENEWAL + WRITE_TIMEOUT < STALE_AFTER);
        assert!(AUTHORITY_POLL < FORMER_AUTHORITY && STALE_AFTER < FORMER_AUTHORITY);
        assert!(NEXT_AUTHORITY < AUTHORITY_RENEWAL && AUTHORITY_RENEWAL < AUTHORITY_LIFE);
        assert!(WATCH_KEEP_ALIVE < STALLED_PEER && WATCH_KEEP_ALIVE * 2 < WAIT_MAX);
        assert!(REVIEW_RETRY < ACCESS_CACHE && ACCESS_CACHE < ACCESS_OUTAGE);
        const { assert!(MAPPING_HANDSHAKES * 2 <= MAPPING_CONNECTIONS && MAPPING_CONNECTIONS <= HELD_ANSWERS) };
        const { assert!(REVIEW_BYTES < REVIEW_BYTES_IN_FLIGHT && TOKEN_BYTES < HEADER_BYTES) };
        assert!(BODY_TIMEOUT < HEADER_TIMEOUT && CONFIG_MAP_DEBOUNCE < CONFIG_MAP_DEBOUNCE_MAX);
        assert!(REGISTRATION_RETRY < REGISTRATION_POLL && REGISTRATION_POLL < REGISTRATION_REMINDER);
    }
}
