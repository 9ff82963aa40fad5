//! `cargo xtask image`: a container image of the client, as an archive for `ctr images import`, without a registry.
//!
//! Its root is put together from Debian's packages, so that C library and certificates are the maintained ones. It is the image of
//! all parts of the CSI driver, and under a second name a mount image for the official driver, which calls `/usr/local/bin/juicefs`
//! and `/bin/mount.juicefs` through a shell. The same packages and the same program make the same bytes.

mod archive;
mod root;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use self::archive::{Layer, write};
use self::tree::Tree;
use crate::deb::{build, libc, output, succeed, target};

/// The official driver reads from a tag of this form what the client in it can do.
const MOUNT_IMAGE: &str = "localhost/mount:ce-v1.4.2-ciderfs";
/// The program. The others are links to it: the official driver replaces this one.
const PROGRAM: &str = "usr/local/bin/juicefs";

/// Builds the program and the image; `--debug` takes the build for tests, `--program` one that is there. Tells the archive on standard
/// output.
pub fn run(args: &[String]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let program = match args {
        [] => build(&root, "release")?,
        [flag] if flag == "--debug" => build(&root, "debug")?,
        [flag, file] if flag == "--program" => PathBuf::from(file),
        _ => bail!("usage: cargo xtask image [--debug | --program FILE]"),
    };
    let target = target(&root);
    let architecture = String::from_utf8(output(Command::new("dpkg").arg("--print-architecture"))?)?;
    let (base, made_of) = root::base(&target.join("image"))?;
    let own = own(&program, &base)?;
    let names = [format!("localhost/ciderfs:{}", env!("CARGO_PKG_VERSION")), MOUNT_IMAGE.to_owned()];
    let archive = target.join("ciderfs.tar");
    let layers =
        [Layer { tree: &base, of: made_of }, Layer { tree: &own, of: "cargo xtask image".to_owned() }];
    write(&archive, &names, architecture.trim(), &layers)?;
    println!("{}", archive.display());
    Ok(())
}

/// The program, and the names it is called by.
fn own(program: &Path, base: &Tree) -> Result<Tree> {
    let own = Tree::new()?;
    let stripped = own.path("stripped");
    succeed(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
    let (asks, has) = (libc(&stripped)?, libc(&base.only("libc.so.6")?)?);
    if asks > has {
        bail!(
            "{} needs glibc 2.{asks}, the packages of this system have 2.{has}: build it here",
            program.display()
        );
    }
    own.put(PROGRAM, &fs::read(&stripped)?, 0o755)?;
    fs::remove_file(&stripped)?;
    own.link("juicefs", "usr/local/bin/ciderfs")?;
    for name in ["mount.juicefs", "mount.ciderfs", "mount.fuse.ciderfs"] {
        own.link("../local/bin/juicefs", &format!("usr/bin/{name}"))?;
    }
    tree::check(&[base, &own])?;
    Ok(own)
}
