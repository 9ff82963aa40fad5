//! The Lua scripts.

use redis::{Cmd, Script};

use crate::limits;

/// The scripts, with the hashes by which a server knows them.
pub(crate) struct Scripts {
    /// Guards and writes of a commit.
    pub commit: Lua,
    /// Several reads at one moment; an entry with the attributes of its target.
    pub read: Lua,
    /// A page of a directory.
    pub list: Lua,
    /// A command that lists, with bounded elements.
    pub scan: Lua,
    /// A background job's stamp.
    pub claim: Lua,
    /// Counts of references that say nothing.
    pub forget: Lua,
}

/// One script.
pub(crate) struct Lua {
    text: String,
    hash: String,
}

impl Lua {
    fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// `EVALSHA`, or `EVAL` if the server answered `NOSCRIPT`; it knows the script from then on.
    pub fn call(&self, whole: bool, keys: &[impl AsRef<[u8]>], args: &[impl AsRef<[u8]>]) -> Cmd {
        let mut cmd = Cmd::new();
        if whole {
            cmd.arg("EVAL").arg(&self.text);
        } else {
            cmd.arg("EVALSHA").arg(&self.hash);
        }
        cmd.arg(keys.len());
        for part in keys {
            cmd.arg(part.as_ref());
        }
        for part in args {
            cmd.arg(part.as_ref());
        }
        cmd
    }
}

impl Scripts {
    pub fn new() -> Self {
        let call = include_str!("scripts/call.lua");
        let decimal = include_str!("scripts/decimal.lua");
        let xattrs = include_str!("scripts/xattrs.lua");
        let limits = limits::as_lua();
        let bounded = &format!("{limits}{}", include_str!("scripts/bounded.lua"));
        Self {
            commit: Lua::new(&[call, decimal, bounded, xattrs, include_str!("scripts/commit.lua")]),
            read: Lua::new(&[call, decimal, bounded, xattrs, include_str!("scripts/read.lua")]),
            list: Lua::new(&[call, decimal, bounded, include_str!("scripts/list.lua")]),
            scan: Lua::new(&[call, bounded, include_str!("scripts/scan.lua")]),
            claim: Lua::new(&[call, include_str!("scripts/claim.lua")]),
            forget: Lua::new(&[call, include_str!("scripts/forget.lua")]),
        }
    }
}
