//! `pathPattern`: what the directory of a volume is called.

use std::collections::BTreeMap;

use tonic::Status;

/// What the provisioner tells with `--extra-create-metadata`, by the names of patterns.
const VALUES: [(&str, &str); 3] = [
    (".pvc.name", "csi.storage.k8s.io/pvc/name"),
    (".pvc.namespace", "csi.storage.k8s.io/pvc/namespace"),
    (".pv.name", "csi.storage.k8s.io/pv/name"),
];

/// The directory that a pattern means, from the root, without a slash at either end.
///
/// # Errors
/// `INVALID_ARGUMENT`: a name that nobody tells, the root, a hidden directory of the root, what cannot be mounted.
pub fn expand(pattern: &str, parameters: &BTreeMap<String, String>) -> Result<String, Status> {
    let wrong = |why: String| Status::invalid_argument(format!("pathPattern {pattern:?}: {why}"));
    let (mut out, mut rest) = (String::new(), pattern);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) =
            after.split_once('}').ok_or_else(|| wrong("there is a ${ without its }".into()))?;
        let small = name.trim().to_ascii_lowercase();
        let key = VALUES.iter().find(|(known, _)| *known == small).map(|(_, key)| *key);
        let key = key.ok_or_else(|| {
            let known: Vec<_> = VALUES.iter().map(|(name, _)| format!("${{{name}}}")).collect();
            wrong(format!("${{{name}}} is not told to a driver; there are {}", known.join(", ")))
        })?;
        let value = parameters.get(key).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| {
            wrong(format!("the provisioner does not tell {key}: run it with --extra-create-metadata"))
        })?;
        if value.contains('/') || value.starts_with('.') {
            return Err(wrong(format!("{key} is no name")));
        }
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    let names: Vec<&str> = out.split('/').filter(|name| !name.is_empty()).collect();
    match names.first() {
        None => return Err(wrong("it means the root of the file system, which is no volume".into())),
        Some(first) if first.starts_with('.') => {
            return Err(wrong("it begins with a hidden directory".into()));
        }
        Some(_) => {}
    }
    if names.iter().any(|name| matches!(*name, "." | "..") || name.len() > 255) || out.contains('\0') {
        return Err(wrong("it is no path from the root".into()));
    }
    // The options of a mount are a list, where a comma ends the path.
    if out.contains(|c: char| c == ',' || c.is_control()) {
        return Err(wrong("a comma or a control character cannot be mounted".into()));
    }
    Ok(names.join("/"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let told = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| (format!("csi.storage.k8s.io/{k}"), (*v).to_owned())).collect()
        };
        let all = told(&[("pvc/name", "data"), ("pvc/namespace", "team"), ("pv/name", "pvc-1")]);
        for (pattern, path) in [
            ("${.pvc.namespace}/${.pvc.name}", "team/data"),
            ("/${.PVC.namespace}-${.pvc.name}/", "team-data"),
            ("fixed//dir", "fixed/dir"),
            ("${.pv.name}", "pvc-1"),
        ] {
            assert_eq!(expand(pattern, &all).unwrap(), path, "{pattern}");
        }
        for wrong in [
            "",
            "/",
            "//",
            "..",
            "a/../b",
            ".trash/x",
            ".snapshots",
            "${.pvc.labels.app}",
            "${.pvc.name",
            "./a",
            "a,b",
            "a\nb",
        ] {
            assert_eq!(expand(wrong, &all).unwrap_err().code(), tonic::Code::InvalidArgument, "{wrong}");
        }
        for bad in ["..", ".deleting", "a/b", ""] {
            assert!(expand("${.pvc.name}", &told(&[("pvc/name", bad)])).is_err(), "{bad}");
        }
        let lacking = expand("${.pvc.name}", &BTreeMap::new()).unwrap_err();
        assert!(lacking.message().contains("--extra-create-metadata"), "{lacking}");
    }
}
