//! Which external address is whose: what plan and mapping both have to know of static addresses.
//!
//! A slot's claim is what its Service asks for ([`crate::names::ASKED_ANNOTATION`]). No address is claimed twice: one that a
//! Service asks for or has is nobody else's to ask for, and where two leaders have given one address to two slots, the
//! Service that has it keeps it, first the one that asked for it, else the older one; the other gives way.

use std::net::IpAddr;

use crate::objects::Service;
use crate::reason::{Code, Reason};
use crate::settings::{Class, Exposure};
use crate::state::State;

/// IPv4 first, each once.
pub(crate) fn in_order(ips: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = ips.collect();
    ips.sort_by_key(|ip| (ip.is_ipv6(), *ip));
    ips.dedup();
    ips
}

/// A claim as text: IPv4 first, each once.
pub fn text(asked: &[IpAddr]) -> String {
    in_order(asked.iter().copied()).iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Whether an address that a Service asks for is rather another's: of one that has it, else of the older one.
pub fn is_lost(state: &State, service: &Service, ip: IpAddr) -> bool {
    let rank = |s: &Service| {
        (!s.given().any(|given| given == ip), !s.asked().any(|asked| asked == ip), s.created, s.uid.clone())
    };
    let own = rank(service);
    let mut others = state.holders(&ip).filter(|other| other.key != service.key);
    // who has an address without asking for it keeps it from those who only ask
    others.any(|other| {
        let theirs = rank(other);
        if theirs.1 { own.0 } else { theirs < own }
    })
}

/// Whether every address of a class's pool is held, in one of its families at least.
pub fn is_exhausted(state: &State, class: &Class) -> bool {
    let (v4, v6) = class.address_families();
    let none = |v4: bool| !class.addresses.iter().any(|ip| ip.is_ipv4() == v4 && !state.is_held(ip));
    v4 && none(true) || v6 && none(false)
}

/// Why a pod of a class has no address where [`is_exhausted`].
pub fn none_free(class: &Class) -> Reason {
    Reason::new(Code::NoFreeAddress, format!("{} addresses", class.addresses.len()))
}

/// Whether a Service waits for an address of its class's pool to become free.
pub fn is_unserved(class: &Class, service: &Service) -> bool {
    service.exposure() == Exposure::Dedicated
        && !class.addresses.is_empty()
        && !service.has_address()
        && service.asked().next().is_none()
}

/// What a slot has besides what its class and its claim say. It is published all the same: it is true.
pub fn drift(class: &Class, service: &Service) -> Option<Reason> {
    let exposure = service.exposure();
    if !class.exposure.contains(&exposure) {
        let wanted: Vec<&str> = class.exposure.iter().map(|e| e.as_str()).collect();
        let detail = format!("exposure {exposure}, class: {}", wanted.join(", "));
        return Some(Reason::new(Code::ClassChanged, detail));
    }
    if exposure == Exposure::NodePort {
        return None;
    }
    let given: Vec<IpAddr> = service.given().collect();
    let asked: Vec<IpAddr> = service.asked().collect();
    let held = || asked.iter().chain(&given);
    let wanted_class = class.service.load_balancer_class.as_deref();
    let found_class = service.load_balancer_class.as_deref();
    if wanted_class.is_some() && wanted_class != found_class {
        let found = found_class.unwrap_or("none");
        let detail = format!("loadBalancerClass {found}, class: {}", wanted_class.unwrap_or_default());
        return Some(Reason::new(Code::ClassChanged, detail));
    }
    if exposure == Exposure::Shared {
        return None;
    }
    if !class.addresses.is_empty()
        && held().next().is_some()
        && !held().any(|ip| class.addresses.contains(ip))
    {
        let held = text(if given.is_empty() { &asked } else { &given });
        let detail = format!("{held} is not one of the class's addresses");
        return Some(Reason::new(Code::ClassChanged, detail));
    }
    if !given.is_empty() && asked.iter().any(|ip| !given.contains(ip)) {
        let detail = format!("asked for {}, given {}", text(&asked), text(&given));
        return Some(Reason::new(Code::OtherAddress, detail));
    }
    None
}
