//! What a request says about a mount: Secrets, attributes of the volume, flags, each with the keys of the official driver.

use std::collections::BTreeMap;

use ciderfs_format::Secret;
use ciderfs_fuse::mount::{is_context, split_text};
use ciderfs_mounter::Spec;
use tonic::Status;

use crate::capability;
use crate::ids::MADE;
use crate::proto::VolumeCapability;
use crate::proto::volume_capability::AccessType;
use crate::proto::volume_capability::access_mode::Mode;
use crate::secrets::Secrets;

/// Keys and attributes of requests.
pub type Map = BTreeMap<String, String>;

/// A text that must be there.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn needed<'a>(name: &str, value: &'a str) -> Result<&'a str, Status> {
    if value.is_empty() {
        return Err(Status::invalid_argument(format!("{name} is missing")));
    }
    Ok(value)
}

/// What a volume is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Nobody writes.
    pub read_only: bool,
    /// One pod at a time.
    pub is_single: bool,
}

/// What is asked of a volume, if it can be had.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn access(capability: Option<&VolumeCapability>) -> Result<Access, Status> {
    let capability = capability.ok_or_else(|| Status::invalid_argument("volume_capability is missing"))?;
    capability::check(capability)?;
    let mode = capability.access_mode.as_ref().map(|mode| mode.mode());
    Ok(Access {
        read_only: matches!(mode, Some(Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly)),
        is_single: mode == Some(Mode::SingleNodeSingleWriter),
    })
}

/// What is to be mounted for a request; nothing when its Secret names no volume.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn spec(
    volume: &str,
    context: &Map,
    secrets: &Map,
    capability: Option<&VolumeCapability>,
) -> Result<Option<Spec>, Status> {
    let secrets = Secrets::of(secrets);
    let Some(address) = secrets.get("metaurl").map(|url| url.expose().trim().to_owned()) else {
        return Ok(None);
    };
    let options = options(context, capability)?;
    Spec::new(volume, &address, options, variables(&secrets)).map(Some).map_err(Status::invalid_argument)
}

/// The option with the SELinux context that a request asks for. A mount has one for all its files.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn selinux(context: &Map, capability: Option<&VolumeCapability>) -> Result<Option<String>, Status> {
    Ok(options(context, capability)?.into_iter().find(|option| is_context(option)))
}

/// Those of the volume, then those of the claim; then the directory.
fn options(context: &Map, capability: Option<&VolumeCapability>) -> Result<Vec<String>, Status> {
    let flags = capability.and_then(|c| match &c.access_type {
        Some(AccessType::Mount(mount)) => Some(&mount.mount_flags),
        _ => None,
    });
    let lists = context.get("mountOptions").into_iter().chain(flags.into_iter().flatten());
    let (mut options, mut dir) = (Vec::new(), String::new());
    for word in lists.flat_map(|list| split_text(list)).map(str::trim).filter(|word| !word.is_empty()) {
        match word.strip_prefix("subdir=") {
            Some(path) => dir = path.to_owned(),
            None => options.push(word.to_owned()),
        }
    }
    // Where the controller has made it, and not below another one that options name.
    let is_made = dir.is_empty() && context.get(MADE).is_some_and(|made| made == "true");
    if let Some(path) = context.get("subPath") {
        dir = format!("{}/{path}", dir.trim_end_matches('/'));
    }
    if !dir.is_empty() {
        let names: Vec<&str> = dir.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.contains(&"..") || dir.contains(',') {
            return Err(Status::invalid_argument(format!(
                "directory {dir:?}: it may have no `..` and no comma in it"
            )));
        }
        options.push(format!("subdir=/{}", names.join("/")));
        if is_made {
            options.push("existing-subdir".into());
        }
    }
    Ok(options)
}

