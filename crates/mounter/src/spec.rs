//! What is to be mounted, and the command line for it.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use ciderfs_format::{Secret, is_secret_name, shown_address};
use ciderfs_fuse::mount::is_one;
use serde::{Deserialize, Serialize};

/// Variable with the password of the engine.
const PASSWORD: &str = "META_PASSWORD";
/// Another one, which wins over it.
const OTHER_PASSWORD: &str = "REDIS_PASSWORD";

/// What is to be mounted. Two that are equal are one mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// What the cluster calls the volume.
    pub volume: String,
    /// Address of the metadata, without a password.
    pub source: String,
    /// Options of the mount, each `NAME` or `NAME=VALUE`, without secrets.
    pub options: Vec<String>,
    /// The client's environment: passwords, keys, and what the user wants there.
    pub secrets: BTreeMap<String, Secret>,
}

impl Spec {
    /// Takes secrets out of the address, and refuses those that would stand in the command line.
    ///
    /// # Errors
    /// What is wrong, for whoever has written it.
    pub fn new(
        volume: &str,
        address: &str,
        options: Vec<String>,
        mut secrets: BTreeMap<String, Secret>,
    ) -> Result<Self, String> {
        let (source, password) = without_password(address)?;
        if let Some(password) = password {
            // What stands in the address comes before any variable.
            secrets.remove(OTHER_PASSWORD);
            secrets.insert(PASSWORD.into(), password);
        }
        for option in &options {
            let name = option.split('=').next().unwrap_or(option);
            if is_secret_name(name) && option.contains('=') {
                return Err(format!(
                    "mount option {name} is a secret: everybody could read it in the command line; give it as a key of the Secret, or in `envs` there"
                ));
            }
            if option.contains(['\0', '\n']) {
                return Err(format!("mount option {name:?} has a line break or zero byte in it"));
            }
            // Or it would take what comes after it, such as the directory.
            if !is_one(option) {
                return Err(format!(
                    "mount option {name:?} has a comma in it, or a quote without the other one"
                ));
            }
        }
        if let Some(name) = secrets.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(format!("envs: {name:?} is no name of a variable"));
        }
        if let Some(name) = secrets.keys().find(|name| is_of_the_system(name)) {
            return Err(format!(
                "envs: {name} decides what runs on the node, or is the mounter's own: it cannot be set there"
            ));
        }
        if secrets.values().any(|value| value.expose().contains('\0')) {
            return Err("envs: a value has a zero byte in it".into());
        }
        Ok(Self { volume: volume.into(), source, options, secrets })
    }

    /// The same but for secrets?
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.volume, &self.source, &self.options) == (&other.volume, &other.source, &other.options)
    }

    /// The client that serves it at a place, in the foreground. With `supervised` it is a process that has the client as its child
    /// and starts that again on the same connection: nothing else here depends on it.
    pub fn command(&self, program: &Path, mountpoint: &Path, supervised: bool) -> Command {
        let mut options = self.options.clone();
        if supervised {
            options.push("supervised".into());
        }
        // As mount(8) calls it: names of flags and of options of the kernel in one list.
        let mut command = Command::new(program);
        command.arg0("mount.ciderfs").arg(&self.source).arg(mountpoint);
        if !options.is_empty() {
            command.arg("-o").arg(options.join(","));
        }
        self.environment(&mut command);
        command
    }

    /// A supervisor that goes on with the mount of one that has ended, of which somebody gives copies.
    pub fn resume(&self, program: &Path, holder: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["mount", "--supervised", "--resume-from"]).arg(holder);
        self.environment(&mut command);
        command
    }

    fn environment(&self, command: &mut Command) {
        for (name, value) in &self.secrets {
            command.env(name, value.expose());
        }
        command.env("JFS_FOREGROUND", "1").env_remove("CALL_VIA_MOUNT").current_dir("/");
    }
}

/// Variables that make a program load or run something else, or that are between the mounter and its clients.
fn is_of_the_system(name: &str) -> bool {
    const BEGINNINGS: [&str; 3] = ["LD_", "BASH_", "CIDERFS_"];
    const NAMES: [&str; 13] = [
        "PATH",
        "HOME",
        "IFS",
        "ENV",
        "SHELL",
        "SHELLOPTS",
        "GCONV_PATH",
        "LOCPATH",
        "GLIBC_TUNABLES",
        "NOTIFY_SOCKET",
        "JFS_FOREGROUND",
        "CALL_VIA_MOUNT",
        "SSH_ASKPASS",
    ];
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) || NAMES.contains(&name)
}

