//! `cargo xtask deb`: a Debian package of the client, with its units, manual page, completions and mount helper.
//!
//! `dpkg-deb` packs a tree that is laid out here; nothing else is needed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// Settings of mounts by the units, with their secrets.
const SETTINGS: &str = "etc/ciderfs";
/// Directories that are there for root alone.
const PRIVATE: [&str; 1] = [SETTINGS];

/// Builds the program and packs it; `--debug` takes the build for tests. Tells the package on standard output.
pub fn run(args: &[String]) -> Result<()> {
    let profile = match args {
        [] => "release",
        [flag] if flag == "--debug" => "debug",
        _ => bail!("usage: cargo xtask deb [--debug]"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let program = build(&root, profile)?;
    let package = Package::new(&root, &program)?;
    println!("{}", package.pack(&target(&root))?.display());
    Ok(())
}

/// Builds the program, and tells where it is.
pub fn build(root: &Path, profile: &str) -> Result<PathBuf> {
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet", "--locked"]).current_dir(root);
    match profile {
        "release" => build.args(["--release", "--package", "ciderfs"]),
        // As the tests have built it: with a test, or dependencies have other features, and are compiled a second time.
        _ => build.args(["--workspace", "--bin", "ciderfs", "--test", "supervised"]),
    };
    succeed(&mut build)?;
    Ok(target(root).join(profile).join("ciderfs"))
}

/// Where Cargo puts what it makes.
pub fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

struct Package<'a> {
    root: &'a Path,
    program: &'a Path,
    tree: tempfile::TempDir,
    /// Files below `etc`, which an administrator may change.
    settings: Vec<String>,
}

impl<'a> Package<'a> {
    fn new(root: &'a Path, program: &'a Path) -> Result<Self> {
        let tree = tempfile::tempdir()?;
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755))?;
        let mut package = Self { root, program, tree, settings: Vec::new() };
        package.programs()?;
        package.descriptions()?;
        package.units()?;
        Ok(package)
    }

    /// Puts a file into the tree.
    fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let at = self.tree.path().join(path);
        let mut above = self.tree.path().to_owned();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            above.push(part);
            if !above.exists() {
                fs::create_dir(&above)?;
                let private = PRIVATE.iter().any(|dir| above.ends_with(dir));
                fs::set_permissions(&above, fs::Permissions::from_mode(if private { 0o700 } else { 0o755 }))?;
            }
        }
        fs::write(&at, content)?;
        Ok(fs::set_permissions(&at, fs::Permissions::from_mode(mode))?)
    }

    fn copy(&self, from: &str, to: &str, mode: u32) -> Result<()> {
        let from = self.root.join(from);
        self.put(to, &fs::read(&from).with_context(|| from.display().to_string())?, mode)
    }

    /// The program without what only a debugger needs, and the names under which mount(8) calls it.
    fn programs(&self) -> Result<()> {
        self.put("usr/bin/ciderfs", &fs::read(self.program)?, 0o755)?;
        let installed = self.tree.path().join("usr/bin/ciderfs");
        succeed(Command::new("strip").arg(&installed))?;
        self.put("usr/sbin/.made", b"", 0o644)?;
        fs::remove_file(self.tree.path().join("usr/sbin/.made"))?;
        for name in ["mount.ciderfs", "mount.fuse.ciderfs"] {
            symlink("../bin/ciderfs", self.tree.path().join("usr/sbin").join(name))?;
        }
        self.copy("deploy/systemd/ciderfs-unit", "usr/lib/ciderfs/ciderfs-unit", 0o755)
    }

    fn descriptions(&self) -> Result<()> {
        let said = |words: &[&str]| output(Command::new(self.program).args(words));
        self.put("usr/share/man/man8/ciderfs.8.gz", &gzip(&said(&["man"])?)?, 0o644)?;
        for (shell, path) in [
            ("bash", "usr/share/bash-completion/completions/ciderfs"),
            ("zsh", "usr/share/zsh/vendor-completions/_ciderfs"),
            ("fish", "usr/share/fish/vendor_completions.d/ciderfs.fish"),
        ] {
            self.put(path, &said(&["completions", shell])?, 0o644)?;
        }
        let doc = "usr/share/doc/ciderfs";
        self.copy("README.md", &format!("{doc}/README.md"), 0o644)?;
        self.copy("deploy/env/ciderfs.env.example", &format!("{doc}/examples/ciderfs.env"), 0o644)?;
        self.put(&format!("{doc}/changelog.gz"), &gzip(&fs::read(self.root.join("CHANGELOG.md"))?)?, 0o644)?;
        let licence = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
             Upstream-Name: CiderFS\nSource: https://github.com/ciderfs/ciderfs\n\n\
             Files: *\nCopyright: The CiderFS authors\nLicense: Apache-2.0\n\
             \x20On Debian systems the text of the licence is in /usr/share/common-licenses/Apache-2.0.\n";
        self.put(&format!("{doc}/copyright"), licence.as_bytes(), 0o644)
    }

    /// Units, and the group that may read the settings of mounts without being root.
    fn units(&mut self) -> Result<()> {
        let dir = self.root.join("deploy/systemd");
        let mut units: Vec<_> = fs::read_dir(&dir)?.collect::<std::io::Result<Vec<_>>>()?;
        units.sort_by_key(fs::DirEntry::file_name);
        for unit in units {
            let name = unit.file_name().to_string_lossy().into_owned();
            if name.ends_with(".service") {
                self.copy(
                    &format!("deploy/systemd/{name}"),
                    &format!("usr/lib/systemd/system/{name}"),
                    0o644,
                )?;
            }
        }
        let sysusers = "# May look at the settings and logs of mounts.\ng ciderfs -\n";
        self.put("usr/lib/sysusers.d/ciderfs.conf", sysusers.as_bytes(), 0o644)?;
        let note = "# One file for each mount by ciderfs@.service: /etc/ciderfs/MOUNTPOINT.env, for root alone.\n\
             # Copy /usr/share/doc/ciderfs/examples/ciderfs.env there.\n";
        self.put(&format!("{SETTINGS}/README"), note.as_bytes(), 0o644)?;
        self.settings.push(format!("/{SETTINGS}/README"));
        Ok(())
    }

    /// Writes the description of the package and packs it.
    fn pack(&self, target: &Path) -> Result<PathBuf> {
        let version = env!("CARGO_PKG_VERSION");
        let architecture = String::from_utf8(output(Command::new("dpkg").arg("--print-architecture"))?)?;
        let architecture = architecture.trim();
        let control = format!(
            "Package: ciderfs\nVersion: {version}\nArchitecture: {architecture}\nSection: utils\nPriority: optional\n\
             Maintainer: The CiderFS authors <ciderfs@localhost>\nInstalled-Size: {}\nDepends: libc6 (>= {}), libgcc-s1, fuse3, ca-certificates\n\
             Suggests: redis-server | valkey-server, systemd, openssh-client\nDescription: distributed POSIX file system on object storage\n\
             \x20Data are in an S3-compatible object store, names and attributes in Redis, Valkey or SQLite.\n\
             \x20Volumes are those of JuiceFS: both clients may mount one at the same time.\n",
            size(self.tree.path())?.div_ceil(1024),
            self.libc()?,
        );
        self.put("DEBIAN/control", control.as_bytes(), 0o644)?;
        self.put("DEBIAN/conffiles", (self.settings.join("\n") + "\n").as_bytes(), 0o644)?;
        // Mounts go on with the program that they were started with, and mounts of users are nobody's to end.
        let reload = "#!/bin/sh\nset -e\nif command -v systemd-sysusers >/dev/null; then systemd-sysusers ciderfs.conf; fi\n\
             if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n";
        self.put("DEBIAN/postinst", reload.as_bytes(), 0o755)?;
        let gone = "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n";
        self.put("DEBIAN/postrm", gone.as_bytes(), 0o755)?;
        let out = target.join("debian").join(format!("ciderfs_{version}_{architecture}.deb"));
        fs::create_dir_all(target.join("debian"))?;
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--build", "--root-owner-group", "-Zxz"]).arg(self.tree.path()).arg(&out);
        succeed(pack.stdout(Stdio::null()))?;
        Ok(out)
    }

    /// The oldest C library that has all that the program asks for.
    fn libc(&self) -> Result<String> {
        Ok(format!("2.{}", libc(self.program)?))
    }
}

