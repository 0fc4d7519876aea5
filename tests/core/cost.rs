//! What workloads would cost.

use external_ip_core::cost::{self, Cost, InUse, Plan, Pods};
use external_ip_core::objects::Service;
use external_ip_core::settings::{self, Settings};
use serde_json::json;

/// One workload of cluster `c` with two ports; `spec` is what stands beside its template.
fn manifest(kind: &str, spec: &str, annotations: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: w}}\nspec:\n  {spec}\n  template:\n    metadata: \
         {{labels: {{external-ip.dev/cluster: c}}, annotations: {{{annotations}}}}}\n    spec: {{containers: [{{name: \
         main, ports: [{{containerPort: 1}}, {{containerPort: 2}}]}}]}}\n"
    )
}

fn settings(classes: &str) -> Settings {
    settings::parse(&format!("version: 1\n{classes}\n")).expect("valid").settings
}

fn planned(text: &str, settings: &Settings) -> Plan {
    cost::plan(&cost::workloads(text, "data", None).expect("readable"), settings, &InUse::default())
}

fn dedicated(slots: u32) -> Cost {
    Cost { slots, load_balancers: slots, addresses: slots, node_ports: 2 * slots, ports: 2 * slots }
}

#[test]
fn pods_are_counted_as_their_kind_makes_and_replaces_them() {
    let pods = |at_rest, rolling, at_most| Some(Pods { at_rest, rolling, at_most });
    for (kind, spec, expected) in [
        ("StatefulSet", "replicas: 3", pods(3, 3, 3)),
        ("Deployment", "replicas: 4000000000", pods(4_000_000_000, u32::MAX, u32::MAX)),
        ("StatefulSet", "replicas: 0", pods(0, 0, 0)),
        ("StatefulSet", "serviceName: c", pods(1, 1, 1)),
        ("Deployment", "replicas: 10", pods(10, 13, 20)),
        ("Deployment", "{replicas: 4, strategy: {rollingUpdate: {maxSurge: 1}}, x: 1}", pods(4, 5, 8)),
        ("Deployment", "{replicas: 4, strategy: {rollingUpdate: {maxSurge: '200%'}}, x: 1}", pods(4, 12, 12)),
        ("Deployment", "{replicas: 4, strategy: {type: Recreate}, x: 1}", pods(4, 4, 8)),
        ("DaemonSet", "minReadySeconds: 1", None),
    ] {
        let text = manifest(kind, spec, "");
        let text = if spec.starts_with('{') { flow(&text, spec) } else { text };
        assert_eq!(planned(&text, &Settings::default()).workloads[0].pods, expected, "{kind} {spec}");
    }
}

/// A spec written as one flow map: its entries beside the template.
fn flow(text: &str, spec: &str) -> String {
    let entries = spec.trim_matches(['{', '}']);
    let mut depth = 0;
    let lines: String = entries
        .chars()
        .map(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if c == ',' && depth == 0 { '\n' } else { c }
        })
        .collect();
    let block = lines.lines().map(str::trim).collect::<Vec<_>>().join("\n  ");
    text.replace(spec, &block)
}

#[test]
fn a_dedicated_slot_costs_a_load_balancer_an_address_and_a_node_port_for_every_port() {
    let plan = planned(&manifest("Deployment", "replicas: 4", ""), &Settings::default());
    assert_eq!(plan.total.at_rest, dedicated(4));
    assert_eq!(plan.total.rolling, dedicated(5));
    assert_eq!(plan.total.at_most, dedicated(8));
    assert_eq!((plan.workloads[0].exposure, plan.exceeded.len()), (Some("dedicated"), 0));
}

#[test]
fn the_class_says_what_a_slot_costs() {
    let set = manifest("StatefulSet", "replicas: 3", "");
    let of = |service: &str| {
        planned(&set, &settings(&format!("classes: {{default: {{service: {{{service}}}}}}}"))).total.at_rest
    };
    assert_eq!(of("allocateLoadBalancerNodePorts: false").node_ports, 0);
    assert_eq!(of("externalTrafficPolicy: Local").node_ports, 9, "and one for the health checks of each");
    assert_eq!(of("ipFamilyPolicy: RequireDualStack").addresses, 6);
}

