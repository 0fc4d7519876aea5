use simple_dns::ResourceRecord;
use simple_dns::rdata::{A, AAAA, CNAME, SOA};

use super::*;

const QUERY: Query<'static> = Query { id: 0x1234, host: "a.lb.example", v6: false };

fn record(name: &'static str, ttl: u32, rdata: RData<'static>) -> ResourceRecord<'static> {
    ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, ttl, rdata)
}

fn v4(name: &'static str, ttl: u32, ip: [u8; 4]) -> ResourceRecord<'static> {
    record(name, ttl, RData::A(A { address: u32::from_be_bytes(ip) }))
}

fn alias(name: &'static str, ttl: u32, to: &'static str) -> ResourceRecord<'static> {
    record(name, ttl, RData::CNAME(CNAME(Name::new(to).unwrap())))
}

/// The answer with these records, edited.
fn answer(answers: Vec<ResourceRecord<'static>>, edit: impl FnOnce(&mut Packet<'_>)) -> Vec<u8> {
    let question = QUERY.message().unwrap();
    let mut packet = Packet::parse(&question).unwrap().into_reply();
    packet.answers = answers;
    edit(&mut packet);
    packet.build_bytes_vec_compressed().unwrap()
}

fn found(ips: &[[u8; 4]], seconds: u64) -> Read {
    Read::Found(ips.iter().map(|ip| IpAddr::from(*ip)).collect(), Duration::from_secs(seconds))
}

#[test]
fn an_answer_has_the_names_addresses_and_the_shortest_time_to_live() {
    let two = vec![v4("A.LB.example", 60, [203, 0, 113, 1]), v4("a.lb.example", 30, [203, 0, 113, 2])];
    assert_eq!(QUERY.read(&answer(two, |_| {})), found(&[[203, 0, 113, 1], [203, 0, 113, 2]], 30));
    let aliased = vec![
        v4("c.example", 60, [203, 0, 113, 1]),
        alias("b.example", 50, "c.example"),
        alias("a.lb.example", 20, "b.example"),
    ];
    assert_eq!(QUERY.read(&answer(aliased, |_| {})), found(&[[203, 0, 113, 1]], 20));
}

#[test]
fn records_of_other_names_and_families_are_not_believed() {
    let others = vec![
        v4("b.example", 60, [203, 0, 113, 1]),
        record("a.lb.example", 60, RData::AAAA(AAAA { address: 1 })),
        v4("a.lb.example", 60, [203, 0, 113, 9]),
    ];
    assert_eq!(QUERY.read(&answer(others, |_| {})), found(&[[203, 0, 113, 9]], 60));
    let circle = vec![alias("a.lb.example", 60, "b.example"), alias("b.example", 60, "a.lb.example")];
    assert_eq!(QUERY.read(&answer(circle, |_| {})), found(&[], 5));
}

#[test]
fn a_name_that_leads_nowhere_says_for_how_long() {
    let zone = |ttl, minimum| {
        let (mname, rname) = (Name::new("ns.example").unwrap(), Name::new("me.example").unwrap());
        let soa = SOA { mname, rname, serial: 1, refresh: 1, retry: 1, expire: 1, minimum };
        record("example", ttl, RData::SOA(soa))
    };
    for code in [RCODE::NoError, RCODE::NameError] {
        let bytes = answer(vec![], |p| {
            *p.rcode_mut() = code;
            p.name_servers.push(zone(900, 20));
        });
        assert_eq!(QUERY.read(&bytes), found(&[], 20));
    }
    assert_eq!(QUERY.read(&answer(vec![], |_| {})), found(&[], 5));
}

#[test]
fn what_is_no_answer_to_the_question_is_told_from_one_that_fails() {
    let one = || vec![v4("a.lb.example", 60, [203, 0, 113, 1])];
    assert_eq!(QUERY.read(&QUERY.message().unwrap()), Read::Foreign, "the question itself");
    assert_eq!(Query { id: 7, ..QUERY }.read(&answer(one(), |_| {})), Read::Foreign);
    assert_eq!(Query { v6: true, ..QUERY }.read(&answer(one(), |_| {})), Read::Foreign);
    assert_eq!(Query { host: "b.example", ..QUERY }.read(&answer(one(), |_| {})), Read::Foreign);
    assert_eq!(QUERY.read(&[]), Read::Foreign);
    assert_eq!(QUERY.read(&answer(one(), |p| *p.rcode_mut() = RCODE::ServerFailure)), Read::Failed);
    assert_eq!(QUERY.read(&answer(one(), |p| p.set_flags(PacketFlag::TRUNCATION))), Read::CutOff);
}

#[test]
fn damaged_and_absurd_answers_are_refused_and_never_panic() {
    let whole = answer(vec![v4("a.lb.example", 60, [203, 0, 113, 1])], |_| {});
    for end in 0..whole.len() {
        assert!(!matches!(QUERY.read(&whole[..end]), Read::Found(ref ips, _) if !ips.is_empty()));
    }
    for place in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xc0, 0xff] {
            let mut bent = whole.clone();
            bent[place] = value;
            QUERY.read(&bent);
        }
    }
    let mut many = whole;
    many[6..8].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(QUERY.read(&many), Read::Failed, "nothing is made ready for so many");
}
