//! The pages of the tree, as those who check them read them: `cargo xtask docs`, and the test that runs their shell blocks.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a page that cannot be read is found by whoever changed it"
)]

mod page;
mod reference;

pub use page::{Block, Page, Part, pages, tree};
pub use reference::{Reference, command_lines};

/// What a test does with a shell block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `sh`: it is run.
    Run,
    /// `sh foreground`: one command that stays until the page ends it.
    Foreground,
    /// `sh example`: it is not run.
    Example,
    /// `console`: typed lines behind `$`, and what they answer. It is not run.
    Session,
}

impl Mark {
    /// How a block is marked; nothing if it is none for a shell.
    ///
    /// # Errors
    /// Why nobody knows what to do with it.
    pub fn of(block: &Block) -> Result<Option<Self>, String> {
        let looks_typed = |text: &str| text.lines().any(|l| l.starts_with("$ ") || l.starts_with("ciderfs "));
        match block.info.as_str() {
            "sh" => Ok(Some(Self::Run)),
            "sh foreground" => Ok(Some(Self::Foreground)),
            "sh example" => Ok(Some(Self::Example)),
            "console" => Ok(Some(Self::Session)),
            info => match info.split([' ', ',', '{']).next().unwrap_or_default() {
                "sh" | "bash" | "shell" | "zsh" | "fish" | "console" | "shell-session" | "shellsession" => {
                    Err(format!(
                        "`{info}` is no mark of a shell block: sh, sh foreground, sh example or console"
                    ))
                }
                "" if looks_typed(&block.text) => Err("a shell block without a mark".to_owned()),
                _ => Ok(None),
            },
        }
    }

    /// What a shell would be given of the block.
    #[must_use]
    pub fn typed(self, block: &Block) -> String {
        if self != Self::Session {
            return block.text.clone();
        }
        let lines = block.text.lines().filter_map(|l| l.strip_prefix("$ ").or_else(|| l.strip_prefix("# ")));
        lines.map(|line| format!("{line}\n")).collect()
    }
}