#[test]
fn shared_load_balancers_take_as_many_slots_as_have_ports_on_them() {
    let mut settings = Settings::default();
    let class = settings.classes.get_mut("default").unwrap();
    class.exposure = vec![settings::Exposure::Shared];
    class.shared.ports_per_service = 5;
    let plan = planned(&manifest("StatefulSet", "replicas: 5", ""), &settings);
    let Cost { slots, load_balancers, addresses, node_ports, ports } = plan.total.at_rest;
    assert_eq!((slots, load_balancers, addresses, node_ports, ports), (5, 3, 3, 10, 10));
    settings.classes.get_mut("default").unwrap().exposure = vec![settings::Exposure::NodePort];
    let plan = planned(&manifest("StatefulSet", "replicas: 5", ""), &settings);
    let Cost { load_balancers, addresses, node_ports, .. } = plan.total.at_rest;
    assert_eq!((load_balancers, addresses, node_ports), (0, 0, 10));
}

#[test]
fn slots_made_ahead_cost_as_much_as_others_and_are_in_nobodys_way_at_a_limit() {
    let spare = settings("limits: {slotsPerCluster: 3}\nclasses: {default: {spareSlots: 2}}");
    let plan = planned(&manifest("StatefulSet", "replicas: 3", ""), &spare);
    assert_eq!((plan.total.at_rest, plan.workloads[0].ahead), (dedicated(5), 2));
    assert!(plan.exceeded.is_empty(), "its pods have room: {:?}", plan.exceeded);
    let plan = planned(&manifest("Deployment", "replicas: 4", ""), &spare);
    assert_eq!((plan.total.rolling, plan.total.at_most), (dedicated(7), dedicated(10)));
    assert!(plan.exceeded[0].contains("needs 5 of 3"), "{:?}", plan.exceeded);
    assert_eq!(planned(&manifest("StatefulSet", "replicas: 0", ""), &spare).total.at_rest, Cost::default());
    // all or nothing: as many slots as wait for each other, whichever pods are there
    let members = settings("classes: {default: {await: {enabled: true, members: 3}, spareSlots: 1}}");
    let slots = |replicas: u32, annotations: &str| {
        let text = manifest("StatefulSet", &format!("replicas: {replicas}"), annotations);
        planned(&text, &members).total.at_rest.slots
    };
    assert_eq!([1, 2, 3].map(|replicas| slots(replicas, "")), [3, 3, 4]);
    assert_eq!(slots(1, "external-ip.dev/await: 'false'"), 2, "who does not wait");
}

#[test]
fn what_gets_no_address_costs_nothing_and_says_why() {
    let text = [
        manifest("StatefulSet", "replicas: 3", "external-ip.dev/class: gold"),
        manifest("StatefulSet", "replicas: 3", "").replace("external-ip.dev/cluster: c", "app: c"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: other}\n".to_owned(),
    ]
    .join("---\n");
    let plan = planned(&text, &Settings::default());
    let reasons: Vec<_> = plan.workloads.iter().map(|w| w.reason).collect();
    assert_eq!(reasons, [Some("UnknownClass"), Some("NotLabelled")]);
    assert_eq!(plan.total.at_most, Cost::default());
    assert_eq!(plan.ignored, ["Service other"]);
}

#[test]
fn limits_are_held_against_pods_at_once_and_what_is_in_use_by_others() {
    let limits = "limits: {slotsPerCluster: 12, slotsPerNamespace: 14, loadBalancers: 20}";
    let one = manifest("Deployment", "replicas: 10", "");
    let readable = cost::workloads(&one, "data", None).unwrap();
    let plan = cost::plan(&readable, &settings(limits), &InUse::default());
    assert_eq!(
        plan.exceeded,
        ["cluster data/c needs 13 of 12 slots of exposure dedicated (limits.slotsPerCluster)"]
    );
    let in_use = InUse {
        slots: [(("data".to_owned(), "dedicated"), 2)].into(),
        load_balancers: [("default".to_owned(), 4), ("other".to_owned(), 5)].into(),
        departing: Vec::new(),
    };
    let plan = cost::plan(&readable, &settings(limits), &in_use);
    assert_eq!(plan.exceeded.len(), 3, "{:?}", plan.exceeded);
    assert!(plan.exceeded[1].starts_with("namespace data needs 15 of 14"), "{:?}", plan.exceeded);
    assert!(plan.exceeded[2].starts_with("the installation needs 22 of 20"), "{:?}", plan.exceeded);
    for elsewhere in [("elsewhere".to_owned(), "dedicated"), ("data".to_owned(), "nodePort")] {
        let in_use = InUse { slots: [(elsewhere, 9)].into(), ..in_use.clone() };
        let plan = cost::plan(&readable, &settings(limits), &in_use);
        assert_eq!(
            plan.exceeded.len(),
            2,
            "another namespace's slots, or another exposure's: {:?}",
            plan.exceeded
        );
    }
    let class = format!("{limits}\nclasses: {{default: {{loadBalancers: 16}}}}");
    let plan = cost::plan(&readable, &settings(&class), &in_use);
    assert_eq!(plan.exceeded[3], "class default needs 17 of 16 load balancers (loadBalancers of the class)");
}

