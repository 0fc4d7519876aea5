//! A load balancer's controller with few addresses. Who asks for some gets these, or none.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::judge::Kind;
use crate::server::Server;
use crate::step::Balance;

/// The annotation in which it is asked for addresses.
pub(crate) const ASKS: &str = "lb.example/addresses";
/// What it gives who does not ask: 203.0.113.1 and following, and of IPv6 the like.
const CHOSEN: u8 = 60;

pub(crate) struct Balancer {
    /// By UID of the Service.
    held: BTreeMap<String, Vec<String>>,
    /// The one freed last is given first.
    free: Vec<u8>,
    dual: bool,
}

impl Balancer {
    pub(crate) fn new(dual: bool) -> Self {
        Self { held: BTreeMap::new(), free: (1..=CHOSEN).rev().collect(), dual }
    }

    pub(crate) fn act(&mut self, server: &mut Server, name: &str, what: Balance) -> bool {
        let Some(service) = server.get(Kind::Service, name).cloned() else { return false };
        let uid = service["metadata"]["uid"].as_str().unwrap().to_owned();
        let going = !service["metadata"]["deletionTimestamp"].is_null();
        let ingress = &service["status"]["loadBalancer"]["ingress"];
        match what {
            _ if !going && service["spec"]["type"] != "LoadBalancer" => {
                self.take_back(&uid);
                !ingress[0].is_null() && set(server, name, json!([]))
            }
            Balance::Serve if going => {
                self.take_back(&uid);
                server.remove(Kind::Service, name)
            }
            Balance::Serve => ingress[0].is_null() && set(server, name, self.ingress(&service)),
            _ if going || ingress[0].is_null() => false,
            Balance::Withdraw => {
                self.take_back(&uid);
                set(server, name, json!([]))
            }
            Balance::Change => {
                // another one than asked for, too
                let number = self.free.pop().expect("an address is left");
                self.take_back(&uid);
                let addresses = self.chosen(number);
                set(server, name, self.give(&uid, addresses))
            }
            Balance::SameAs { service: other } => {
                let Some(other) = server.nth(Kind::Service, other) else { return false };
                let theirs =
                    server.get(Kind::Service, &other).unwrap()["status"]["loadBalancer"]["ingress"].clone();
                !theirs[0].is_null() && set(server, name, theirs)
            }
            Balance::Host => {
                let mut ingress = ingress.clone();
                ingress.as_array_mut().unwrap().push(json!({"hostname": host(&uid)}));
                set(server, name, ingress)
            }
            Balance::Named => set(server, name, json!([{"hostname": host(&uid)}])),
            Balance::PortError => {
                let mut ingress = ingress.clone();
                ingress[0]["ports"] = json!([{"port": service["spec"]["ports"][0]["port"], "protocol": "TCP", "error": "example.com/NoRoom"}]);
                set(server, name, ingress)
            }
        }
    }

    /// Gives every Service an address of its own and takes back every error; answers whether something changed.
    pub(crate) fn repair(&mut self, server: &mut Server) -> bool {
        let mut changed = false;
        for name in server.names(Kind::Service) {
            let service = server.get(Kind::Service, &name).unwrap().clone();
            changed |= if service["metadata"]["deletionTimestamp"].is_null()
                && service["spec"]["type"] == "LoadBalancer"
            {
                let ingress = self.ingress(&service);
                set(server, &name, ingress)
            } else {
                self.act(server, &name, Balance::Serve)
            };
        }
        changed
    }

    /// What a Service shall have: what it asks for where nobody else has it, else what it has, else some address.
    fn ingress(&mut self, service: &Value) -> Value {
        let uid = service["metadata"]["uid"].as_str().unwrap();
        if let Some(asked) = service["metadata"]["annotations"][ASKS].as_str() {
            let asked: Vec<String> = asked.split(',').map(str::to_owned).collect();
            let has = |(holder, held): (&String, &Vec<String>)| {
                holder != uid && held.iter().any(|ip| asked.contains(ip))
            };
            let is_free = !self.held.iter().any(has);
            self.take_back(uid);
            return if is_free { self.give(uid, asked) } else { json!([]) };
        }
        let held = self.held.get(uid).cloned();
        match held.or_else(|| self.free.pop().map(|number| self.chosen(number))) {
            Some(addresses) => self.give(uid, addresses),
            None => json!([]),
        }
    }

    fn chosen(&self, number: u8) -> Vec<String> {
        let both = [format!("203.0.113.{number}"), format!("2001:db8::{number}")];
        both.into_iter().take(if self.dual { 2 } else { 1 }).collect()
    }

    fn give(&mut self, uid: &str, addresses: Vec<String>) -> Value {
        let ingress = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        self.held.insert(uid.to_owned(), addresses);
        ingress
    }

    fn take_back(&mut self, uid: &str) {
        let number = |ip: String| ip.strip_prefix("203.0.113.")?.parse::<u8>().ok();
        let numbers = self.held.remove(uid).into_iter().flatten().filter_map(number);
        self.free.extend(numbers.filter(|number| *number <= CHOSEN));
    }

    /// The addresses of a Service's load balancer, whatever its status says. Asking gives it none: one that is deleted
    /// before its status says anything would keep them.
    pub(crate) fn addresses(&self, service: &Value) -> Vec<IpAddr> {
        let held = service["metadata"]["uid"].as_str().and_then(|uid| self.held.get(uid));
        held.into_iter().flatten().map(|ip| ip.parse().unwrap()).collect()
    }
}

/// The name of a Service's load balancer.
pub(crate) fn host(uid: &str) -> String {
    format!("{uid}.lb.example")
}

fn set(server: &mut Server, name: &str, ingress: Value) -> bool {
    server.edit(Kind::Service, name, |s| s["status"]["loadBalancer"]["ingress"] = ingress)
}
