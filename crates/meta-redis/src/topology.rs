//! Which server to talk to: asked anew for every connection, so that failovers and moved slots are followed.

use std::error::Error;

use ciderfs_bounded::KEY_FILE_MAX;
use ciderfs_format::{Secret, shown};
use ciderfs_meta::store::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _,
    RedisConnectionInfo, TlsCertificates, Value as Reply, cmd,
};

use crate::address::{Address, Node, Place};
use crate::error::{Refusal, explain, explain_auth, explain_connect};
use crate::reply;

/// Environment variable with the password of the data servers.
const PASSWORD_ENV: [&str; 2] = ["REDIS_PASSWORD", "META_PASSWORD"];
/// Environment variable that names a file with it.
const PASSWORD_FILE_ENV: &str = "META_PASSWORD_FILE";
/// Environment variable with the password of the sentinels.
const SENTINEL_ENV: &str = "SENTINEL_PASSWORD";

/// Opens connections to the server that holds the volume now.
pub(crate) struct Servers {
    pub address: Address,
    /// Nodes of the cluster, if it is one.
    pub cluster: Option<Vec<Node>>,
    password: Option<Secret>,
    sentinel_password: Option<Secret>,
    tls: TlsCertificates,
}

impl Servers {
    /// `password` is for an address that has none; without it the environment is asked.
    pub fn new(address: Address, password: Option<Secret>) -> Result<Self, StoreError> {
        let password = match address.password.clone().or(password) {
            Some(password) => Some(password),
            None => password_from_environment()?,
        };
        let read = |path: &std::path::Path| {
            ciderfs_bounded::read(path, KEY_FILE_MAX)
                .map_err(|e| StoreError::fatal(format!("TLS file {}: {e}", shown(path))).because(e))
        };
        if address.tls.is_some() {
            // The one that the S3 client uses; an error means that the program has chosen one already.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let settings = address.tls.clone().unwrap_or_default();
        let client_tls = match &settings.client {
            Some((cert, key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
            None => None,
        };
        let root_cert = settings.ca.as_deref().map(read).transpose()?;
        let cluster = if let Place::Cluster(nodes) = &address.place { Some(nodes.clone()) } else { None };
        let sentinel_password = from_environment(SENTINEL_ENV);
        Ok(Self {
            address,
            cluster,
            password,
            sentinel_password,
            tls: TlsCertificates { client_tls, root_cert },
        })
    }

    /// From now on for somebody who has none.
    pub fn forget_password(&mut self) {
        self.password = None;
        self.address.user = None;
    }

    /// A connection to look at the server with. No database is selected on a single one: it may be a node of a cluster.
    pub async fn probe(&self) -> Result<MultiplexedConnection, StoreError> {
        match &self.address.place {
            Place::Single(node) => self.node(node, false).await,
            _ => self.connect().await,
        }
    }

    /// Connects to the server that holds the volume now.
    pub async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        if let Some(nodes) = &self.cluster {
            return self.connect_slot(nodes).await;
        }
        match &self.address.place {
            Place::Single(node) => self.node(node, true).await,
            Place::Unix(path) => {
                self.open(ConnectionAddr::Unix(path.clone()), &shown(path), self.data(true)).await
            }
            Place::Sentinel { master, sentinels } => self.connect_master(master, sentinels).await,
            Place::Cluster(nodes) => self.connect_slot(nodes).await,
        }
    }

    /// Credentials and database of the data servers.
    fn data(&self, select: bool) -> Login<'_> {
        Login {
            user: self.address.user.as_deref(),
            password: self.password.as_ref(),
            db: if select { self.address.db } else { 0 },
        }
    }

    async fn node(&self, node: &Node, select: bool) -> Result<MultiplexedConnection, StoreError> {
        self.open(self.addr(node), &format!("{}:{}", node.0, node.1), self.data(select)).await
    }

    fn addr(&self, (host, port): &Node) -> ConnectionAddr {
        match &self.address.tls {
            None => ConnectionAddr::Tcp(host.clone(), *port),
            Some(tls) => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: tls.insecure,
                tls_params: None,
            },
        }
    }

