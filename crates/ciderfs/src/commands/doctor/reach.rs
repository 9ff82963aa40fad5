//! Names and connections: the same for both ends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::report::Finding;

/// What the checks of an end are called.
pub struct Names {
    /// The look-up of its name.
    pub dns: &'static str,
    /// The connection.
    pub tcp: &'static str,
}

/// Can the end be reached? Of several nodes one is enough.
pub async fn reach(names: &Names, nodes: &[(String, u16)], limit: Duration) -> (bool, Vec<Finding>) {
    let mut tasks = Vec::new();
    for node in nodes {
        tasks.push(tokio::spawn(try_node(node.clone(), limit)));
    }
    let mut tried = Vec::new();
    for task in tasks {
        tried.extend(task.await);
    }
    let is_found = tried.iter().any(|(dns, _)| dns.is_ok());
    let is_there = tried.iter().any(|(_, tcp)| tcp.as_ref().is_some_and(Result::is_ok));
    let mut findings = Vec::new();
    for (dns, tcp) in tried {
        findings.push(match dns {
            Ok(text) => Finding::ok(names.dns, text),
            Err(text) => {
                bad(names.dns, is_found, text, "check the name, and /etc/resolv.conf of this machine")
            }
        });
        findings.push(match tcp {
            Some(Ok(text)) => Finding::ok(names.tcp, text),
            Some(Err((text, remedy))) => bad(names.tcp, is_there, text, remedy),
            None => {
                Finding::skipped(names.tcp, "there is no address to connect to", "correct the name first")
            }
        });
    }
    (is_there, findings)
}

fn bad(check: &'static str, is_enough: bool, text: String, remedy: &'static str) -> Finding {
    match is_enough {
        true => Finding::warning(check, text, remedy),
        false => Finding::failed(check, text, remedy),
    }
}

type Tcp = Result<String, (String, &'static str)>;

async fn try_node((host, port): (String, u16), limit: Duration) -> (Result<String, String>, Option<Tcp>) {
    let addresses: Vec<SocketAddr> = match timeout(limit, lookup_host((host.as_str(), port))).await {
        Err(_) => return (Err(format!("{host}: the name server does not answer")), None),
        Ok(Err(e)) => return (Err(format!("{host}: {e}")), None),
        Ok(Ok(found)) => found.collect(),
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let name = match shown.contains(&host) {
        true => format!("{host} is an address"),
        false => format!("{host} is {}", shown.join(", ")),
    };
    let at = format!("{host} port {port}");
    let tcp = match timeout(limit, TcpStream::connect(&addresses[..])).await {
        Ok(Ok(_)) => Ok(format!("{at} takes connections")),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => Err((
            format!("{at}: {e}"),
            "start the server there, and check its port and the addresses it listens at (bind)",
        )),
        Ok(Err(e)) => Err((format!("{at}: {e}"), "check the network and the routes of this machine")),
        Err(_) => Err((
            format!("{at} does not answer within {} seconds", limit.as_secs()),
            "open the port in the firewalls on the way, and check the address",
        )),
    };
    (Ok(name), Some(tcp))
}
