//! Pools of static addresses as users write them: single addresses, ranges `FIRST-LAST` and networks `ADDRESS/LENGTH`.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::reader::{Field, Findings, quote};
use super::rules::is_cidr;

/// Most addresses of one pool. Each is kept in memory and looked at when a pool is nearly empty; no installation has
/// more slots than that either.
pub(super) const POOL_MAX: usize = 10_000;

/// The addresses of a list, in its order, each once.
pub(super) fn pool(list: &Field<'_>, findings: &mut Findings) -> Vec<IpAddr> {
    let mut pool = Vec::new();
    for item in list.items(findings).unwrap_or_default() {
        let Some(text) = item.text(findings) else { continue };
        match range(text) {
            Some((from, to)) => {
                pool.extend(addresses(from, to).take(POOL_MAX + 1 - pool.len().min(POOL_MAX)));
            }
            None => findings.report(
                &item,
                format!("{} is neither an IP address nor a range of them", quote(text)),
                "write 203.0.113.7, 203.0.113.7-203.0.113.20, 203.0.113.0/28 or the same with IPv6",
            ),
        }
    }
    if pool.len() > POOL_MAX {
        let rule = format!("the pool has more than {POOL_MAX} addresses");
        findings.report(list, rule, "write the part of the range that the class may use");
    }
    let mut seen = HashSet::new();
    if let Some(twice) = pool.iter().find(|ip| !seen.insert(**ip)) {
        findings.report(list, format!("the address {twice} is there twice"), "name each once");
    }
    pool
}

/// First and last address that a text names.
pub(super) fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    if is_cidr(text) {
        return network(text);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ends: (IpAddr, IpAddr) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (ends.0.is_ipv4() == ends.1.is_ipv4() && ends.0 <= ends.1).then_some(ends)
}

/// All addresses of a network, the first and the last included.
fn network(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (ip, length) = text.split_once('/')?;
    let (ip, length): (IpAddr, u32) = (ip.parse().ok()?, length.parse().ok()?);
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let hosts = u128::MAX.checked_shr(128 - (bits - length)).unwrap_or(0);
    let first = number(ip) & !hosts;
    Some((address(first, ip.is_ipv4()), address(first | hosts, ip.is_ipv4())))
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(bits) if v4 => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

/// From `first` to `last`, which are of one family.
pub(super) fn addresses(first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
    (number(first)..=number(last)).map(move |n| address(n, first.is_ipv4()))
}

/// A pool as [`pool`] reads it: runs of neighbours as ranges.
pub(super) fn render(pool: &[IpAddr]) -> Vec<String> {
    let follows =
        |a: &IpAddr, b: &IpAddr| a.is_ipv4() == b.is_ipv4() && number(*a).checked_add(1) == Some(number(*b));
    let runs = pool.chunk_by(follows);
    runs.flat_map(|run| match run {
        [first, .., last] if run.len() > 2 => vec![format!("{first}-{last}")],
        few => few.iter().map(ToString::to_string).collect(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Vec<String> {
        let (first, last) = range(text).unwrap();
        addresses(first, last).map(|ip| ip.to_string()).collect()
    }

    #[test]
    fn ranges_and_networks_name_every_address_of_theirs() {
        assert_eq!(expanded("203.0.113.7"), ["203.0.113.7"]);
        assert_eq!(expanded("203.0.113.255 - 203.0.114.0"), ["203.0.113.255", "203.0.114.0"]);
        assert_eq!(expanded("203.0.113.6/31"), ["203.0.113.6", "203.0.113.7"]);
        assert_eq!(expanded("203.0.113.6/32"), ["203.0.113.6"]);
        assert_eq!(expanded("2001:db8::fffe/127"), ["2001:db8::fffe", "2001:db8::ffff"]);
        assert_eq!(addresses("::".parse().unwrap(), "::3".parse().unwrap()).last(), "::3".parse().ok());
        assert_eq!(range("0.0.0.0/0").unwrap().1, "255.255.255.255".parse::<IpAddr>().unwrap());
        assert_eq!(range("::/0").unwrap().1, IpAddr::from(Ipv6Addr::from_bits(u128::MAX)));
    }

    #[test]
    fn what_names_no_addresses_is_refused() {
        for bad in
            ["", "203.0.113", "203.0.113.9-203.0.113.1", "203.0.113.1-2001:db8::1", "203.0.113.1/33", "a-b"]
        {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pool_is_written_as_it_is_read() {
        let pool: Vec<IpAddr> = ["203.0.113.7-203.0.113.9", "2001:db8::1", "203.0.113.1-203.0.113.2"]
            .into_iter()
            .filter_map(range)
            .flat_map(|(first, last)| addresses(first, last))
            .collect();
        let written = render(&pool);
        assert_eq!(written, ["203.0.113.7-203.0.113.9", "2001:db8::1", "203.0.113.1", "203.0.113.2"]);
        let read: Vec<IpAddr> =
            written.iter().filter_map(|t| range(t)).flat_map(|(a, b)| addresses(a, b)).collect();
        assert_eq!(read, pool);
    }
}
