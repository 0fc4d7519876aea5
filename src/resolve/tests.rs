use std::collections::HashMap;
use std::sync::Mutex;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, RCODE, ResourceRecord, TYPE};
use tokio::net::TcpListener;

use super::*;

/// What a server does with questions.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Answers,
    Silent,
    Fails,
    /// Says the answer is too long, and has it at TCP.
    CutsOff,
    /// Answers something else first.
    Babbles,
}

type Zone = Arc<Mutex<HashMap<String, Vec<Ipv4Addr>>>>;

fn reply(question: &[u8], zone: &Zone) -> Vec<u8> {
    let mut packet = Packet::parse(question).unwrap().into_reply();
    let asked = packet.questions[0].clone();
    match zone.lock().unwrap().get(&asked.qname.to_string()) {
        None => *packet.rcode_mut() = RCODE::NameError,
        Some(ips) if asked.qtype == TYPE::A.into() => {
            packet.answers.extend(ips.iter().map(|ip| {
                let address = RData::A(A { address: u32::from(*ip) });
                ResourceRecord::new(asked.qname.clone(), CLASS::IN, 7, address)
            }));
        }
        Some(_) => {}
    }
    packet.build_bytes_vec().unwrap()
}

/// A name server on loopback, UDP and TCP on one port; it ends with the test.
async fn server(zone: &Zone, mood: Mood) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let of_tcp = Arc::clone(zone);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut question = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut question).await.unwrap();
            let answer = reply(&question, &of_tcp);
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &answer].concat()).await.unwrap();
        }
    });
    let zone = Arc::clone(zone);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let mut answer = reply(&buffer[..length], &zone);
            match mood {
                Mood::Silent => continue,
                Mood::Fails => answer[3] = (answer[3] & 0xf0) | 2,
                Mood::CutsOff => answer[2] |= 0b10,
                Mood::Babbles => {
                    let mut other = answer.clone();
                    other[0] ^= 0xff;
                    udp.send_to(&other, from).await.unwrap();
                    udp.send_to(b"what?", from).await.unwrap();
                }
                Mood::Answers => {}
            }
            udp.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

fn zone(names: &[(&str, [u8; 4])]) -> Zone {
    Arc::new(Mutex::new(names.iter().map(|(name, ip)| ((*name).to_owned(), vec![(*ip).into()])).collect()))
}

fn found(ip: [u8; 4]) -> Answer {
    Answer::Addresses { ips: vec![ip.into()], ttl: Duration::from_secs(7) }
}

#[tokio::test]
async fn the_first_server_that_can_say_anything_is_believed() {
    let (right, wrong) = (zone(&[("a.example", [203, 0, 113, 1])]), zone(&[]));
    let ask = async |servers: &[SocketAddr]| ask(servers, "a.example").await;
    let good = server(&right, Mood::Answers).await;
    assert_eq!(ask(&[good, server(&wrong, Mood::Answers).await]).await, found([203, 0, 113, 1]));
    for mood in [Mood::Fails, Mood::Silent] {
        assert_eq!(ask(&[server(&wrong, mood).await, good]).await, found([203, 0, 113, 1]), "{mood:?}");
    }
    for mood in [Mood::CutsOff, Mood::Babbles] {
        assert_eq!(ask(&[server(&right, mood).await]).await, found([203, 0, 113, 1]), "{mood:?}");
    }
    assert!(matches!(ask(&[server(&wrong, Mood::Answers).await, good]).await, Answer::Nothing { .. }));
    assert_eq!(ask(&[server(&right, Mood::Fails).await]).await, Answer::Failed);
    assert_eq!(ask(&[]).await, Answer::Failed);
}
