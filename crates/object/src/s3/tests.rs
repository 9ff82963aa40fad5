use ciderfs_testkit::s3::OVH_REGIONS;

use super::address::Address;
use super::error::{Asked, Call, from_code, from_status};
use super::keys::{Credentials, Keys};
use super::named::named_in;
use crate::ObjectError;

fn none(_: &str) -> Option<String> {
    None
}

fn s3(text: &str) -> Address {
    Address::s3(text, &none).unwrap()
}

/// Bucket, endpoint, region and style.
fn parts(a: &Address) -> (&str, &str, &str, bool) {
    (&a.bucket, &a.endpoint, a.region.as_deref().unwrap_or("?"), a.virtual_host)
}

#[test]
fn addresses_of_amazon() {
    for (text, bucket, region) in [
        ("https://s3.us-west-2.amazonaws.com/data", "data", "us-west-2"),
        ("https://s3-eu-west-1.amazonaws.com/data/more", "data", "eu-west-1"),
        ("https://s3.dualstack.eu-west-3.amazonaws.com/data", "data", "eu-west-3"),
        ("s3.amazonaws.com/data", "data", "us-east-1"),
        ("s3-external-1.amazonaws.com/data", "data", "us-east-1"),
        ("https://data.s3.eu-west-3.amazonaws.com", "data", "eu-west-3"),
        ("data.s3.amazonaws.com", "data", "us-east-1"),
        ("data.s3-ap-south-1.amazonaws.com", "data", "ap-south-1"),
    ] {
        let endpoint = format!("https://s3.{region}.amazonaws.com");
        assert_eq!(parts(&s3(text)), (bucket, endpoint.as_str(), region, true), "{text}");
    }
    assert_eq!(
        parts(&s3("data.s3.cn-north-1.amazonaws.com.cn")),
        ("data", "https://s3.cn-north-1.amazonaws.com.cn", "cn-north-1", true)
    );
    // The certificate has no place for a dot in the bucket.
    assert_eq!(
        parts(&s3("https://a.b.s3.us-west-2.amazonaws.com")),
        ("a.b", "https://s3.us-west-2.amazonaws.com", "us-west-2", false)
    );
    assert_eq!(
        parts(&s3("https://data.vpce-1a2b.s3.us-west-2.vpce.amazonaws.com")),
        ("data", "https://vpce-1a2b.s3.us-west-2.vpce.amazonaws.com", "us-west-2", false)
    );
    // Only the bucket's name: its region must be asked for, unless the environment tells.
    assert_eq!(parts(&s3("data")), ("data", "https://s3.us-east-1.amazonaws.com", "?", true));
    let env = |name: &str| (name == "AWS_REGION").then(|| "eu-north-1".to_owned());
    let known = Address::s3("data", &env).unwrap();
    assert_eq!(parts(&known), ("data", "https://s3.eu-north-1.amazonaws.com", "eu-north-1", true));
    assert_eq!(s3("data").with_region("sa-east-1").endpoint, "https://s3.sa-east-1.amazonaws.com");
}

#[test]
fn addresses_of_others() {
    for (text, want) in [
        ("https://s3.gra.io.cloud.ovh.net/cider", ("cider", "https://s3.gra.io.cloud.ovh.net", "gra", false)),
        ("https://cider.s3.sbg.io.cloud.ovh.net", ("cider", "https://s3.sbg.io.cloud.ovh.net", "sbg", false)),
        (
            "https://cider.s3.GRA.perf.cloud.ovh.net",
            ("cider", "https://s3.gra.perf.cloud.ovh.net", "gra", false),
        ),
        (
            "https://s3.us-east-va.io.cloud.ovh.us/cider",
            ("cider", "https://s3.us-east-va.io.cloud.ovh.us", "us-east-va", false),
        ),
        (
            "https://data.ns.compat.objectstorage.eu-zurich-1.oraclecloud.com",
            ("data", "https://ns.compat.objectstorage.eu-zurich-1.oraclecloud.com", "eu-zurich-1", false),
        ),
        ("store.example.com/data", ("data", "http://store.example.com", "us-east-1", false)),
        ("data.store.example.com", ("data", "http://store.example.com", "us-east-1", false)),
        ("127.0.0.1:9000/data", ("data", "http://127.0.0.1:9000", "us-east-1", false)),
        ("http://localhost:9000/data?region=eu", ("data", "http://localhost:9000", "eu", false)),
        ("http://[::1]:9000/data", ("data", "http://[::1]:9000", "us-east-1", false)),
    ] {
        assert_eq!(parts(&s3(text)), want, "{text}");
    }
    let vhost =
        |value: &'static str| move |name: &str| (name == "JFS_S3_VHOST_STYLE").then(|| value.to_owned());
    assert!(Address::s3("https://data.example.com", &vhost("1")).unwrap().virtual_host);
    assert!(!Address::s3("https://data.example.com", &vhost("false")).unwrap().virtual_host);
    assert_eq!(
        Address::s3("https://data.example.com", &vhost("1")).unwrap().bucket_url(),
        "https://data.example.com/"
    );
    assert_eq!(s3("https://example.com/data").bucket_url(), "https://example.com/data");
}

