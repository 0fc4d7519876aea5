//! What other people do to Services and EndpointSlices.

use external_ip_core::names;
use serde_json::{Value, json};

use crate::judge::Kind;
use crate::pods::COPIED;
use crate::server::{Server, nth};
use crate::step::{PortField, ServiceEdit, SliceEdit};

/// A label of the `pod`th pod.
fn identity(server: &Server, pod: u8) -> Value {
    let name = server.nth(Kind::Pod, pod);
    let pod = name.and_then(|name| server.get(Kind::Pod, &name));
    pod.map_or(Value::Null, |p| p["metadata"]["labels"][names::POD_ID_LABEL].clone())
}

pub(crate) fn edit_service(server: &mut Server, service: u8, edit: ServiceEdit) -> bool {
    if edit == ServiceEdit::Relabel {
        let lost = |s: &&std::sync::Arc<Value>| s["metadata"]["labels"]["was-ours"] == "true";
        let names: Vec<_> =
            server.all(Kind::Service).filter(lost).map(|s| s["metadata"]["name"].clone()).collect();
        let Some(name) = nth(&names, service).and_then(Value::as_str) else { return false };
        return server.edit(Kind::Service, name, |s| {
            let labels = s["metadata"]["labels"].as_object_mut().unwrap();
            labels.remove("was-ours");
            labels.insert(names::MANAGED_BY_LABEL.into(), json!(names::CONTROLLER_NAME));
        });
    }
    let Some(name) = server.nth(Kind::Service, service) else { return false };
    let labelled = server
        .get(Kind::Service, &name)
        .is_some_and(|s| s["metadata"]["labels"][names::MANAGED_BY_LABEL].is_string());
    match edit {
        ServiceEdit::Delete => server.delete_service(&name),
        _ if !labelled => false,
        ServiceEdit::SelectorOf { pod } => {
            let id = identity(server, pod);
            id.is_string()
                && server
                    .edit(Kind::Service, &name, |s| s["spec"]["selector"] = json!({names::POD_ID_LABEL: id}))
        }
        ServiceEdit::NoSelector => server.edit(Kind::Service, &name, |s| {
            s["spec"].as_object_mut().unwrap().remove("selector");
        }),
        ServiceEdit::ExtraSelector => {
            server.edit(Kind::Service, &name, |s| s["spec"]["selector"]["app"] = json!("x"))
        }
        ServiceEdit::TargetPort => {
            server.edit(Kind::Service, &name, |s| s["spec"]["ports"][0]["targetPort"] = json!(9990))
        }
        ServiceEdit::ClusterLabel => server.edit(Kind::Service, &name, |s| {
            let label = &mut s["metadata"]["labels"][names::CLUSTER_LABEL];
            *label = json!(if *label == "c" { "d" } else { "c" });
        }),
        ServiceEdit::Unlabel => server.edit(Kind::Service, &name, |s| {
            let labels = s["metadata"]["labels"].as_object_mut().unwrap();
            labels.remove(names::MANAGED_BY_LABEL);
            labels.insert("was-ours".into(), json!("true"));
        }),
        ServiceEdit::Owner => server.edit(Kind::Service, &name, |s| {
            s["metadata"]["annotations"][names::OWNER_ANNOTATION] = json!("somebody");
        }),
        ServiceEdit::KeptFor { pod } => {
            let Some(pod) = server.nth(Kind::Pod, pod) else { return false };
            server.edit(Kind::Service, &name, |s| {
                s["metadata"]["annotations"][names::POD_ANNOTATION] = json!(pod);
            })
        }
        ServiceEdit::Recreate => server.edit(Kind::Service, &name, |s| {
            let asked = &mut s["metadata"]["annotations"][names::RECREATE_ANNOTATION];
            *asked = if *asked == "true" { json!("false") } else { json!("true") };
        }),
        ServiceEdit::Swap { field } => server.edit(Kind::Service, &name, |s| swap(s, field)),
        ServiceEdit::Renumber => server.renumber(&name),
        ServiceEdit::Exposure => server.edit(Kind::Service, &name, |s| {
            let exposure = &mut s["metadata"]["annotations"][names::EXPOSURE_ANNOTATION];
            *exposure = if *exposure == "nodePort" { json!("") } else { json!("nodePort") };
        }),
        ServiceEdit::Relabel => unreachable!("dealt with above"),
    }
}

/// The first and the last port have each other's name, target or number.
fn swap(service: &mut Value, field: PortField) {
    let key = match field {
        PortField::Name => "name",
        PortField::Target => "targetPort",
        PortField::Number => "port",
    };
    let Some(ports) = service["spec"]["ports"].as_array_mut().filter(|ports| ports.len() > 1) else { return };
    let last = ports.len() - 1;
    let (first, other) = (ports[0][key].clone(), ports[last][key].clone());
    (ports[0][key], ports[last][key]) = (other, first);
    if crate::node_ports::invalid(service).is_some() {
        swap(service, field); // a number that two protocols have
    }
}

