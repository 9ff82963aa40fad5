//! What a mounter is asked and answers: documents on a Unix socket, each after its length in four bytes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record;
use crate::spec::Spec;

/// Bytes of a message.
const MOST: u32 = 4 << 20;
/// What is added to the time that a request may take, for asking and answering.
const GRACE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Mount it, if it is not mounted; answer when it can be used.
    Mount {
        /// What.
        spec: Spec,
        /// How long the answer may take.
        patience: Duration,
    },
    /// Answer when what is mounted already can be used again.
    Await {
        /// Which.
        key: String,
        /// How long the answer may take.
        patience: Duration,
    },
    /// Unmount it; answer when everything is stored.
    Unmount {
        /// Which.
        key: String,
        /// How long the answer may take.
        patience: Duration,
    },
    /// What is there.
    List,
    /// Whoever asks has copies of what the supervisor of a mount holds, for the day when it dies together with the mounter.
    Held {
        /// Which.
        key: String,
        /// Where he gives them.
        at: PathBuf,
    },
    /// Ask the mount itself.
    Health {
        /// Which.
        key: String,
        /// How long the answer may take.
        patience: Duration,
    },
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is mounted.
    Mounted(Info),
    /// It is not there any more.
    Unmounted,
    /// What is there.
    List(Vec<Info>),
    /// Nothing if the mount answers, else what is wrong.
    Health(Option<String>),
    /// It is known now.
    Noted,
    /// It could not be done.
    Refused(Refusal, String),
}

/// Why something could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Somebody uses the mount.
    Busy,
    /// It is under way; ask again.
    UnderWay,
    /// The client says why.
    Failed,
    /// There is no such mount.
    Unknown,
    /// The mounter itself cannot.
    Internal,
}

/// How a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Its client starts.
    Starting,
    /// It can be used.
    Ready,
    /// Its client has crashed and is started again soon.
    Down,
    /// Its client has crashed, and its secrets are not known: whoever asks for the mount again brings them.
    NeedsSecrets,
    /// Its client stores what is left and ends.
    Unmounting,
}

/// A mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Info {
    /// Its name.
    pub key: String,
    /// What the cluster calls the volume.
    pub volume: String,
    /// Its options.
    pub options: Vec<String>,
    /// Where it is.
    pub mountpoint: PathBuf,
    /// How it is.
    pub state: State,
    /// Number of its device, major and minor, while it is ready.
    pub device: Option<(u32, u32)>,
    /// The client.
    pub pid: Option<i32>,
    /// How often the client was started again.
    pub restarts: u32,
    /// What the client says of itself.
    pub status: String,
    /// Where the mounter gives copies of what the client's supervisor holds.
    #[serde(default)]
    pub holder: Option<PathBuf>,
}

/// Writes a message.
pub(crate) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).ok().filter(|n| *n <= MOST);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the message is too long"))?;
    to.write_all(&[&length.to_be_bytes()[..], &text].concat())?;
    to.flush()
}

/// Reads one.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut text = vec![0; length as usize];
    from.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// What a mounter has refused, or why it does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It answers that it cannot.
    #[error("{1}")]
    Refused(Refusal, String),
    /// It does not answer.
    #[error("the mounter at {} does not answer: {error}; see its log", .socket.display())]
    Silent {
        /// Where it listens.
        socket: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

/// Asks a mounter.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The one that listens at a place.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    fn call(&self, request: &Request, patience: Duration) -> Result<Reply, Error> {
        let silent = |error| Error::Silent { socket: self.socket.clone(), error };
        let ask = || -> io::Result<Reply> {
            // Passwords are told to whoever listens there.
            record::check_place(&self.socket)?;
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(patience.saturating_add(GRACE)))?;
            stream.set_write_timeout(Some(GRACE))?;
            send(&mut stream, request)?;
            receive(&mut stream)
        };
        match ask().map_err(silent)? {
            Reply::Refused(why, text) => Err(Error::Refused(why, text)),
            reply => Ok(reply),
        }
    }

    fn other<T>(&self) -> Result<T, Error> {
        let error =
            io::Error::new(io::ErrorKind::InvalidData, "it answers something else than was asked for");
        Err(Error::Silent { socket: self.socket.clone(), error })
    }

    /// Mounts.
    ///
    /// # Errors
    /// [`Error`].
    pub fn mount(&self, spec: Spec, patience: Duration) -> Result<Info, Error> {
        match self.call(&Request::Mount { spec, patience }, patience)? {
            Reply::Mounted(info) => Ok(info),
            _ => self.other(),
        }
    }

    /// Waits until a mount can be used again.
    ///
    /// # Errors
    /// [`Error`].
    pub fn wait(&self, key: &str, patience: Duration) -> Result<Info, Error> {
        match self.call(&Request::Await { key: key.into(), patience }, patience)? {
            Reply::Mounted(info) => Ok(info),
            _ => self.other(),
        }
    }

    /// Unmounts. What is not there is unmounted.
    ///
    /// # Errors
    /// [`Error`].
    pub fn unmount(&self, key: &str, patience: Duration) -> Result<(), Error> {
        match self.call(&Request::Unmount { key: key.into(), patience }, patience) {
            Ok(Reply::Unmounted) | Err(Error::Refused(Refusal::Unknown, _)) => Ok(()),
            Ok(_) => self.other(),
            Err(e) => Err(e),
        }
    }

    /// What is there.
    ///
    /// # Errors
    /// [`Error`].
    pub fn list(&self) -> Result<Vec<Info>, Error> {
        match self.call(&Request::List, GRACE)? {
            Reply::List(all) => Ok(all),
            _ => self.other(),
        }
    }

    /// Says where copies of what the supervisor of a mount holds are given, should it die together with the mounter.
    ///
    /// # Errors
    /// [`Error`].
    pub fn held(&self, key: &str, at: &Path) -> Result<(), Error> {
        match self.call(&Request::Held { key: key.into(), at: at.to_owned() }, GRACE)? {
            Reply::Noted => Ok(()),
            _ => self.other(),
        }
    }

    /// What is wrong with a mount, if something is.
    ///
    /// # Errors
    /// [`Error`].
    pub fn health(&self, key: &str, patience: Duration) -> Result<Option<String>, Error> {
        match self.call(&Request::Health { key: key.into(), patience }, patience)? {
            Reply::Health(wrong) => Ok(wrong),
            _ => self.other(),
        }
    }
}