#[test]
fn addresses_of_ovhcloud() {
    for region in OVH_REGIONS {
        for product in ["io", "perf"] {
            let host = format!("s3.{region}.{product}.cloud.ovh.net");
            let endpoint = format!("https://{host}");
            for (text, bucket) in [
                (format!("https://{host}/cider"), "cider"),
                (format!("https://cider.{host}"), "cider"),
                (format!("https://my.own.cider.{host}/"), "my.own.cider"),
                (format!("https://{host}/my.own.cider"), "my.own.cider"),
                (format!("https://cider.s3.{host}"), "cider.s3"),
            ] {
                assert_eq!(parts(&s3(&text)), (bucket, endpoint.as_str(), region, false), "{text}");
            }
            assert_eq!(s3(&format!("https://{host}/c?region=x")).region.as_deref(), Some("x"));
            let minio = Address::minio(&format!("https://{host}/cider"), &none).unwrap();
            assert_eq!(parts(&minio), ("cider", endpoint.as_str(), region, false));
            let e = Address::s3(&endpoint, &none).unwrap_err().to_string();
            assert!(e.contains(&format!("{endpoint}/BUCKET")), "{e}");
            let vhost = |name: &str| (name == "JFS_S3_VHOST_STYLE").then(|| "1".to_owned());
            let of = |bucket: &str| Address::s3(&format!("{endpoint}/{bucket}"), &vhost).unwrap();
            assert_eq!(of("cider").bucket_url(), format!("https://cider.{host}/"));
            assert_eq!(of("my.cider").bucket_url(), format!("{endpoint}/my.cider"));
        }
        // The product before it: what is there can be read, and nothing new is put there.
        for old in ["s3", "storage"] {
            for text in [
                format!("https://{old}.{region}.cloud.ovh.net/cider"),
                format!("https://cider.{old}.{region}.cloud.ovh.net"),
            ] {
                let hint = s3(&text).is_of_old().unwrap();
                assert!(hint.contains(&format!("https://s3.{region}.io.cloud.ovh.net/cider")), "{hint}");
                let e = stored("s3", "", &text).unwrap_err();
                assert!(e.contains(&hint), "{e}");
                assert_eq!(s3(&text).region.as_deref(), Some(region));
            }
        }
    }
    let dots = "https://my.cider.s3.gra.io.cloud.ovh.net";
    assert_eq!(stored("s3", "", dots).as_deref(), Ok("https://s3.gra.io.cloud.ovh.net/my.cider"));
    let with = stored("s3", "", &format!("{dots}?region=gra"));
    assert_eq!(with.as_deref(), Ok("https://s3.gra.io.cloud.ovh.net/my.cider?region=gra"));
    let plain = "https://cider.s3.gra.io.cloud.ovh.net";
    assert_eq!(stored("s3", "", plain).as_deref(), Ok(plain));
    let endpoint = stored("s3", "https://s3.gra.io.cloud.ovh.net", "my.cider");
    assert_eq!(endpoint.as_deref(), Ok("https://s3.gra.io.cloud.ovh.net/my.cider"));
}