    async fn open(
        &self,
        addr: ConnectionAddr,
        shown: &str,
        login: Login<'_>,
    ) -> Result<MultiplexedConnection, StoreError> {
        let tls = matches!(addr, ConnectionAddr::TcpTls { .. });
        let bare = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = addr.into_connection_info().map(|c| c.set_redis_settings(bare));
        let client = info.and_then(|info| {
            if tls { Client::build_with_tls(info, self.tls.clone()) } else { Client::open(info) }
        });
        let client = client.map_err(|e| StoreError::fatal(format!("{shown}: {e}")).because(e))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.address.connect_timeout))
            .set_response_timeout(Some(self.address.read_timeout));
        let mut conn = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|e| explain_connect(shown, &e))?;
        login.enter(shown, &mut conn).await?;
        Ok(conn)
    }

    /// Asks the sentinels, in turn, for the master.
    async fn connect_master(
        &self,
        master: &str,
        sentinels: &[Node],
    ) -> Result<MultiplexedConnection, StoreError> {
        let mut error = StoreError::fatal("the address names no sentinel");
        for sentinel in sentinels {
            match self.ask_sentinel(master, sentinel).await {
                Ok(node) => return self.node(&node, true).await,
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    async fn ask_sentinel(&self, master: &str, sentinel: &Node) -> Result<Node, StoreError> {
        let shown = format!("sentinel {}:{}", sentinel.0, sentinel.1);
        let login = Login { user: None, password: self.sentinel_password.as_ref(), db: 0 };
        let mut conn = self.open(self.addr(sentinel), &shown, login).await?;
        let mut ask = cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(master);
        let answer = conn.send_packed_command(&ask).await.and_then(Reply::extract_error);
        let parts = reply::strings(answer.map_err(|e| explain(&shown, &e, false))?)?;
        let [host, port] = parts.as_slice() else {
            // A sentinel that was just started may not know its masters yet.
            return Err(StoreError::unavailable(format!("{shown} does not know a master named {master:?}")));
        };
        Ok((String::from_utf8_lossy(host).into_owned(), reply::number(port)?))
    }

    /// Asks the nodes, in turn, who holds the slot of our keys.
    async fn connect_slot(&self, nodes: &[Node]) -> Result<MultiplexedConnection, StoreError> {
        let mut error = StoreError::fatal("the address names no node");
        for seed in nodes {
            match self.find_owner(seed).await {
                Ok((node, conn)) if node == *seed => return Ok(conn),
                Ok((node, _)) => return self.node(&node, false).await,
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    async fn find_owner(&self, seed: &Node) -> Result<(Node, MultiplexedConnection), StoreError> {
        let shown = format!("{}:{}", seed.0, seed.1);
        let mut conn = self.node(seed, false).await?;
        let mut pipe = redis::pipe();
        pipe.cmd("CLUSTER").arg("KEYSLOT").arg(format!("{{{}}}", self.address.db));
        pipe.cmd("CLUSTER").arg("SLOTS");
        let answers = conn.send_packed_commands(&pipe, 0, 2).await.map_err(|e| explain(&shown, &e, false))?;
        let mut answers =
            answers.into_iter().map(|v| v.extract_error().map_err(|e| explain(&shown, &e, false)));
        let mut next = || answers.next().unwrap_or(Ok(Reply::Nil));
        let slot = reply::int(next()?)?.unwrap_or(0);
        for range in reply::array(next()?)? {
            let mut range = reply::array(range)?.into_iter();
            let mut field = || range.next().unwrap_or_default();
            let (first, last) = (reply::int(field())?.unwrap_or(-1), reply::int(field())?.unwrap_or(-1));
            if !(first..=last).contains(&slot) {
                continue;
            }
            let mut master = reply::array(field())?.into_iter();
            let host = reply::bytes(master.next().unwrap_or_default())?.unwrap_or_default();
            let host = String::from_utf8_lossy(&host).into_owned();
            let port = reply::int(master.next().unwrap_or_default())?.unwrap_or(0);
            // A node that does not know its own address leaves it empty: it is the one we asked.
            let host = if host.is_empty() || host == "?" { seed.0.clone() } else { host };
            let port = u16::try_from(port).map_err(|_| reply::odd("a port", &Reply::Int(port)))?;
            return Ok(((host, port), conn));
        }
        Err(StoreError::unavailable(format!("{shown}: no node of the cluster serves slot {slot}")))
    }
}

/// What a new connection begins with. The driver would do that itself, and tell refusals in words of its own, by which those that
/// pass cannot be told from others.
struct Login<'a> {
    user: Option<&'a str>,
    password: Option<&'a Secret>,
    db: u32,
}

impl Login<'_> {
    /// One turn also where there is nothing to say: a server that has no room for us, or that still loads, says so now.
    async fn enter(&self, shown: &str, conn: &mut MultiplexedConnection) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        if let Some(password) = self.password {
            pipe.cmd("AUTH");
            if let Some(user) = self.user {
                pipe.arg(user);
            }
            pipe.arg(password.expose());
        }
        let select = self.db != 0;
        if select {
            pipe.cmd("SELECT").arg(self.db);
        } else {
            pipe.cmd("PING");
        }
        let count = pipe.len();
        let answers =
            conn.send_packed_commands(&pipe, 0, count).await.map_err(|e| explain_connect(shown, &e))?;
        let mut answers = answers.into_iter().map(Reply::extract_error);
        if self.password.is_some()
            && let Some(Err(e)) = answers.next()
        {
            return Err(self.silent(explain_auth(shown, &e)));
        }
        match answers.next() {
            // Only asked for its answer, whichever it is.
            Some(Err(e)) if !select && Refusal::of(&e).is_some() => Ok(()),
            Some(Err(e)) => Err(self.silent(explain_connect(shown, &e))),
            _ => Ok(()),
        }
    }

    /// Servers repeat in an error what they were sent.
    fn silent(&self, e: StoreError) -> StoreError {
        let Some(password) = self.password else { return e };
        let tells = |e: &dyn Error| {
            let text = e.to_string();
            password.hidden_in(&text) != text
        };
        let is_silent = !tells(&e) && !e.source().is_some_and(tells);
        if is_silent { e } else { e.reworded(|text| password.hidden_in(text)) }
    }
}

fn from_environment(name: &str) -> Option<Secret> {
    Secret::given(std::env::var(name).ok())
}

fn password_from_environment() -> Result<Option<Secret>, StoreError> {
    if let Some(password) = PASSWORD_ENV.into_iter().find_map(from_environment) {
        return Ok(Some(password));
    }
    match std::env::var(PASSWORD_FILE_ENV) {
        Ok(path) if !path.is_empty() => match ciderfs_bounded::read_text(&path, KEY_FILE_MAX) {
            Ok(text) => Ok(Some(text.trim().into())),
            Err(e) => Err(StoreError::fatal(format!("{PASSWORD_FILE_ENV}={path}: {e}")).because(e)),
        },
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use redis::{ErrorKind, RedisError};

    use super::*;

    /// The words of the driver's error are not shown, but whoever asks for the source of an error sees them.
    #[test]
    fn an_error_with_the_password_is_not_kept() {
        let password = "s3cret".to_owned().into();
        let login = Login { user: None, password: Some(&password), db: 1 };
        let told = |said: &str| {
            let e = RedisError::from((ErrorKind::Extension, "ERR", said.to_owned()));
            login.silent(explain("server", &e, false))
        };
        for said in ["unknown command 'AUTH', with args beginning with: 's3cret'", "s3cret: what is this?"] {
            let e = told(said);
            assert!(e.source().is_none() && !format!("{e:?}").contains("s3cret"), "{e:?}");
        }
        let e = told("no idea");
        assert!(e.source().is_some_and(|e| e.to_string().contains("no idea")), "{e:?}");
    }
}
