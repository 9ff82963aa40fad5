//! The root of the image: what is taken of which package of Debian.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::tree::{Tree, list};
use crate::deb::{output, succeed};

/// Packages, and what is taken of each: paths below `usr`; a star stands for the rest of a name. Licences are taken of all.
const PACKAGES: [(&str, &[&str]); 9] = [
    ("base-files", &["lib/os-release", "share/common-licenses/*"]),
    // Some scripts that official mount pods run want it.
    ("bash", &["bin/bash"]),
    ("busybox-static", &["bin/busybox"]),
    ("ca-certificates", &["share/ca-certificates/mozilla/*"]),
    ("fuse3", &["bin/fusermount3", "bin/fusermount"]),
    // Names of users and groups.
    ("libc-bin", &["bin/getent"]),
    (
        "libc6",
        &[
            "lib*/ld-linux*",
            "lib/*/ld-linux*",
            "lib/*/libc.so.6",
            "lib/*/libm.so.6",
            "lib/*/libresolv.so.2",
            "lib/*/libnss_dns.so.2",
            "lib/*/libnss_files.so.2",
            // Empty ones, for programs that extend the image.
            "lib/*/libdl.so.2",
            "lib/*/libpthread.so.0",
            "lib/*/librt.so.1",
        ],
    ),
    ("libgcc-s1", &["lib/*/libgcc_s.so.1"]),
    ("libtinfo6", &["lib/*/libtinfo.so.6*"]),
];
/// May be empty, or are covered by mounts.
const DIRECTORIES: [(&str, u32); 13] = [
    ("dev", 0o755),
    ("etc/ciderfs", 0o755),
    ("jfs", 0o755),
    ("mnt/jfs", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run/ciderfs", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr/sbin", 0o755),
    ("var/cache/ciderfs", 0o755),
    ("var/lib/juicefs/volume", 0o755),
    ("var/tmp", 0o1777),
];
const CERTIFICATES: &str = "usr/share/ca-certificates/mozilla/";
/// The controller's user; its home is the one place that a container with a read-only root can write to.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nciderfs:x:65532:65532:CiderFS:/tmp:/bin/false\n\
     nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nciderfs:x:65532:\nnogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// The root without the client, and the versions of what it is made of. Packages are kept in a directory for the next time.
pub fn base(packages: &Path) -> Result<(Tree, String)> {
    let tree = Tree::new()?;
    let mut made_of = Vec::new();
    for (package, file) in fetch(packages, &PACKAGES.map(|(name, _)| name.to_owned()))? {
        let wanted =
            PACKAGES.iter().find(|(name, _)| *name == package).map_or(&[][..], |(_, wanted)| *wanted);
        let unpacked = unpack(&file)?;
        take(&tree, &package, unpacked.path(), wanted)?;
        licence(&tree, &package, unpacked.path(), packages)?;
        made_of.push(describe(&tree, &package, &file)?);
    }
    certificates(&tree)?;
    commands(&tree)?;
    for (dir, mode) in DIRECTORIES {
        tree.dir(dir, mode)?;
    }
    for dir in ["bin", "lib", "lib64", "sbin"] {
        if tree.path("usr").join(dir).exists() {
            tree.link(format!("usr/{dir}"), dir)?;
        }
    }
    tree.link("../usr/lib/os-release", "etc/os-release")?;
    tree.link("../proc/self/mounts", "etc/mtab")?;
    for (path, content) in [("passwd", PASSWD), ("group", GROUP), ("nsswitch.conf", NSSWITCH)] {
        tree.put(&format!("etc/{path}"), content.as_bytes(), 0o644)?;
    }
    Ok((tree, made_of.join(" ")))
}

/// Files of packages, in the version that this system would install. What is in the directory already is not asked for again.
fn fetch(dir: &Path, packages: &[String]) -> Result<Vec<(String, std::path::PathBuf)>> {
    fs::create_dir_all(dir)?;
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.args(["download", "-qq", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
        apt
    };
    let said = output(apt().arg("--print-uris").args(packages))
        .context("these packages are not known: run `apt-get update` as root")?;
    let mut files = Vec::new();
    // 'URI' NAME SIZE HASH
    for line in String::from_utf8(said)?.lines() {
        let name = line.split_whitespace().nth(1).context("apt-get names no file")?;
        let package = name.split('_').next().unwrap_or_default();
        files.push((package.to_owned(), dir.join(name)));
    }
    files.sort();
    files.dedup();
    for package in packages {
        ensure!(files.iter().any(|(name, _)| name == package), "apt-get knows no package {package}");
    }
    let missing: Vec<_> = files.iter().filter(|(_, file)| !file.exists()).collect();
    if !missing.is_empty() {
        // Never half a file under the name of a whole one.
        let new = tempfile::tempdir_in(dir)?;
        succeed(apt().args(missing.iter().map(|(name, _)| name)).current_dir(new.path()))
            .context("if a package was not found, run `apt-get update` as root")?;
        for (_, file) in missing {
            fs::rename(new.path().join(file.file_name().unwrap_or_default()), file)?;
        }
    }
    Ok(files)
}

fn unpack(package: &Path) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    succeed(Command::new("dpkg-deb").arg("--extract").arg(package).arg(dir.path()))?;
    Ok(dir)
}

