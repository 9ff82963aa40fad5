//! Addresses of this machine, for the record of a session.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, sendto, socket_with,
};

use crate::error::{Error, Result};

/// Types of messages (`linux/rtnetlink.h`, `linux/netlink.h`).
const GET_ADDRESSES: u16 = 22;
const NEW_ADDRESS: u16 = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// A request (`NLM_F_REQUEST`) for all there are (`NLM_F_DUMP`).
const REQUEST_ALL: u16 = 0x1 | 0x300;
/// The attributes of an address: the one of the other end, where there is one, and ours.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
/// Before each message, and in a message before the attributes.
const HEAD: usize = 16;
const ADDRESS_HEAD: usize = 8;
/// Messages of a dump come in pieces of at most 32 KiB.
const PIECE: usize = 1 << 15;

/// Addresses of the interfaces of these names, of all if none is named; not those of the machine for itself (127.0.0.1).
///
/// # Errors
/// There is no interface of such a name, or the kernel does not tell.
pub(crate) fn addresses(names: &[String]) -> Result<Vec<String>> {
    match found(names) {
        Ok(all) => Ok(all),
        // Nobody has asked for them.
        Err(e) if names.is_empty() => {
            tracing::debug!("addresses of this machine: {e}");
            Ok(Vec::new())
        }
        Err(e) => Err(e),
    }
}

fn found(names: &[String]) -> Result<Vec<String>> {
    let failed = |e: io::Error| Error::Volume(format!("the kernel does not tell its addresses: {e}"));
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(|e| failed(e.into()))?;
    let mut wanted = Vec::with_capacity(names.len());
    for name in names {
        let index = netdevice::name_to_index(&socket, name);
        wanted.push(index.map_err(|_| Error::Volume(unknown(name)))?);
    }
    let mut shown: Vec<String> = Vec::new();
    for (index, ip) in ask(&socket).map_err(failed)? {
        let (is_wanted, text) = (names.is_empty() || wanted.contains(&index), ip.to_string());
        if is_wanted && !ip.is_loopback() && !shown.contains(&text) {
            shown.push(text);
        }
    }
    Ok(shown)
}

