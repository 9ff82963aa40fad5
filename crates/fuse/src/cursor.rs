//! Reading a message front to back without ever looking past its end.

use zerocopy::{FromBytes, Immutable, KnownLayout};

/// What is left of a message.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

/// The message ended before the thing named here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Short(pub &'static str);

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// A fixed-size structure, copied out (requests need not be aligned).
    pub fn get<T: FromBytes + KnownLayout + Immutable>(&mut self, what: &'static str) -> Result<T, Short> {
        let (value, rest) = T::read_from_prefix(self.rest).map_err(|_| Short(what))?;
        self.rest = rest;
        Ok(value)
    }

    /// A name ended by a zero byte; may not be empty.
    pub fn name(&mut self) -> Result<&'a [u8], Short> {
        match self.c_str("name")? {
            b"" => Err(Short("name")),
            name => Ok(name),
        }
    }

    /// Bytes up to a zero byte, which is consumed and not returned.
    pub fn c_str(&mut self, what: &'static str) -> Result<&'a [u8], Short> {
        let end = self.rest.iter().position(|&b| b == 0).ok_or(Short(what))?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(text)
    }

    /// Exactly `len` bytes.
    pub fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Short> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Short(what))?;
        self.rest = rest;
        Ok(head)
    }

    /// Everything that is left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
}