/// Takes what is wanted of a package, all below `usr`.
fn take(tree: &Tree, package: &str, unpacked: &Path, wanted: &[&str]) -> Result<()> {
    let mut files = Vec::new();
    list(unpacked, "", &mut files)?;
    files.sort();
    let mut missing = wanted.to_vec();
    for file in &files {
        let below = file.strip_prefix("usr/").unwrap_or(file);
        let Some(pattern) = wanted.iter().find(|pattern| fits(below, pattern)) else { continue };
        missing.retain(|p| p != pattern);
        let (from, to) = (unpacked.join(file), format!("usr/{below}"));
        let meta = from.symlink_metadata()?;
        if meta.is_symlink() {
            tree.link(fs::read_link(&from)?, &to)?;
        } else {
            tree.put(&to, &fs::read(&from)?, meta.permissions().mode() & 0o7777)?;
        }
    }
    // One of the two names of the loader is enough: which, is the architecture's.
    missing.retain(|pattern| *pattern != "lib*/ld-linux*");
    ensure!(missing.is_empty(), "the package {package} has no {}", missing.join(", "));
    Ok(())
}

/// Does a path fit a pattern, name by name?
fn fits(path: &str, pattern: &str) -> bool {
    let fits_name = |(name, pattern): (&str, &str)| match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    };
    path.split('/').count() == pattern.split('/').count()
        && path.split('/').zip(pattern.split('/')).all(fits_name)
}

/// The licence of a package, which may be that of another one.
fn licence(tree: &Tree, package: &str, unpacked: &Path, packages: &Path) -> Result<()> {
    let doc = unpacked.join("usr/share/doc").join(package);
    let text = match fs::read_link(&doc) {
        Ok(other) => {
            let other = other.to_str().context("a name that is not text")?;
            let [(_, file)] = &fetch(packages, &[other.to_owned()])?[..] else {
                bail!("apt-get names more than one file for {other}")
            };
            fs::read(unpack(file)?.path().join("usr/share/doc").join(other).join("copyright"))
        }
        Err(_) => fs::read(doc.join("copyright")),
    };
    let text = text.with_context(|| format!("the package {package} has no licence"))?;
    tree.put(&format!("usr/share/doc/{package}/copyright"), &text, 0o644)
}

/// Says what is in the image where scanners look for it in images without dpkg. Name and version.
fn describe(tree: &Tree, package: &str, file: &Path) -> Result<String> {
    let control = output(Command::new("dpkg-deb").arg("--field").arg(file))?;
    let text = String::from_utf8_lossy(&control);
    let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
    tree.put(&format!("var/lib/dpkg/status.d/{package}"), &control, 0o644)?;
    Ok(format!("{package}={}", version.context("a package without version")?))
}

/// All certificates in one file, as update-ca-certificates makes it.
fn certificates(tree: &Tree) -> Result<()> {
    let mut bundle = Vec::new();
    for file in tree.files()?.iter().filter(|file| file.starts_with(CERTIFICATES)) {
        bundle.extend(fs::read(tree.path(file))?);
        if bundle.last() != Some(&b'\n') {
            bundle.push(b'\n');
        }
    }
    // Here once is enough.
    fs::remove_dir_all(tree.path("usr/share/ca-certificates"))?;
    tree.put("etc/ssl/certs/ca-certificates.crt", &bundle, 0o644)
}

/// Names of the commands that are in BusyBox.
fn commands(tree: &Tree) -> Result<()> {
    let names = output(Command::new(tree.path("usr/bin/busybox")).arg("--list"))?;
    for name in String::from_utf8(names)?.lines() {
        let path = format!("usr/bin/{name}");
        if !tree.path(&path).exists() {
            tree.link("busybox", &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns_end_where_paths_end() {
        for (path, pattern, want) in [
            ("lib/x86_64-linux-gnu/libc.so.6", "lib/*/libc.so.6", true),
            ("lib64/ld-linux-x86-64.so.2", "lib*/ld-linux*", true),
            ("lib/ld-linux-aarch64.so.1", "lib*/ld-linux*", true),
            ("lib/x86_64-linux-gnu/gconv/libc.so.6", "lib/*/libc.so.6", false),
            ("bin/bashbug", "bin/bash", false),
        ] {
            assert_eq!(fits(path, pattern), want, "{path} {pattern}");
        }
    }
}