/// The environment of the client.
fn variables(secrets: &Secrets) -> BTreeMap<String, Secret> {
    let options = secrets.format_options();
    let token =
        options.iter().find(|(name, _)| name == "session-token").and_then(|(_, value)| value.as_ref());
    let all = [
        ("ACCESS_KEY", secrets.get("access-key").cloned()),
        ("SECRET_KEY", secrets.get("secret-key").cloned()),
        ("SESSION_TOKEN", token.cloned()),
        ("META_PASSWORD", secrets.password()),
    ];
    let mut found: BTreeMap<String, Secret> =
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    found.extend(secrets.envs());
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::proto::volume_capability::{AccessMode, MountVolume};

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn capability(flags: &[&str], mode: Mode) -> VolumeCapability {
        let mount_flags = flags.iter().map(|f| (*f).to_owned()).collect();
        VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume { mount_flags, ..Default::default() })),
            access_mode: Some(AccessMode { mode: mode.into() }),
        }
    }

    #[test]
    fn the_official_drivers_keys_are_understood() {
        let secrets = map(&[
            ("name", "v"),
            ("metaurl", "redis://:pw@h/1\n"),
            ("access-key", "AK"),
            ("secretkey", "SK"),
            ("envs", "{\"TZ\": \"Europe/Paris\", \"N\": 3}"),
            ("format-options", "trash-days=1,session-token=T"),
        ]);
        let context = map(&[
            ("mountOptions", "writeback,cache-size=1024"),
            ("subPath", "pvc-1"),
            ("capacity", "1"),
            ("juicefs/clean-cache", "true"),
        ]);
        let capability = capability(&["ro", "subdir=/all,noatime"], Mode::MultiNodeMultiWriter);
        let spec = spec("pvc-1", &context, &secrets, Some(&capability)).unwrap().unwrap();
        assert_eq!(spec.source, "redis://h/1");
        assert_eq!(spec.options, ["writeback", "cache-size=1024", "ro", "noatime", "subdir=/all/pvc-1"]);
        let env: Vec<_> = spec.secrets.iter().map(|(k, v)| format!("{k}={}", v.expose())).collect();
        assert_eq!(
            env,
            [
                "ACCESS_KEY=AK",
                "META_PASSWORD=pw",
                "N=3",
                "SECRET_KEY=SK",
                "SESSION_TOKEN=T",
                "TZ=Europe/Paris"
            ]
        );
        assert_eq!(super::spec("v", &context, &map(&[]), Some(&capability)).unwrap(), None);
        // One that the controller has made is not made again when it is gone.
        let made = map(&[("subPath", "pvc-1"), (MADE, "true")]);
        let made = super::spec("pvc-1", &made, &secrets, None).unwrap().unwrap();
        assert_eq!(made.options, ["subdir=/pvc-1", "existing-subdir"]);
        let outside = map(&[("subPath", "../x")]);
        assert!(super::spec("v", &outside, &secrets, Some(&capability)).is_err());
    }

    #[test]
    fn another_context_of_selinux_is_another_mount() {
        let (secrets, context) = (map(&[("metaurl", "redis://h/1")]), map(&[("subPath", "pvc-1")]));
        let [one, other] = ["s0:c15,c100", "s0:c1,c2"].map(|categories| {
            // As kubelet writes it.
            let flag = format!("context=\"system_u:object_r:container_file_t:{categories}\"");
            let capability = capability(&["noatime", &flag], Mode::MultiNodeMultiWriter);
            assert_eq!(selinux(&context, Some(&capability)).unwrap().as_ref(), Some(&flag));
            let spec = spec("pvc-1", &context, &secrets, Some(&capability)).unwrap().unwrap();
            assert_eq!(spec.options, ["noatime", &flag, "subdir=/pvc-1"]);
            spec
        });
        assert!(one != other && !one.is_like(&other));
        // What is not closed would take the directory with it.
        let open = capability(&["context=\"a"], Mode::MultiNodeMultiWriter);
        assert!(super::spec("pvc-1", &context, &secrets, Some(&open)).is_err());
    }

    #[test]
    fn variables_may_be_lines_with_commas_in_them() {
        let secrets = Secrets::of(&map(&[("envs", "NO_PROXY: a,b\n'C': \"d\"\n"), ("meta-password", "pw")]));
        let env: Vec<_> = variables(&secrets).iter().map(|(k, v)| format!("{k}={}", v.expose())).collect();
        assert_eq!(env, ["C=d", "META_PASSWORD=pw", "NO_PROXY=a,b"]);
    }

    #[test]
    fn what_can_be_asked_for() {
        let plain = access(Some(&capability(&[], Mode::MultiNodeMultiWriter))).unwrap();
        assert_eq!(plain, Access { read_only: false, is_single: false });
        assert!(access(Some(&capability(&[], Mode::MultiNodeReaderOnly))).unwrap().read_only);
        assert!(access(Some(&capability(&[], Mode::SingleNodeSingleWriter))).unwrap().is_single);
        for bad in [None, Some(&VolumeCapability::default()), Some(&capability(&[], Mode::Unknown))] {
            assert_eq!(access(bad).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }
}