/// A Service of somebody else under a name that `c` or `d` may want: of a slot, or of a shared Service.
pub(crate) fn squat(server: &mut Server, slot: u8, adopt: bool) -> bool {
    let cluster = ["c", "d"][usize::from(slot % 2)];
    let name = match slot / 2 {
        number @ 0..2 => names::slot_service(cluster, number.into()),
        _ => names::shared_service(cluster, 0),
    };
    if server.get(Kind::Service, &name).is_some() {
        return false;
    }
    let annotations = if adopt { json!({names::ADOPT_ANNOTATION: "true"}) } else { json!({}) };
    server.create(
        Kind::Service,
        json!({
            "metadata": {"name": name, "labels": {"app": "other"}, "annotations": annotations},
            "spec": {"type": "LoadBalancer", "selector": {"app": "other"}, "ports": [
                {"name": "a", "protocol": "TCP", "port": 80, "targetPort": 80}]},
        }),
    );
    true
}

pub(crate) fn edit_slice(server: &mut Server, slice: u8, edit: SliceEdit) -> bool {
    if let SliceEdit::Foreign { service, pod } = edit {
        return foreign_slice(server, service, pod);
    }
    let Some(name) = server.nth(Kind::Slice, slice) else { return false };
    match edit {
        SliceEdit::AddressOf { pod } => {
            let Some(ip) = address(server, pod) else { return false };
            server.edit(Kind::Slice, &name, |s| {
                if s["endpoints"][0].is_object() {
                    s["endpoints"][0]["addresses"] = json!([ip]);
                }
            })
        }
        SliceEdit::Port => server.edit(Kind::Slice, &name, |s| {
            if s["ports"][0].is_object() {
                s["ports"][0]["port"] = json!(9990);
            }
        }),
        SliceEdit::Service { service } => {
            let Some(service) = server.nth(Kind::Service, service) else { return false };
            server.edit(Kind::Slice, &name, |s| {
                s["metadata"]["labels"][names::SLICE_SERVICE_LABEL] = json!(service);
            })
        }
        SliceEdit::Delete => server.remove(Kind::Slice, &name),
        SliceEdit::Foreign { .. } => unreachable!("dealt with above"),
    }
}

fn address(server: &Server, pod: u8) -> Option<Value> {
    let pod = server.get(Kind::Pod, &server.nth(Kind::Pod, pod)?)?;
    Some(pod["status"]["podIPs"][0]["ip"].clone()).filter(Value::is_string)
}

fn foreign_slice(server: &mut Server, service: u8, pod: u8) -> bool {
    let (Some(service), Some(ip)) = (server.nth(Kind::Service, service), address(server, pod)) else {
        return false;
    };
    let name = format!("{service}-foreign");
    let found = server.get(Kind::Service, &service).unwrap().clone();
    let pod = server.get(Kind::Pod, &server.nth(Kind::Pod, pod).unwrap()).unwrap().clone();
    if server.get(Kind::Slice, &name).is_some() {
        return false;
    }
    let mut labels = found["metadata"]["labels"].clone();
    labels[names::SLICE_SERVICE_LABEL] = json!(service);
    let ports = found["spec"]["ports"].as_array().into_iter().flatten();
    let ports: Vec<Value> = ports
        .map(|p| {
            let number = p["targetPort"].as_u64().unwrap_or(11222);
            json!({"name": p["name"], "port": number, "protocol": p["protocol"]})
        })
        .collect();
    server.create(
        Kind::Slice,
        json!({
            "metadata": {"name": name, "labels": labels}, "ports": ports,
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "uid": pod["metadata"]["uid"]}}],
        }),
    );
    true
}

/// People take back what the product cannot repair: slices of their own, Services that are nobody's and may have one of
/// the static addresses, identities on pods of no cluster, and the label that goes with another pod's shared names.
pub(crate) fn tidy(server: &mut Server, has_pool: bool) {
    for name in server.names(Kind::Service) {
        if has_pool && server.get(Kind::Service, &name).unwrap()["metadata"]["labels"]["was-ours"] == "true" {
            server.delete_service(&name);
        }
    }
    for name in server.names(Kind::Slice).iter().filter(|name| name.ends_with("-foreign")) {
        server.remove(Kind::Slice, name);
    }
    let token = names::share_token(COPIED);
    for name in server.names(Kind::Pod) {
        server.edit(Kind::Pod, &name, |p| {
            let ports = p["spec"]["containers"][0]["ports"].as_array().into_iter().flatten();
            let copied = ports.filter_map(|p| p["name"].as_str()).any(|name| name.starts_with(&token));
            let labels = p["metadata"]["labels"].as_object_mut().unwrap();
            if !labels.contains_key(names::CLUSTER_LABEL) && labels.get("app").is_none_or(|app| app != "e") {
                labels.remove(names::POD_ID_LABEL);
            }
            if copied && !COPIED.ends_with(&format!(".{name}")) {
                labels.remove(names::SHARED_LABEL);
            }
        });
    }
}