/// The address, and the password that was in it.
fn without_password(address: &str) -> Result<(String, Option<Secret>), String> {
    let bad = || {
        format!(
            "the address {} has a secret in a place where it cannot be taken from",
            shown_address(address)
        )
    };
    let address = match address.contains("://") {
        true => address.to_owned(),
        // As the client completes it.
        false => format!("redis://{address}"),
    };
    if address.chars().any(char::is_control) {
        return Err("the address has control characters in it".into());
    }
    if shown_address(&address) == address {
        return Ok((address, None));
    }
    let (scheme, rest) = address.split_once("://").ok_or_else(bad)?;
    let end = rest.find('?').unwrap_or(rest.len());
    let (login, place) = rest[..end].rsplit_once('@').ok_or_else(bad)?;
    let (user, password) = login.split_once(':').ok_or_else(bad)?;
    let password = percent_encoding::percent_decode_str(password).decode_utf8().map_err(|_| bad())?;
    let at = if user.is_empty() { "" } else { "@" };
    let place = format!("{place}{}", &rest[end..]);
    // Without the user, who is taken for a password.
    let plain = format!("{scheme}://{place}");
    if shown_address(&plain) != plain {
        return Err(bad());
    }
    let source = format!("{scheme}://{user}{at}{place}");
    Ok((source, Some(Secret::from(password.as_ref()))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn spec(address: &str, options: &[&str]) -> Result<Spec, String> {
        Spec::new("v", address, options.iter().map(|o| (*o).to_owned()).collect(), BTreeMap::new())
    }

    #[test]
    fn passwords_are_taken_from_addresses() {
        for (address, source, password) in [
            ("redis://:hu%40sh@h:1/2?x=1", "redis://h:1/2?x=1", Some("hu@sh")),
            ("rediss://me:hush@h/2", "rediss://me@h/2", Some("hush")),
            ("redis://:hush@master,a,b:26379/1", "redis://master,a,b:26379/1", Some("hush")),
            ("h:6379/1", "redis://h:6379/1", None),
            ("sqlite3:///a@b:c.db", "sqlite3:///a@b:c.db", None),
        ] {
            let spec = spec(address, &[]).unwrap();
            assert_eq!(spec.source, source);
            assert_eq!(spec.secrets.get(PASSWORD).map(Secret::expose), password);
        }
        let refused = spec("redis://h/1?password=hush", &[]).unwrap_err();
        assert!(!refused.contains("hush"), "{refused}");
    }

    #[test]
    fn a_secret_does_not_choose_what_runs_on_a_node() {
        let with = |name: &str| {
            let secrets = BTreeMap::from([(name.to_owned(), Secret::from("/x"))]);
            Spec::new("v", "redis://h/1", Vec::new(), secrets)
        };
        for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HOME", "IFS", "BASH_ENV", "CIDERFS_WORKER"] {
            assert!(with(name).unwrap_err().contains(name));
        }
        for name in ["TZ", "AWS_REGION", "HTTPS_PROXY", "JFS_RSA_PASSPHRASE", "OLD_PATH"] {
            with(name).unwrap();
        }
    }

    #[test]
    fn nothing_secret_stands_in_the_command_line() {
        assert!(spec("redis://h/1", &["secret-key=hush"]).unwrap_err().contains("secret-key"));
        let mut spec = spec("redis://:hush@h/1", &["subdir=/a", "ro"]).unwrap();
        spec.secrets.insert("SECRET_KEY".into(), "other".into());
        let command = spec.command(Path::new("/bin/x"), Path::new("/m"), true);
        let words: Vec<_> = command.get_args().map(|w| w.to_string_lossy().into_owned()).collect();
        assert_eq!(words, ["redis://h/1", "/m", "-o", "subdir=/a,ro,supervised"]);
        assert!(command.get_envs().any(|(name, value)| name == "SECRET_KEY" && value.unwrap() == "other"));
        assert!(!format!("{spec:?}").contains("hush"));
    }
}