#[test]
fn a_pool_is_held_against_every_slot_of_its_class_one_address_of_each_family_for_each() {
    let set = manifest("StatefulSet", "replicas: 3", "");
    let readable = cost::workloads(&set, "data", None).unwrap();
    let both = |service: &str, pool: &str| {
        let classes = format!("classes: {{default: {{service: {service}, addresses: {pool}}}}}");
        let in_use = InUse { load_balancers: [("default".to_owned(), 1)].into(), ..InUse::default() };
        cost::plan(&readable, &settings(&classes), &in_use)
    };
    let over = ["class default needs 4 of 3 static addresses of a family (addresses of the class)"];
    let one = both("{loadBalancerIP: \"{address}\"}", "[203.0.113.1-203.0.113.3]");
    assert_eq!((one.total.at_rest.addresses, &one.exceeded[..]), (3, &over.map(str::to_owned)[..]));
    let template = "{annotations: {example.com/ip: \"{address}\"}, ipFamilyPolicy: PreferDualStack}";
    let two = both(template, "[203.0.113.1-203.0.113.9, \"2001:db8::1-2001:db8::3\"]");
    assert_eq!((two.total.at_rest.addresses, &two.exceeded[..]), (6, &over.map(str::to_owned)[..]));
    let enough = both("{loadBalancerIP: \"{address}\"}", "[203.0.113.1-203.0.113.4]");
    assert!(enough.exceeded.is_empty(), "{:?}", enough.exceeded);
}

#[test]
fn a_list_is_its_items_and_what_is_no_object_is_refused() {
    let list = r#"{"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": "p", "namespace": "there",
        "labels": {"external-ip.dev/cluster": "c"}}, "spec": {"containers": [{"ports": [{"containerPort": 1}]}]}}]}"#;
    let plan = planned(list, &Settings::default());
    assert_eq!((plan.workloads[0].namespace.as_str(), plan.total.at_rest.slots), ("there", 1));
    for bad in ["a: [", "a: b", "- 1", "kind: StatefulSet\nspec: {replicas: many}"] {
        assert!(cost::workloads(bad, "data", None).is_err(), "{bad}");
    }
    let daemons = manifest("DaemonSet", "updateStrategy: {rollingUpdate: {maxSurge: '10%'}}", "");
    let daemons = cost::workloads(&daemons, "data", Some(5)).unwrap();
    assert_eq!(daemons.workloads[0].pods, Some(Pods { at_rest: 5, rolling: 6, at_most: 10 }));
}

#[test]
fn services_that_stay_what_they_are_though_their_class_has_changed_are_named() {
    let service = |name: &str, exposure: &str, spec: serde_json::Value| -> Service {
        let labels = json!({"app.kubernetes.io/managed-by": "external-ip-controller", "external-ip.dev/cluster": "c",
            "external-ip.dev/slot": "0"});
        let annotations = json!({"external-ip.dev/owner": "external-ip-controller", "external-ip.dev/slot-class": "default",
            "external-ip.dev/exposure": exposure});
        let metadata = json!({"namespace": "data", "name": name, "resourceVersion": "1", "uid": name, "labels": labels,
            "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    };
    let there = [
        service("c-ext-0", "nodePort", json!({"type": "NodePort"})),
        service("c-ext-1", "dedicated", json!({"type": "LoadBalancer"})),
        service(
            "c-ext-2",
            "dedicated",
            json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/new"}),
        ),
    ];
    let settings = settings("classes: {default: {service: {loadBalancerClass: example.com/new}}}");
    let readable = cost::workloads(&manifest("StatefulSet", "replicas: 3", ""), "data", None).unwrap();
    let plan = cost::plan(&readable, &settings, &cost::in_use(&there, &settings, &readable));
    assert_eq!(
        plan.departing,
        [
            "data/c-ext-0: exposure nodePort, class: dedicated (until its pod is made again, or external-ip-controller \
             recreate data/c)",
            "data/c-ext-1: loadBalancerClass none, class: example.com/new (until external-ip-controller recreate data/c)",
        ]
    );
}
