//! The member: one static program without dependencies that is everything the local cluster runs in pods.
//!
//! ```text
//! member serve PORT[/udp]...     answers every connection and datagram with who it is, one line of JSON
//! member get ADDRESS[/PATH]      asks a member (or any HTTP server, by IP address) and prints the answer
//! member cat FILE                prints a file: images of one binary have no shell
//! member env                     prints the environment, sorted
//! member forward ADDRESS         accepts on standard input (a listening socket) and connects through
//! member pause                   sleeps until told to stop and reaps orphans: a pod's sandbox, a node's process 1
//! ```
//!
//! Who it is comes from the downward API: `POD_NAME`, `POD_NAMESPACE`, `POD_IP`, `POD_UID`; every variable that starts
//! with `EXTERNAL_` is told as well, and every file below `/etc/external-ip`: as the first line of the program found it
//! (`began`), and as it is now (`files`). A TCP client that sends an HTTP request gets an HTTP answer, any other the bare
//! line. Compiled by rustc alone (`local-cluster build` does it), so that it is no part of the cargo workspace.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

/// An HTTP client sends its request at once; whoever is silent for this long speaks no HTTP and waits for the line.
const SILENCE: Duration = Duration::from_millis(200);
/// A test that waits longer for an answer waits for one that does not come.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Where a pod's processes find their external address.
const FILES: &str = "/etc/external-ip";
/// What was there when the program began.
static BEGAN: OnceLock<String> = OnceLock::new();

fn main() -> ExitCode {
    BEGAN.get_or_init(files);
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    end_on_sigterm();
    let result = match words.as_slice() {
        ["serve", ports @ ..] if !ports.is_empty() => serve(ports),
        ["get", target] => get(target),
        ["cat", file] => std::fs::read(file).and_then(|bytes| io::stdout().write_all(&bytes)),
        ["env"] => env(),
        ["forward", target] => forward(target),
        ["pause"] => pause(),
        _ => Err(io::Error::other(
            "usage: member serve PORT[/udp]... | get ADDRESS[/PATH] | cat FILE | env | forward ADDRESS | pause",
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("member: {error}");
            ExitCode::FAILURE
        }
    }
}

// The standard library has no signals, and this program has no dependencies.
unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn _exit(code: i32) -> !;
}
const SIGTERM: i32 = 15;
const SIGINT: i32 = 2;
const SIGCHLD: i32 = 17;
const SIG_IGN: usize = 1;

extern "C" fn end(_number: i32) {
    // SAFETY: _exit may be called in a signal handler.
    unsafe { _exit(0) }
}

/// Process 1 of a container ignores SIGTERM unless it asks for it: the pod would wait for its whole grace period.
fn end_on_sigterm() {
    let handler = end as extern "C" fn(i32);
    for number in [SIGTERM, SIGINT] {
        // SAFETY: the handler only calls _exit.
        unsafe { signal(number, handler as usize) };
    }
}

fn pause() -> io::Result<()> {
    // SAFETY: ignoring SIGCHLD makes the kernel reap every child, own or inherited.
    unsafe { signal(SIGCHLD, SIG_IGN) };
    loop {
        std::thread::park();
    }
}

