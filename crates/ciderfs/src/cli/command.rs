//! Every command, defined once: what it is called, what it takes besides flags, what it is for.

use std::ffi::OsStr;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Makes and mounts a local volume.
    Up,
    /// Makes a volume.
    Format,
    /// Changes a volume.
    Config,
    /// Limits directories, users and groups.
    Quota,
    /// Shows a volume.
    Status,
    /// Looks for what keeps a volume from working here.
    Doctor,
    /// Shows a file.
    Info,
    /// Copies in the metadata.
    Clone,
    /// Removes trees.
    Rmr,
    /// Shows what a mount does.
    Stats,
    /// Shows which requests take the time.
    Profile,
    /// Writes the Secret of a volume for Kubernetes.
    K8sSecret,
    /// Mounts a volume.
    Mount,
    /// Unmounts one.
    Umount,
    /// Serves the Container Storage Interface.
    Csi,
    /// Keeps the clients of a machine.
    Mounter,
    /// Has another program serve a mount.
    Upgrade,
    /// Writes completions for a shell.
    Completions,
    /// Writes the manual page.
    Man,
    /// Shows the version.
    Version,
}

/// What an argument is that is no flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// A text.
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A place on this machine.
    Place,
    /// The address of metadata, which may name files.
    Source,
}

/// What help calls a group of commands, and the group itself, in the order of help.
pub const GROUPS: &[(&str, &[Command])] = &[
    ("Start here", &[Command::Up]),
    ("Volumes", &[Command::Format, Command::Config, Command::Quota, Command::Status, Command::Doctor]),
    ("Mounting", &[Command::Mount, Command::Umount, Command::Upgrade]),
    ("Trees on mounted volumes", &[Command::Clone, Command::Rmr]),
    ("Looking at files and mounts", &[Command::Info, Command::Stats, Command::Profile]),
    ("Kubernetes", &[Command::K8sSecret, Command::Csi, Command::Mounter]),
    ("This program", &[Command::Completions, Command::Man, Command::Version]),
];

/// All commands.
pub const EVERY: &[Command] = &[
    Command::Up,
    Command::Format,
    Command::Config,
    Command::Quota,
    Command::Status,
    Command::Doctor,
    Command::Info,
    Command::Clone,
    Command::Rmr,
    Command::Stats,
    Command::Profile,
    Command::K8sSecret,
    Command::Mount,
    Command::Umount,
    Command::Csi,
    Command::Mounter,
    Command::Upgrade,
    Command::Completions,
    Command::Man,
    Command::Version,
];

/// What `quota` does.
const QUOTA: Word = Word::Choice(&["set", "get", "delete", "list", "check"]);
/// Shells that there are completions for.
const SHELL: Word = Word::Choice(&["bash", "zsh", "fish"]);

/// How a command is described.
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, as help shows them.
    pub arguments: &'static str,
    /// What they are; the last one stands for all that follow.
    pub words: &'static [Word],
    /// What it does, in one line.
    pub help: &'static str,
}

impl Command {
    /// The description of the command.
    pub const fn about(self) -> About {
        let (name, arguments, words, help): (_, _, &[Word], _) = match self {
            Self::Up => {
                ("up", "MOUNTPOINT", &[Word::Place], "create a local volume if there is none, and mount it")
            }
            Self::Format => (
                "format",
                "META-URL NAME",
                &[Word::Source, Word::Text],
                "create a volume, or update an existing one",
            ),
            Self::Config => {
                ("config", "META-URL", &[Word::Source], "show or change the settings of a volume")
            }
            Self::Quota => (
                "quota",
                "set|get|delete|list|check META-URL",
                &[QUOTA, Word::Source],
                "limit directories, users and groups",
            ),
            Self::Status => {
                ("status", "META-URL", &[Word::Source], "show settings, sessions and use of a volume")
            }
            Self::Doctor => (
                "doctor",
                "[META-URL]",
                &[Word::Source],
                "check this machine, the engine and the bucket of a volume",
            ),
            Self::Info => (
                "info",
                "PATH...",
                &[Word::Place],
                "show the inode, objects and locks of files on a mounted volume",
            ),
            Self::Clone => (
                "clone",
                "SRC DST",
                &[Word::Place, Word::Place],
                "copy a file or a tree without copying its data",
            ),
            Self::Rmr => ("rmr", "PATH...", &[Word::Place], "remove files and trees, many at a time"),
            Self::Stats => {
                ("stats", "MOUNTPOINT", &[Word::Place], "show what a mount does, second by second")
            }
            Self::Profile => (
                "profile",
                "MOUNTPOINT|LOGFILE",
                &[Word::Place],
                "show which requests to a mount take the time",
            ),
            Self::K8sSecret => (
                "k8s-secret",
                "[VOLUME]",
                &[Word::Text],
                "write the Kubernetes Secret of a volume from an env file",
            ),
            Self::Mount => ("mount", "META-URL MOUNTPOINT", &[Word::Source, Word::Place], "mount a volume"),
            Self::Umount => ("umount", "MOUNTPOINT", &[Word::Place], "unmount a volume"),
            Self::Csi => ("csi", "", &[], "serve the Container Storage Interface: volumes of Kubernetes"),
            Self::Mounter => ("mounter", "", &[], "keep the clients of `csi` across its restarts"),
            Self::Upgrade => {
                ("upgrade", "MOUNTPOINT", &[Word::Place], "have another version serve a supervised mount")
            }
            Self::Completions => {
                ("completions", "bash|zsh|fish", &[SHELL], "write what completes our commands in a shell")
            }
            Self::Man => ("man", "", &[], "write the manual page, in roff"),
            Self::Version => ("version", "", &[], "show the version"),
        };
        About { name, arguments, words, help }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    /// The command of this name.
    pub fn named(word: &OsStr) -> Option<Self> {
        EVERY.iter().copied().find(|command| command.name() == word)
    }

    /// What its argument at this place is.
    pub fn word(self, index: usize) -> Word {
        let words = self.about().words;
        words.get(index).or(words.last()).copied().unwrap_or(Word::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_has_every_command_once() {
        let listed: Vec<_> = GROUPS.iter().flat_map(|(_, commands)| *commands).collect();
        for command in EVERY {
            assert_eq!(listed.iter().filter(|c| **c == command).count(), 1, "{command:?}");
            assert_eq!(Command::named(OsStr::new(command.name())), Some(*command));
        }
        assert_eq!(listed.len(), EVERY.len());
    }
}