/// Interfaces by number, with an address each.
fn ask(socket: &OwnedFd) -> io::Result<Vec<(u32, IpAddr)>> {
    let request = [
        &24u32.to_ne_bytes()[..],
        &GET_ADDRESSES.to_ne_bytes(),
        &REQUEST_ALL.to_ne_bytes(),
        // Number of the request, who asks, and no family of addresses in particular.
        &[0; 16],
    ]
    .concat();
    sendto(socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let (mut out, mut piece) = (Vec::new(), vec![0; PIECE]);
    loop {
        let (got, _) = recv(socket, &mut piece[..], RecvFlags::empty())?;
        let told = parse(piece.get(..got).unwrap_or_default())?;
        out.extend(told.addresses);
        if told.is_last || got == 0 {
            return Ok(out);
        }
    }
}

fn unknown(name: &str) -> String {
    let mut there: Vec<String> = std::fs::read_dir("/sys/class/net")
        .map(|dir| dir.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    there.sort();
    let hint = if there.is_empty() { String::new() } else { format!("; there are {}", there.join(", ")) };
    format!("this machine has no network interface {name:?}{hint}")
}

/// What a piece of the answer tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// Interfaces by number, with an address each.
    addresses: Vec<(u32, IpAddr)>,
    is_last: bool,
}

fn parse(mut rest: &[u8]) -> io::Result<Told> {
    let mut told = Told::default();
    while let Some((head, _)) = rest.split_at_checked(HEAD) {
        let length = (u32_at(head, 0) as usize).clamp(HEAD, rest.len());
        let (kind, body) = (u16_at(head, 4), &rest[HEAD..length]);
        match kind {
            DONE => told.is_last = true,
            ERROR => {
                let code = i32::from_ne_bytes(u32_at(body, 0).to_ne_bytes());
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            NEW_ADDRESS => told.addresses.extend(address(body)),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(told)
}

/// The number of the interface and the address that a message tells.
fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let (head, mut rest) = body.split_at_checked(ADDRESS_HEAD)?;
    let (mut ours, mut any) = (None, None);
    while let Some((head, _)) = rest.split_at_checked(4) {
        let length = usize::from(u16_at(head, 0)).clamp(4, rest.len());
        let value = &rest[4..length];
        let ip = <[u8; 4]>::try_from(value).map(IpAddr::from);
        let ip = ip.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok();
        match u16_at(head, 2) {
            LOCAL => ours = ip,
            ADDRESS => any = ip,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((u32_at(head, 4), ours.or(any)?))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_ne_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let head = [(HEAD + body.len()) as u32, u32::from(kind), 0, 0];
        let mut out: Vec<u8> =
            head.iter().flat_map(|n| n.to_ne_bytes()).chain(body.iter().copied()).collect();
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let head = [(4 + value.len()) as u16, kind];
        let mut out: Vec<u8> =
            head.iter().flat_map(|n| n.to_ne_bytes()).chain(value.iter().copied()).collect();
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn of_interface(n: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        [&[0; 4][..], &n.to_ne_bytes(), &attributes.concat()].concat()
    }

    #[test]
    fn answers() {
        let (far, near) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let six = Ipv6Addr::LOCALHOST;
        let label = attribute(3, b"eth0\0");
        let tunnel = [attribute(ADDRESS, &far.octets()), label, attribute(LOCAL, &near.octets())];
        let whole = [
            message(NEW_ADDRESS, &of_interface(2, &tunnel)),
            message(NEW_ADDRESS, &of_interface(7, &[attribute(ADDRESS, &six.octets())])),
            message(NEW_ADDRESS, &of_interface(9, &[])),
            message(DONE, &[0; 4]),
        ]
        .concat();
        let told = parse(&whole).unwrap();
        assert_eq!(told, Told { addresses: vec![(2, near.into()), (7, six.into())], is_last: true });
        let refused = message(ERROR, &(-13i32).to_ne_bytes());
        assert_eq!(parse(&refused).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        // Whatever is cut off, or says that it is of another length.
        for n in 0..whole.len() {
            let _ = parse(&whole[..n]);
            for wrong in [0, 1, 3, 5, 255] {
                let mut damaged = whole.clone();
                damaged[n] = wrong;
                let _ = parse(&damaged);
            }
        }
    }

    /// Addresses of the fourth version, as the kernel lists them elsewhere: lines with an address, and below what it is.
    fn fourth() -> Vec<String> {
        let text = std::fs::read_to_string("/proc/net/fib_trie").unwrap();
        let mut out = Vec::new();
        let mut last = "";
        for line in text.lines().map(str::trim_start) {
            if let Some(ip) = line.strip_prefix("|-- ") {
                last = ip;
            } else if line == "/32 host LOCAL" {
                out.push(last.to_owned());
            }
        }
        out
    }

    /// Those of the sixth, with their interfaces.
    fn sixth() -> Vec<(String, String)> {
        // Not there without that version.
        let text = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ip = |hex: &str| Ipv6Addr::from(u128::from_str_radix(hex, 16).unwrap()).to_string();
        words.map(|words| (words[5].to_owned(), ip(words[0]))).collect()
    }

    fn is_shown(ip: &str) -> bool {
        !ip.parse::<IpAddr>().unwrap().is_loopback()
    }

    fn sorted(mut all: Vec<String>) -> Vec<String> {
        all.retain(|ip| is_shown(ip));
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn of_this_machine() {
        let names: Vec<String> = std::fs::read_dir("/sys/class/net")
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        let of = |names: &[String]| sorted(addresses(names).unwrap());
        let all = sorted(fourth().into_iter().chain(sixth().into_iter().map(|(_, ip)| ip)).collect());
        assert_eq!(of(&[]), all);
        assert_eq!(of(&names), all);
        let mut each = Vec::new();
        for name in &names {
            let own = of(std::slice::from_ref(name));
            let six = sixth().into_iter().filter(|(of, _)| of == name).map(|(_, ip)| ip).collect();
            assert_eq!(own.iter().filter(|ip| ip.contains(':')).cloned().collect::<Vec<_>>(), sorted(six));
            each.extend(own);
        }
        assert_eq!(sorted(each), all);
        assert_eq!(of(&["lo".into()]), Vec::<String>::new());
        for wrong in ["", "a-name-that-no-interface-can-have", "eth0\n"] {
            assert!(addresses(&[wrong.into()]).is_err(), "{wrong}");
        }
        let wrong = addresses(&["lo".into(), "no-such".into()]).unwrap_err().to_string();
        assert!(
            wrong.starts_with("this machine has no network interface \"no-such\"; there are "),
            "{wrong}"
        );
        assert!(wrong.contains("lo"), "{wrong}");
    }

    #[tokio::test]
    async fn in_the_record_of_a_session() {
        use std::sync::Arc;

        use ciderfs_format::Settings;
        use ciderfs_format::session::SessionInfo;

        use crate::{Meta, MetaConfig, memory::MemoryStore, store::Store};

        let store = Arc::new(MemoryStore::new());
        let settings = Settings::new("vol", "5d2b1c9a-7d0c-4a2b-9a35-3a1f6a4d2c11", "mem", "mem");
        Meta::write_settings(store.as_ref(), &settings, None).await.unwrap();
        let load = async |names: &[&str]| {
            let network_interfaces = names.iter().map(|name| (*name).to_owned()).collect();
            let cfg = MetaConfig { network_interfaces, ..MetaConfig::default() };
            Meta::load(Arc::clone(&store) as Arc<dyn Store>, cfg).await.unwrap()
        };
        for (names, want) in [(&[][..], addresses(&[]).unwrap()), (&["lo"][..], Vec::new())] {
            let meta = load(names).await;
            meta.start_session().await.unwrap();
            let rows = meta.sessions().await.unwrap();
            assert_eq!(SessionInfo::decode(&rows[0].info).unwrap().ip_addrs, want);
            let raw = String::from_utf8(rows[0].info.to_vec()).unwrap();
            assert_eq!(raw.contains("IPAddrs"), !want.is_empty(), "{raw}");
            meta.close_session().await.unwrap();
        }
        let meta = load(&["no-such"]).await;
        assert!(meta.start_session().await.unwrap_err().to_string().contains("no network interface"));
        assert!(meta.sessions().await.unwrap().is_empty());
    }
}
