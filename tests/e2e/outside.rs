//! The client outside: a thread that lives in the network beyond the load balancer, which has no route to pods or
//! `ClusterIP`s. What it connects to has been reached by an external address.

use std::fs::File;
use std::future::Future;
use std::os::fd::AsFd;
use std::sync::mpsc;

use local_cluster::Cluster;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Handle};

/// Runs futures out there.
pub(crate) struct Outside {
    runtime: Handle,
}

impl Outside {
    pub(crate) fn enter(cluster: &Cluster) -> Self {
        let network = client_network(cluster);
        let (send, runtime) = mpsc::channel();
        std::thread::spawn(move || {
            // of this thread alone: sockets belong to the network of the thread that makes them
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter the client's network");
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            send.send(runtime.handle().clone()).unwrap();
            runtime.block_on(std::future::pending::<()>());
        });
        Self { runtime: runtime.recv().expect("the client's thread runs") }
    }

    /// Runs it to its end.
    pub(crate) fn run<F>(&self, what: F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let (send, answer) = mpsc::channel();
        self.runtime.spawn(async move {
            let _ = send.send(what.await);
        });
        answer.recv().expect("what runs outside does not panic")
    }

    /// Runs beside the test.
    pub(crate) fn spawn<F>(&self, what: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.runtime.spawn(what)
    }
}

fn client_network(cluster: &Cluster) -> File {
    let processes = cluster.processes().unwrap();
    let holder = processes.iter().find(|process| process.component == "client").expect("a client outside");
    File::open(format!("/proc/{}/ns/net", holder.pid)).unwrap()
}