/// The newest interface of the C library, as the minor number of its version, that a program or library names.
pub fn libc(file: &Path) -> Result<u32> {
    let content = fs::read(file)?;
    let mark = b"GLIBC_2.";
    let minors: BTreeSet<u32> = content
        .windows(mark.len() + 3)
        .filter(|window| window.starts_with(mark))
        .filter_map(|window| {
            let digits: String = window[mark.len()..]
                .iter()
                .map(|b| char::from(*b))
                .take_while(char::is_ascii_digit)
                .collect();
            digits.parse().ok()
        })
        .collect();
    minors.last().copied().with_context(|| format!("{} names no version of the C library", file.display()))
}

/// Bytes of all files.
fn size(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            size(&entry.path())?
        } else {
            entry.path().symlink_metadata()?.len()
        };
    }
    Ok(bytes)
}

/// Compressed as Debian wants it: without name and time.
pub fn gzip(text: &[u8]) -> Result<Vec<u8>> {
    let mut child =
        Command::new("gzip").args(["-9", "-n"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no pipe")?;
    let text = text.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&text));
    let done = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("gzip: the writer has panicked"))??;
    ensure!(done.status.success(), "gzip failed");
    Ok(done.stdout)
}

pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(done.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&done.stderr));
    Ok(done.stdout)
}