#[test]
fn addresses_of_minio() {
    let minio = |text: &str| Address::minio(text, &none);
    for text in ["127.0.0.1:9000/data", "http://127.0.0.1:9000/minio/data", "http://127.0.0.1:9000/data/"] {
        assert_eq!(
            parts(&minio(text).unwrap()),
            ("data", "http://127.0.0.1:9000", "us-east-1", false),
            "{text}"
        );
    }
    assert_eq!(minio("https://h/data?region=eu").unwrap().region.as_deref(), Some("eu"));
    let env = |name: &str| (name == "MINIO_REGION").then(|| "there".to_owned());
    assert_eq!(Address::minio("h:1/data", &env).unwrap().region.as_deref(), Some("there"));
    assert!(minio("http://127.0.0.1:9000").is_err());
    assert!(minio("http://127.0.0.1:9000/").is_err());
}

#[test]
fn options_in_addresses() {
    let a = s3(
        "https://h.example/data?tls-insecure-skip-verify=true&disable-checksum=true&disable-100-continue=true",
    );
    assert!(a.tls.insecure && !a.checksum);
    assert!(s3("https://h.example/data").checksum);
    let a = s3("https://h.example/data?ca-certs=/ca&ssl-cert=/c&ssl-key=/k");
    assert_eq!(a.tls.ca_certs.as_deref(), Some("/ca"));
    assert_eq!((a.tls.cert.as_deref(), a.tls.key.as_deref()), (Some("/c"), Some("/k")));
    for bad in [
        "https://h.example/data?ssl-cert=/c",
        "https://h.example/data?regoin=eu",
        "https://key:hush@h.example/data",
        "https://key:hush@h.example:x/data",
        "https://key:hus/hush@h.example/data",
        "https://key:80/hush@h.example/data",
        "https://key:hus?hush=1@h.example/data",
        "ftp://key:hush@h.example/data",
        "key:hush@h.example",
        "https://key:hush",
        "ftp://h.example/data",
        "https://",
        "http://127.0.0.1:9000",
        "http://[::1]:9000",
        "localhost:9000",
        "",
    ] {
        let e = Address::s3(bad, &none).unwrap_err();
        assert!(matches!(e, ObjectError::Config(_)), "{bad}: {e}");
        assert!(!e.to_string().contains("hus"), "{bad}: {e}");
    }
}

#[test]
fn regions_are_told_at_creation_where_that_is_wanted() {
    assert_eq!(s3("https://s3.gra.io.cloud.ovh.net/c").location_constraint(), Some("gra"));
    assert_eq!(s3("https://c.s3.eu-west-3.amazonaws.com").location_constraint(), Some("eu-west-3"));
    assert_eq!(s3("https://c.s3.us-east-1.amazonaws.com").location_constraint(), None);
    assert_eq!(s3("http://127.0.0.1:9000/c?region=eu").location_constraint(), Some("eu"));
    assert_eq!(s3("http://127.0.0.1:9000/c").location_constraint(), None);
}

#[test]
fn credentials_are_complete_and_secret() {
    let new =
        |access: &str, secret: &str, token: &str| Credentials::new(access, &secret.into(), &token.into());
    assert_eq!(new("", "", "").unwrap(), Credentials::Environment);
    assert_eq!(new("anonymous", "", "").unwrap(), Credentials::Anonymous);
    assert!(new("key", "", "").is_err());
    assert!(new("", "secret", "").is_err());
    let keys = new("key", "hush", "also hush").unwrap();
    let shown = format!("{keys:?}");
    assert!(shown.contains("key") && !shown.contains("hush"), "{shown}");
}

