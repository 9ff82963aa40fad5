//! Services that speak S3 under a name of their own: how the official client makes the address of each.

use percent_encoding::percent_decode_str;

use super::address::{Address, DEFAULT_REGION, Env, Parts, bad, split, wants_virtual_host};
use crate::error::{ObjectError, Result};

/// A service with its own rules for addresses and keys.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// Name of the storage.
    name: &'static str,
    /// The address, for errors.
    form: &'static str,
    /// Where keys are looked for if none are given.
    variables: Option<[&'static str; 2]>,
    /// Region by the labels of the host, that of the bucket first.
    region: fn(&[&str], Env<'_>) -> Option<String>,
    /// Bucket in the host: always, or as the environment says.
    virtual_host: fn(&str, Env<'_>) -> bool,
    /// The official client writes checksums there.
    checksum: bool,
    /// Keys are escaped as in a URL.
    escaped_keys: bool,
}

fn label(labels: &[&str], at: usize) -> Option<String> {
    labels.get(at).map(|label| (*label).to_owned())
}

const ALL: [Dialect; 8] = [
    Dialect {
        name: "wasabi",
        form: "https://BUCKET.s3.REGION.wasabisys.com",
        variables: None,
        region: |labels, _| label(labels, 2),
        virtual_host: |_, _| true,
        checksum: true,
        escaped_keys: false,
    },
    Dialect {
        name: "scw",
        form: "https://BUCKET.s3.REGION.scw.cloud",
        variables: Some(["SCW_ACCESS_KEY", "SCW_SECRET_KEY"]),
        region: |labels, _| label(labels, 2),
        virtual_host: |_, _| true,
        checksum: true,
        escaped_keys: false,
    },
    Dialect {
        name: "space",
        form: "https://BUCKET.REGION.digitaloceanspaces.com",
        variables: None,
        region: |labels, _| label(labels, 1),
        virtual_host: |_, _| true,
        checksum: true,
        escaped_keys: false,
    },
    Dialect {
        name: "eos",
        form: "https://BUCKET.eos-REGION-1.cmecloud.cn",
        variables: Some(["EOS_ACCESS_KEY", "EOS_SECRET_KEY"]),
        region: |_, _| Some(DEFAULT_REGION.to_owned()),
        virtual_host: |_, env| wants_virtual_host(env),
        checksum: true,
        escaped_keys: false,
    },
    Dialect {
        name: "oos",
        form: "https://BUCKET.oos-REGION.ctyunapi.cn",
        variables: None,
        region: |labels, _| labels.get(1)?.strip_prefix("oos-").map(str::to_owned),
        virtual_host: |host, _| host.contains("xstore.ctyun.cn"),
        checksum: true,
        escaped_keys: false,
    },
    Dialect {
        name: "b2",
        form: "https://BUCKET.s3.REGION.backblazeb2.com",
        variables: None,
        region: |labels, _| (*labels.get(1)? == "s3").then(|| label(labels, 2)).flatten(),
        virtual_host: |_, _| true,
        checksum: false,
        escaped_keys: false,
    },
    Dialect {
        name: "qiniu",
        form: "https://BUCKET.s3-REGION.qiniucs.com",
        variables: None,
        region: |labels, _| labels.get(1)?.strip_prefix("s3-").map(str::to_owned),
        virtual_host: |_, _| false,
        checksum: false,
        escaped_keys: false,
    },
    Dialect {
        name: "ks3",
        form: "https://BUCKET.ks3-REGION.ksyuncs.com",
        variables: None,
        region: ks3_region,
        virtual_host: |host, env| is_ksyun(host) || wants_virtual_host(env),
        checksum: false,
        escaped_keys: true,
    },
];

fn is_ksyun(host: &str) -> bool {
    host.ends_with("ksyun.com") || host.ends_with("ksyuncs.com")
}

fn ks3_region(labels: &[&str], env: Env<'_>) -> Option<String> {
    let place = labels.get(1)?.strip_prefix("ks3")?.trim_start_matches('-');
    if !is_ksyun(&labels.join(".")) {
        let named = Some(place.to_owned()).filter(|place| !place.is_empty());
        return env("AWS_REGION").or(named).or_else(|| Some(DEFAULT_REGION.to_owned()));
    }
    let region = match place.strip_suffix("-internal").unwrap_or(place) {
        "cn-beijing" => "BEIJING",
        "cn-shanghai" => "SHANGHAI",
        "cn-guangzhou" => "GUANGZHOU",
        "cn-qingdao" => "QINGDAO",
        "jr-beijing" => "JR_BEIJING",
        "jr-shanghai" => "JR_SHANGHAI",
        "" => "HANGZHOU",
        "cn-hk-1" => "HONGKONG",
        "rus" => "RUSSIA",
        "sgp" => "SINGAPORE",
        _ => DEFAULT_REGION,
    };
    Some(region.to_owned())
}

impl Dialect {
    /// The service of this name, in lower case.
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|dialect| dialect.name == name)
    }

    /// The bucket of an address `https://BUCKET.ENDPOINT`.
    pub(crate) fn address(&self, text: &str, env: Env<'_>) -> Result<Address> {
        let Parts { scheme, host, authority, path, query } = split(text, |_| "https")?;
        let form = || bad(text, &format!("does not fit storage {}: write {}", self.name, self.form));
        let labels: Vec<&str> = host.split('.').collect();
        let (bucket, rest) = authority.split_once('.').filter(|_| path.is_empty()).ok_or_else(form)?;
        if bucket.is_empty() || !rest.contains('.') || host.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(form());
        }
        let region = (self.region)(&labels, env).filter(|region| !region.is_empty()).ok_or_else(form)?;
        Ok(Address {
            bucket: bucket.to_owned(),
            endpoint: format!("{scheme}://{rest}"),
            region: Some(query.region.unwrap_or(region)),
            virtual_host: (self.virtual_host)(&host, env),
            checksum: self.checksum && query.checksum,
            tls: query.tls,
        })
    }

    /// The keys to sign with, of those that are given.
    pub(crate) fn keys(&self, access: &str, secret: &str, env: Env<'_>) -> Result<(String, String)> {
        let (mut access, mut secret) = (access.to_owned(), secret.to_owned());
        if let Some([one, two]) = self.variables.filter(|_| access.is_empty()) {
            (access, secret) = (env(one).unwrap_or_default(), env(two).unwrap_or_default());
        }
        if access.is_empty() {
            let or = self.variables.map_or_else(String::new, |[one, two]| format!(", or {one} and {two}"));
            return Err(ObjectError::Config(format!(
                "storage {} needs keys: set --access-key and --secret-key{or}",
                self.name
            )));
        }
        if self.escaped_keys {
            let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            (access, secret) = (plain(&access), plain(&secret));
        }
        Ok((access, secret))
    }
}
