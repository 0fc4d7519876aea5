//! A load balancer's controller with few addresses.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::judge::Kind;
use crate::server::Server;
use crate::step::Balance;

pub(crate) struct Balancer {
    /// By UID of the Service.
    held: BTreeMap<String, u8>,
    /// The one freed last is given first.
    free: Vec<u8>,
    dual: bool,
}

impl Balancer {
    pub(crate) fn new(dual: bool) -> Self {
        Self { held: BTreeMap::new(), free: (1..=60).rev().collect(), dual }
    }

    pub(crate) fn act(&mut self, server: &mut Server, name: &str, what: Balance) -> bool {
        let Some(service) = server.get(Kind::Service, name).cloned() else { return false };
        if service["spec"]["type"] != "LoadBalancer" {
            return false;
        }
        let uid = service["metadata"]["uid"].as_str().unwrap().to_owned();
        let going = !service["metadata"]["deletionTimestamp"].is_null();
        let ingress = &service["status"]["loadBalancer"]["ingress"];
        match what {
            Balance::Serve if going => {
                self.free.extend(self.held.remove(&uid));
                server.remove(Kind::Service, name)
            }
            Balance::Serve => ingress[0].is_null() && set(server, name, self.ingress(&uid)),
            _ if going || ingress[0].is_null() => false,
            Balance::Withdraw => {
                self.free.extend(self.held.remove(&uid));
                set(server, name, json!([]))
            }
            Balance::Change => {
                let old = self.held.remove(&uid);
                let ingress = self.ingress(&uid);
                self.free.extend(old);
                set(server, name, ingress)
            }
            Balance::SameAs { service: other } => {
                let Some(other) = server.nth(Kind::Service, other) else { return false };
                let theirs =
                    server.get(Kind::Service, &other).unwrap()["status"]["loadBalancer"]["ingress"].clone();
                !theirs[0].is_null() && set(server, name, theirs)
            }
            Balance::Host => {
                let mut ingress = ingress.clone();
                ingress.as_array_mut().unwrap().push(json!({"hostname": format!("{uid}.lb.example")}));
                set(server, name, ingress)
            }
            Balance::PortError => {
                let mut ingress = ingress.clone();
                ingress[0]["ports"] =
                    json!([{"port": 11222, "protocol": "TCP", "error": "example.com/NoRoom"}]);
                set(server, name, ingress)
            }
        }
    }

    /// Gives every Service an address of its own and takes back every error; answers whether something changed.
    pub(crate) fn repair(&mut self, server: &mut Server) -> bool {
        let mut changed = false;
        for name in server.names(Kind::Service) {
            let service = server.get(Kind::Service, &name).unwrap().clone();
            let uid = service["metadata"]["uid"].as_str().unwrap();
            changed |= if service["metadata"]["deletionTimestamp"].is_null()
                && service["spec"]["type"] == "LoadBalancer"
            {
                let ingress = self.ingress(uid);
                set(server, &name, ingress)
            } else {
                self.act(server, &name, Balance::Serve)
            };
        }
        changed
    }

    fn ingress(&mut self, uid: &str) -> Value {
        let number =
            *self.held.entry(uid.to_owned()).or_insert_with(|| self.free.pop().expect("an address is left"));
        let v4 = json!({"ip": format!("203.0.113.{number}")});
        if self.dual { json!([v4, {"ip": format!("2001:db8::{number}")}]) } else { json!([v4]) }
    }
}

fn set(server: &mut Server, name: &str, ingress: Value) -> bool {
    server.edit(Kind::Service, name, |s| s["status"]["loadBalancer"]["ingress"] = ingress)
}