#[test]
fn codes_become_errors_with_a_remedy() {
    let keys = Keys::new(Credentials::Anonymous);
    let asked =
        Asked { store: "bucket b at h", bucket: "b", call: Call::Put, key: "vol/chunks/1", keys: &keys };
    let text = |code: &str| from_code(&asked, code, "").unwrap().to_string();
    assert!(text("InvalidAccessKeyId").contains("--access-key"));
    assert!(text("SignatureDoesNotMatch").contains("--secret-key"));
    assert!(text("ExpiredToken").contains("--session-token"));
    assert!(text("RequestTimeTooSkewed").contains("clock"));
    assert!(text("PermanentRedirect").contains("region="));
    assert!(from_code(&asked, "SlowDown", "").unwrap().is_retryable());
    assert!(from_code(&asked, "InternalError", "").unwrap().is_retryable());
    assert!(!from_code(&asked, "NoSuchBucket", "").unwrap().is_retryable());
    assert!(from_code(&asked, "Whatever", "").is_none());
}

/// What is stored for `--bucket` and `--endpoint`.
fn stored(storage: &str, endpoint: &str, bucket: &str) -> Result<String, String> {
    let endpoint = Some(endpoint).filter(|e| !e.is_empty());
    named_in(storage, endpoint, bucket, &none).map_err(|e| e.to_string())
}

#[test]
fn an_endpoint_beside_a_bucket_is_used() {
    for (storage, endpoint, bucket, want) in [
        ("s3", "http://127.0.0.1:9000", "have", "http://127.0.0.1:9000/have"),
        ("s3", "http://127.0.0.1:9000/", "have/", "http://127.0.0.1:9000/have"),
        ("s3", "127.0.0.1:9000", "have", "http://127.0.0.1:9000/have"),
        ("s3", "store.example.com", "have", "http://store.example.com/have"),
        ("s3", "localhost:9000", "have", "https://localhost:9000/have"),
        ("minio", "localhost:9000", "have", "http://localhost:9000/have"),
        ("s3", "http://minio", "my.bucket", "http://minio/my.bucket"),
        ("s3", "http://h:9000", "have?region=eu", "http://h:9000/have?region=eu"),
        ("s3", "http://h:9000", "have-%d", "http://h:9000/have-%d"),
        // The same place twice.
        ("s3", "http://h:9000", "http://h:9000/have/", "http://h:9000/have"),
        ("s3", "h:9000", "http://h:9000/have", "http://h:9000/have"),
        ("s3", "http://h:9000", "h:9000/have", "http://h:9000/have"),
        ("s3", "http://store.example.com", "have.store.example.com", "http://have.store.example.com"),
        ("s3", "https://s3.eu-west-1.amazonaws.com", "have", "https://s3.eu-west-1.amazonaws.com/have"),
        (
            "s3",
            "https://s3.eu-west-1.amazonaws.com",
            "have.s3.eu-west-1.amazonaws.com",
            "https://have.s3.eu-west-1.amazonaws.com",
        ),
        // Without an endpoint.
        ("s3", "", "have", "have"),
        ("s3", "", "http://h:9000/have/?region=eu", "http://h:9000/have?region=eu"),
        ("minio", "", "h:9000/minio/have", "h:9000/minio/have"),
    ] {
        assert_eq!(stored(storage, endpoint, bucket).as_deref(), Ok(want), "{endpoint} {bucket}");
    }
}