fn serve(ports: &[&str]) -> io::Result<()> {
    let mut threads = Vec::new();
    for port in ports {
        let (number, udp) = match port.strip_suffix("/udp") {
            Some(number) => (number, true),
            None => (*port, false),
        };
        let number: u16 = number.parse().map_err(|_| io::Error::other(format!("no port: {port}")))?;
        // All addresses, IPv6 too where the machine has it.
        if udp {
            let socket = UdpSocket::bind(("::", number)).or_else(|_| UdpSocket::bind(("0.0.0.0", number)))?;
            threads.push(std::thread::spawn(move || answer_datagrams(&socket, number)));
        } else {
            let listener =
                TcpListener::bind(("::", number)).or_else(|_| TcpListener::bind(("0.0.0.0", number)))?;
            threads.push(std::thread::spawn(move || accept(&listener, number)));
        }
        println!("serving {port}");
    }
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

fn accept(listener: &TcpListener, port: u16) {
    for stream in listener.incoming().flatten() {
        let _ = std::thread::Builder::new().stack_size(128 << 10).spawn(move || answer(stream, port));
    }
}

fn answer(mut stream: TcpStream, port: u16) -> io::Result<()> {
    let line = identity(port, stream.peer_addr()?);
    stream.set_read_timeout(Some(SILENCE))?;
    let mut head = [0; 4096];
    let mut length = 0;
    // Up to the end of an HTTP head, the end of a line of anything else, or silence.
    while length < head.len() {
        match stream.read(&mut head[length..]) {
            Ok(0) | Err(_) => break,
            Ok(n) => length += n,
        }
        let text = &head[..length];
        if text.ends_with(b"\r\n\r\n") || (text.ends_with(b"\n") && !is_http(text)) {
            break;
        }
    }
    if is_http(&head[..length]) {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            line.len()
        )?;
    }
    stream.write_all(line.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

fn is_http(head: &[u8]) -> bool {
    [&b"GET "[..], b"HEAD ", b"POST ", b"PUT "].iter().any(|verb| head.starts_with(verb))
}

fn answer_datagrams(socket: &UdpSocket, port: u16) {
    let mut buffer = [0; 2048];
    loop {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(identity(port, peer).as_bytes(), peer);
        }
    }
}

fn identity(port: u16, peer: SocketAddr) -> String {
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let external: BTreeMap<String, String> =
        std::env::vars().filter(|(name, _)| name.starts_with("EXTERNAL_")).collect();
    let began = BEGAN.get_or_init(files);
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    format!(
        "{{\"pod\":{},\"namespace\":{},\"ip\":{},\"uid\":{},\"port\":{port},\"peer\":\"{peer}\",\"external\":{},\"began\":{began},\"files\":{}}}\n",
        quoted(&var("POD_NAME")),
        quoted(&var("POD_NAMESPACE")),
        quoted(&var("POD_IP")),
        quoted(&var("POD_UID")),
        object(&external),
        files()
    )
}

/// Names and contents; what a kubelet keeps beside them begins with two dots.
fn files() -> String {
    let found = std::fs::read_dir(FILES).into_iter().flatten().flatten();
    let named = found.filter_map(|file| Some((file.file_name().into_string().ok()?, file.path())));
    let read = named.filter_map(|(name, path)| Some((name, std::fs::read_to_string(path).ok()?)));
    object(&read.filter(|(name, _)| !name.starts_with("..")).collect())
}

fn object(texts: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> =
        texts.iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `ADDRESS` is an IP address and a port: a static program has no name resolution.
fn get(target: &str) -> io::Result<()> {
    let target = target.strip_prefix("http://").unwrap_or(target);
    let (address, path) = target.find('/').map_or((target, "/"), |at| target.split_at(at));
    let address: SocketAddr =
        address.parse().map_err(|_| io::Error::other(format!("no IP:PORT: {address}")))?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(head) = head else { return Err(io::Error::other("the answer is not HTTP")) };
    io::stdout().write_all(&answer[head + 4..])?;
    let status = answer[..head].split(|b| *b == b' ').nth(1).unwrap_or_default();
    if status.first() == Some(&b'2') {
        Ok(())
    } else {
        Err(io::Error::other(format!("HTTP status {}", String::from_utf8_lossy(status))))
    }
}

fn env() -> io::Result<()> {
    let all: BTreeMap<String, String> = std::env::vars().collect();
    all.iter().try_for_each(|(name, value)| writeln!(io::stdout(), "{name}={value}"))
}

/// The listening socket was made in one network namespace, this process lives in another: a door between them.
fn forward(target: &str) -> io::Result<()> {
    let target: SocketAddr = target.parse().map_err(|_| io::Error::other(format!("no IP:PORT: {target}")))?;
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    for inbound in listener.incoming().flatten() {
        let _ = std::thread::Builder::new().stack_size(128 << 10).spawn(move || join(inbound, target));
    }
    Ok(())
}

fn join(inbound: TcpStream, target: SocketAddr) -> io::Result<()> {
    let outbound = TcpStream::connect(target)?;
    inbound.set_nodelay(true)?;
    outbound.set_nodelay(true)?;
    let (from, to) = (inbound.try_clone()?, outbound.try_clone()?);
    let there = std::thread::Builder::new().stack_size(128 << 10).spawn(move || copy(from, to))?;
    let back = copy(outbound, inbound);
    let _ = there.join();
    back
}

/// One direction. Its end is passed on; an error ends both, as a reset would.
fn copy(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let result = io::copy(&mut from, &mut to);
    let how = if result.is_ok() { Shutdown::Write } else { Shutdown::Both };
    let _ = to.shutdown(how);
    if result.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    result.map(drop)
}
