use super::*;
use crate::tls::testing::authority;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 3600;

fn at() -> Rotation {
    Rotation { not_after: NOW + 9 * 365 * DAY, ..Rotation::default() }
}

#[test]
fn a_young_ca_that_nobody_wants_replaced_stays() {
    assert_eq!(decide(&at(), NOW), Step::Wait(None));
}

#[test]
fn an_old_ca_is_replaced_half_a_year_before_it_ends_and_published_half_a_year_before_that() {
    let old = Rotation { not_after: NOW + 365 * DAY - 1, ..at() };
    assert_eq!(decide(&old, NOW), Step::Announce { signs_from: NOW + 180 * DAY });
    let found_late = Rotation { not_after: NOW + 10 * DAY, ..at() };
    assert_eq!(decide(&found_late, NOW), Step::Announce { signs_from: NOW + 5 * DAY });
}

#[test]
fn a_wish_says_how_long_the_next_ca_is_known_before_it_signs_also_where_it_is_published_already() {
    let wished = Rotation { wish: Some(Duration::from_secs(300)), ..at() };
    assert_eq!(decide(&wished, NOW), Step::Announce { signs_from: NOW + 300 });
    let published = Rotation { next: true, signs_from: Some(NOW + 90 * DAY), ..wished };
    assert_eq!(decide(&published, NOW), Step::Schedule { signs_from: NOW + 300 });
}

#[test]
fn the_next_ca_signs_from_its_day_on_and_one_without_a_day_gets_one() {
    let next = Rotation { next: true, signs_from: Some(NOW), ..at() };
    assert_eq!(decide(&next, NOW - 1), Step::Wait(Some(NOW)));
    assert_eq!(decide(&next, NOW), Step::Sign);
    let brought = Rotation { next: true, ..at() };
    assert_eq!(decide(&brought, NOW), Step::Schedule { signs_from: NOW + 180 * DAY });
}

#[test]
fn the_former_ca_goes_at_its_time_and_nothing_else_begins_before() {
    let former = Rotation { former: true, wish: Some(Duration::ZERO), next: true, ..at() };
    assert_eq!(decide(&former, NOW), Step::Keep { until: NOW + 60 });
    let former = Rotation { trusted_until: Some(NOW + 60), ..former };
    assert_eq!(decide(&former, NOW + 59), Step::Wait(Some(NOW + 60)));
    assert_eq!(decide(&former, NOW + 60), Step::Forget);
}

fn secret(annotations: &Value, parts: &[(&str, &str)]) -> Secret {
    let data: serde_json::Map<_, _> =
        parts.iter().map(|(k, v)| ((*k).to_owned(), json!(BASE64.encode(v.as_bytes())))).collect();
    serde_json::from_value(json!({
        "metadata": {"resourceVersion": "1", "annotations": annotations}, "data": data,
    }))
    .unwrap()
}

#[test]
fn what_people_wrote_wrongly_is_said_with_what_to_write() {
    let ca = authority();
    let text = |annotations: Value, parts: &[(&str, &str)]| {
        step(&secret(&annotations, parts), &ca, NOW).unwrap_err().to_string()
    };
    assert!(text(json!({ROTATE_CA_ANNOTATION: "now"}), &[]).contains("'now' is no duration: write how long"));
    let date = text(json!({NEXT_CA_ANNOTATION: "tomorrow"}), &[]);
    assert!(date.contains("next-ca-signs-from: 'tomorrow' is no time: write it like"), "{date}");
    let other = authority();
    let (pem, key) = (ca.bundle(), other.key_pem());
    let half = text(json!({}), &[(NEXT_CERTIFICATE, pem)]);
    assert!(half.contains("tls.key holds no readable private key") && half.contains("remove both"), "{half}");
    let mixed = text(json!({}), &[(NEXT_CERTIFICATE, pem), (NEXT_KEY, &key)]);
    assert!(mixed.contains("belongs to none"), "{mixed}");
}

#[test]
fn what_somebody_trusts_besides_survives_the_step_to_the_next_ca() {
    let (signing, next, theirs) = (authority(), authority(), authority());
    let both = format!("{}{}", signing.bundle(), theirs.bundle());
    let secret = secret(
        &json!({}),
        &[
            (CERTIFICATE, &both),
            (KEY, &signing.key_pem()),
            (NEXT_CERTIFICATE, next.bundle()),
            (NEXT_KEY, &next.key_pem()),
        ],
    );
    let patch = patch(&secret, &signing, Step::Sign, crate::tls::testing::now()).unwrap().unwrap();
    let text = |key: &str| {
        let value = patch["data"][key].as_str().unwrap();
        String::from_utf8(BASE64.decode(value.as_bytes()).unwrap()).unwrap()
    };
    assert_eq!(text(CERTIFICATE), format!("{}{}", next.bundle(), theirs.bundle()));
    assert_eq!(text(KEY), next.key_pem());
    assert_eq!(text(FORMER_CERTIFICATE), signing.bundle());
}