#[test]
fn no_part_of_an_address_is_dropped() {
    for (storage, endpoint, bucket, why) in [
        ("s3", "", "http://h:9000/have/some/where", "bucket have at http://h:9000: the path \"some/where\""),
        ("s3", "", "http://h:9000//have", "after the bucket"),
        ("s3", "", "have/some", "https://have/some"),
        ("s3", "", "http://h:9000/have#x", "#"),
        ("s3", "", "Have", "small letters"),
        ("s3", "", "http://h:9000/ha%20ve", "small letters"),
        ("s3", "", "http://h:9000", "no bucket"),
        ("minio", "", "have", "--endpoint"),
        ("minio", "", "h:9000/have/more", "\"more\""),
        ("s3", "", "https://s3.eu-west-1.amazonaws.com:8443/have", "port"),
        // Would be bucket `volume` at s3.have.amazonaws.com.
        ("s3", "", "https://have.s3.eu-west-1.amazonaws.com/volume", "region"),
        ("s3", "", "https://s3-fips.us-east-1.amazonaws.com/have", "region"),
        ("s3", "", "https://s3.amazonaws.com.cn/have", "region"),
        ("s3", "http://h:9000", "http://other:9000/have", "different places"),
        ("s3", "http://h:9000", "http://h:9001/have", "different places"),
        ("s3", "http://h:9000", "https://h:9000/have", "different places"),
        ("s3", "http://h:9000", "have.s3.amazonaws.com", "different places"),
        ("s3", "http://h:9000", "have/more", "different places"),
        ("s3", "http://h:9000", "http://h:9000/have/more", "\"more\""),
        ("s3", "http://h:9000", "http://h:9000", "no bucket"),
        ("s3", "http://h:9000", "", "no bucket"),
        ("s3", "http://h:9000/s3/api", "have", "host h:9000 with the path /s3/api"),
        ("s3", "http://h:9000?region=eu", "have", "--bucket NAME?region"),
        ("s3", "ftp://h", "have", "http://"),
        ("s3", "http://", "have", "no host"),
        ("s3", "http://user:hush@h", "have", "user or password"),
        ("s3", "http://h", "http://user:hush@h/have", "user or password"),
        ("s3", "", "http://user:hush@h/have#x", "no effect"),
        ("s3", "", "user:hush@h/have/more", "user or password"),
        ("s3", "http://user:hush", "have", "cannot be read"),
        ("s3", "http://user:hush/x", "have", "with the path"),
    ] {
        let text = stored(storage, endpoint, bucket).unwrap_err();
        assert!(text.contains(why) && !text.contains("hush"), "{endpoint} {bucket}: {text}");
    }
}

#[test]
fn every_refusal_names_the_call_the_bucket_and_what_to_do() {
    let keys = Keys::new(Credentials::Anonymous);
    let asked = |call, key| Asked { store: "bucket b at http://h", bucket: "b", call, key, keys: &keys };
    for (call, key, right) in [
        (Call::Put, "vol/x", "; the key lacks the right s3:PutObject on b/vol/*: add it"),
        (Call::Get, "vol/x", "s3:GetObject on b/vol/*"),
        (Call::Head, "vol/x", "s3:GetObject on b/vol/*"),
        (Call::Delete, "vol/x", "s3:DeleteObject on b/vol/*"),
        (Call::List, "vol/", "s3:ListBucket on b with the prefix \"vol/\""),
        (Call::CreateBucket, "", "s3:CreateBucket on b"),
    ] {
        let text = from_code(&asked(call, key), "AccessDenied", "").unwrap().to_string();
        assert!(text.contains(right) && text.contains("bucket b at http://h"), "{text}");
        let text = from_status(&asked(call, key), 403, "nothing").to_string();
        assert!(text.contains(right), "{text}");
    }
    let asked = asked(Call::Put, "vol/x");
    for (status, want) in [
        (301, "region"),
        (405, "S3 service"),
        (411, "Content-Length"),
        (413, "--block-size"),
        (501, "S3 service"),
    ] {
        let e = from_status(&asked, status, "said");
        assert!(
            e.to_string().contains(want) && e.to_string().contains("PutObject") && !e.is_retryable(),
            "{e}"
        );
    }
    assert!(matches!(from_status(&asked, 404, ""), ObjectError::NoBucket(_)));
    let e = from_code(
        &asked,
        "AuthorizationHeaderMalformed",
        "the region 'us-east-1' is wrong; expecting 'eu-west-3'",
    )
    .unwrap();
    assert!(e.to_string().contains("AWS_REGION=eu-west-3"), "{e}");
    let e = from_code(&asked, "BucketAlreadyExists", "").unwrap();
    assert!(e.to_string().contains("another account"), "{e}");
}

#[test]
fn an_address_tells_its_region_or_leaves_it_to_the_environment() {
    for (storage, bucket, told) in [
        ("s3", "http://localhost:9000/data", false),
        ("s3", "http://localhost:9000/data?region=eu", true),
        ("s3", "https://data.s3.eu-west-1.amazonaws.com", true),
        ("s3", "https://s3.gra.io.cloud.ovh.net/data", true),
        ("minio", "http://localhost:9000/data", false),
        ("file", "/data/", true),
    ] {
        assert_eq!(crate::names_region(storage, bucket), told, "{bucket}");
    }
}
