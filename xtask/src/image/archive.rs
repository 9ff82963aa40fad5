//! Layers and the archive: an OCI image layout, which `docker load` of all ages takes as well.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::tree::Tree;
use crate::deb::{gzip, output, succeed};

/// All times in the image.
const TIME: &str = "1970-01-01T00:00:00Z";

pub struct Layer<'a> {
    pub tree: &'a Tree,
    /// What it is made of, for `docker history`.
    pub of: String,
}

/// Writes an image of some names.
pub fn write(archive: &Path, names: &[String], architecture: &str, layers: &[Layer<'_>]) -> Result<()> {
    let layout = Tree::new()?;
    let mut descriptors = Vec::new();
    let mut contents = Vec::new();
    for layer in layers {
        let tar = tempfile::NamedTempFile::new()?;
        pack(layer.tree, tar.path())?;
        let content = fs::read(tar.path())?;
        contents.push(format!("sha256:{}", digest(tar.path())?));
        descriptors.push(blob(&layout, "application/vnd.oci.image.layer.v1.tar+gzip", &gzip(&content)?)?);
    }
    let history: Vec<_> = layers.iter().map(|l| json!({"created": TIME, "created_by": l.of})).collect();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "created": TIME,
        "config": {
            "Entrypoint": ["ciderfs"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "CiderFS",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            },
        },
        "rootfs": {"type": "layers", "diff_ids": contents},
        "history": history,
    });
    let config = blob(&layout, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": descriptors,
    });
    let manifest =
        blob(&layout, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())?;
    let named = |name: &String| {
        let mut named = manifest.clone();
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        named["platform"] = json!({"architecture": architecture, "os": "linux"});
        named["annotations"] =
            json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
        named
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": names.iter().map(named).collect::<Vec<_>>(),
    });
    let old = json!([{
        "Config": path(&config)?,
        "RepoTags": names,
        "Layers": descriptors.iter().map(path).collect::<Result<Vec<_>>>()?,
    }]);
    layout.put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    layout.put("index.json", index.to_string().as_bytes(), 0o644)?;
    layout.put("manifest.json", old.to_string().as_bytes(), 0o644)?;
    pack(&layout, archive)
}

/// A tree as an archive in which nothing is of this machine: order, times, owners.
fn pack(tree: &Tree, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.env("LC_ALL", "C").args(["--create", "--format=gnu", "--sort=name", "--mtime=@0", "--no-xattrs"]);
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "--file"]).arg(to);
    // Names without "./" before them, which not every reader takes.
    let mut names: Vec<_> =
        fs::read_dir(tree.root())?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    names.sort();
    succeed(tar.arg("--directory").arg(tree.root()).args(names))
}

/// Puts something into the layout, and describes it.
fn blob(layout: &Tree, media_type: &str, content: &[u8]) -> Result<Value> {
    layout.put("blobs/sha256/new", content, 0o644)?;
    let new = layout.path("blobs/sha256/new");
    let digest = digest(&new)?;
    fs::rename(&new, layout.path("blobs/sha256").join(&digest))?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()}))
}

/// Where a blob is in the layout.
fn path(descriptor: &Value) -> Result<String> {
    let digest = descriptor["digest"].as_str().context("a descriptor without digest")?;
    Ok(format!("blobs/{}", digest.replace(':', "/")))
}

fn digest(file: &Path) -> Result<String> {
    let said = String::from_utf8(output(Command::new("sha256sum").arg("--binary").arg(file))?)?;
    Ok(said.split(' ').next().context("sha256sum says nothing")?.to_owned())
}
