//! One request, owning its bytes.

use bytes::Bytes;
use zerocopy::FromBytes;

use crate::abi::{EXT_GROUPS, opcode, wire};
use crate::buffer::Body;
use crate::cursor::Cursor;
use crate::op::{self, Op};

/// Length of the header in bytes.
const HEADER: usize = size_of::<wire::InHeader>();

/// A request whose bytes make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The bytes end before something that the operation needs.
    #[error("malformed {} request: missing or short {what}", opcode::name(*.opcode))]
    Malformed {
        /// Operation code.
        opcode: u32,
        /// What is missing.
        what: &'static str,
    },
    /// The header itself is wrong: too short or with a length that does not match.
    #[error("request of {got} bytes with a wrong header")]
    Header {
        /// Bytes received.
        got: usize,
    },
}

impl ParseError {
    /// What to answer.
    pub fn errno(&self) -> i32 {
        libc::EIO
    }
}

/// Who asks for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number of the request on this connection.
    pub unique: u64,
    /// [`crate::abi::opcode`].
    pub opcode: u32,
    /// Node that the operation concerns.
    pub nodeid: u64,
    /// Caller's user id for file system checks.
    pub uid: u32,
    /// Caller's group id for file system checks.
    pub gid: u32,
    /// Caller's thread id, 0 for requests of the kernel itself or of another pid name space.
    pub pid: u32,
}

/// A request: its header and the bytes of its arguments. Owned, so it can move to another thread or task; small
/// requests own a right-sized allocation, large ones a buffer of the session's bounded pool, so do not keep
/// them longer than needed.
pub struct Request {
    body: Body,
    header: Header,
    /// Where the arguments end and the extensions begin.
    args_end: usize,
    setxattr_ext: bool,
}

impl Request {
    pub(crate) fn new(body: Body, setxattr_ext: bool) -> Result<Self, ParseError> {
        let bytes = body.as_ref();
        let wrong = ParseError::Header { got: bytes.len() };
        let Ok((h, _)) = wire::InHeader::read_from_prefix(bytes) else { return Err(wrong) };
        if h.len as usize != bytes.len() {
            return Err(wrong);
        }
        let extensions = usize::from(h.total_extlen) * 8;
        let args_end = bytes.len().checked_sub(extensions).filter(|&end| end >= HEADER).ok_or(wrong)?;
        let (unique, nodeid, uid, gid, pid) = (h.unique, h.nodeid, h.uid, h.gid, h.pid);
        let header = Header { unique, opcode: h.opcode, nodeid, uid, gid, pid };
        Ok(Self { body, header, args_end, setxattr_ext })
    }

    /// Who asks for what.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The operation, borrowing from this request.
    ///
    /// # Errors
    /// [`ParseError`] when the arguments are cut short; answer its errno.
    pub fn op(&self) -> Result<Op<'_>, ParseError> {
        let args = self.body.as_ref().get(HEADER..self.args_end).unwrap_or_default();
        op::parse(self.header.opcode, args, self.setxattr_ext)
            .map_err(|short| ParseError::Malformed { opcode: self.header.opcode, what: short.0 })
    }

    /// The data of a WRITE without a copy; empty for every other operation. The receive buffer stays in use
    /// until the last piece of the data is dropped.
    pub fn into_data(self) -> Bytes {
        let range = match self.op() {
            Ok(Op::Write { data, .. }) => {
                let start = HEADER + size_of::<wire::WriteIn>();
                start..start + data.len()
            }
            _ => return Bytes::new(),
        };
        Bytes::from_owner(self.body).slice(range)
    }

    /// Whether a request after a hand-over was possibly seen by the former server.
    pub fn is_resend(&self) -> bool {
        self.header.unique & crate::abi::UNIQUE_RESEND != 0
    }

    /// Supplementary groups sent with operations that make nodes (CREATE_SUPP_GROUP); empty if none.
    pub fn supplementary_groups(&self) -> Vec<u32> {
        let mut c = Cursor::new(self.body.as_ref().get(self.args_end..).unwrap_or_default());
        while let Ok(ext) = c.get::<wire::ExtHeader>("extension") {
            let len = (ext.size as usize).saturating_sub(size_of::<wire::ExtHeader>());
            let Ok(data) = c.bytes(len.min(c.remaining()), "extension") else { break };
            if ext.typ == EXT_GROUPS {
                let mut groups = Cursor::new(data);
                let count = groups.get::<u32>("count").unwrap_or(0);
                return (0..count).map_while(|_| groups.get::<u32>("group").ok()).collect();
            }
        }
        Vec::new()
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = opcode::name(self.header.opcode);
        f.debug_struct("Request").field("op", &name).field("header", &self.header).finish_non_exhaustive()
    }
}
