use proptest::prelude::*;

use super::*;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../testdata/settings/", $name, ".json"))
    };
}

/// Documents of the official client come back byte for byte.
const UUID: &str = "cb17d9ba-a2e6-4b75-bb43-3b00415f41f1";

#[test]
fn golden() {
    for text in [golden!("enca"), golden!("encc"), golden!("lz4")] {
        assert_eq!(Settings::parse(text.as_bytes()).unwrap().to_json().unwrap(), text);
    }
    let s = Settings::parse(golden!("encc").as_bytes()).unwrap();
    assert_eq!(s.access_key, "A<&>K");
    assert_eq!(s.to_display_json().unwrap(), golden!("encc-display"));
    assert_eq!(s.encryption(), Ok(Some(Algorithm::ChaCha20Poly1305)));
    let s = Settings::parse(golden!("lz4").as_bytes()).unwrap();
    assert_eq!(s.compression(), Ok(Compression::Lz4));
    assert_eq!((s.block_size(), s.hash_prefix, s.trash_enabled()), (65536, true, false));
    assert_eq!(s.encryption(), Ok(None));
    assert_eq!(s.check_mountable(), Ok(()));
}

/// A new volume gets what the official client gives it.
#[test]
fn defaults() {
    let official = Settings::parse(golden!("lz4").as_bytes()).unwrap();
    let mut ours = Settings::new("lz4", &official.uuid, "file", "/srv/objects/");
    ours.block_size_kib = 64;
    ours.compression = "LZ4".into();
    ours.hash_prefix = true;
    ours.trash_days = 0;
    assert_eq!(ours.to_json().unwrap(), golden!("lz4"));
    assert_eq!(Settings::new("a-b", UUID, "file", "/x/").validate(), Ok(()));
}

#[test]
fn secrets_of_the_official_client() {
    let mut s = Settings::parse(golden!("encc").as_bytes()).unwrap();
    s.decrypt_secrets().unwrap();
    assert_eq!(s.secret_key.expose(), "SK<&>");
    assert!(s.session_token.is_empty());
    assert_eq!(s.encrypt_key.expose(), include_str!("../../testdata/keys/rsa-pbes2-aes256.pem"));
    assert!(!s.key_encrypted);
    let mut s = Settings::parse(golden!("enca").as_bytes()).unwrap();
    s.decrypt_secrets().unwrap();
    assert_eq!(s.encrypt_key.expose(), include_str!("../../testdata/keys/rsa-legacy-aes256.pem"));

    // `docs/format/settings.md#secrets`; the nonce is part of the stored value.
    let stored = "hyKEHlESe0hKOmlamd4BhWsx+TU/VSpT9dPKwlBlUI4K";
    let mut s = Settings::new("vol", "cb17d9ba-a2e6-4b75-bb43-3b00415f41f1", "s3", "");
    s.secret_key = stored.into();
    s.key_encrypted = true;
    s.decrypt_secrets().unwrap();
    assert_eq!(s.secret_key.expose(), "SK123");
    let nonce = [0x87, 0x22, 0x84, 0x1e, 0x51, 0x12, 0x7b, 0x48, 0x4a, 0x3a, 0x69, 0x5a];
    s.encrypt_secrets([[0; 12], nonce, [0; 12]]).unwrap();
    assert_eq!((s.secret_key.expose(), s.key_encrypted), (stored, true));
}

/// Neither what people are shown nor `Debug` has a secret in it, wherever in the document it stands.
#[test]
fn nothing_shows_a_secret() {
    let text = r#"{"Name":"vol","UUID":"cb17d9ba-a2e6-4b75-bb43-3b00415f41f1","Storage":"s3","Bucket":"https://k:hush-b@h/b?x_token=hush-t","BlockSize":4096,
        "AccessKey":"AK","SecretKey":"hush-s","SessionToken":"hush-st","EncryptKey":"hush-e","RangerRestUrl":"http://u:hush-r@h",
        "NewPassword":{"a":"hush-n"}}"#;
    let s = Settings::parse(text.as_bytes()).unwrap();
    for shown in [format!("{s:?}{s:#?}"), s.to_display_json().unwrap()] {
        assert!(!shown.contains("hush") && shown.contains("https://k:****@h/b"), "{shown}");
    }
    assert_eq!(s.to_json().unwrap().matches("hush").count(), 7, "what is stored is whole");
    for key in ["SecretKey", "SessionToken", "EncryptKey"] {
        let e = Settings::parse(format!(r#"{{"BlockSize":4096,"{key}":123456789}}"#).as_bytes()).unwrap_err();
        assert!(!e.to_string().contains("123456789"), "{e}");
    }
    // A directory is none of that.
    let s = Settings::new("vol", "u", "file", "/srv/a:b@c/");
    assert!(s.to_display_json().unwrap().contains("/srv/a:b@c/"));
}

#[test]
fn secrets_that_fail() {
    let volume = |secret: &str| {
        let mut s = Settings::new("vol", "cb17d9ba-a2e6-4b75-bb43-3b00415f41f1", "s3", "");
        s.secret_key = secret.into();
        s.key_encrypted = true;
        s
    };
    for bad in ["###", "aGk=", "hyKEHlESe0hKOmlamd4BhWsx+TU/VSpT9dPKwlBlUI4L"] {
        let mut s = volume(bad);
        let before = s.clone();
        assert!(
            matches!(s.decrypt_secrets(), Err(SettingsError::Secret { field: "SecretKey", .. })),
            "{bad}"
        );
        assert_eq!(s, before);
    }
    let error = volume("removed").decrypt_secrets().unwrap_err();
    assert_eq!(error, SettingsError::SecretRemoved { field: "SecretKey" });
    assert!(error.to_string().contains("config"));
    let mut s = volume("x");
    s.encrypt_algo = "sm4gcm".into();
    let error = s.decrypt_secrets().unwrap_err();
    assert!(error.to_string().contains("sm4gcm is not supported"), "{error}");
    assert!(s.clone().encrypt_secrets([[0; 12]; 3]).is_ok(), "already encrypted: nothing to do");
    s.key_encrypted = false;
    assert!(s.encrypt_secrets([[0; 12]; 3]).is_err());
    // Nothing to hide: the flag stays off.
    let mut s = Settings::new("vol", "u", "file", "/x/");
    s.encrypt_secrets([[0; 12]; 3]).unwrap();
    assert!(!s.key_encrypted);
}

#[test]
fn tiers() {
    let parse = |tiers: &str| {
        Settings::parse(
            format!(r#"{{"UUID":"{UUID}","BlockSize":4096,"StorageClass":"GLACIER"{tiers}}}"#).as_bytes(),
        )
    };
    let class = |s: &Settings, id| s.tier(id).storage_class;
    for absent in ["", r#","Tiers":null"#, r#","Tiers":{}"#] {
        let s = parse(absent).unwrap();
        assert_eq!((class(&s, 0), class(&s, 3)), ("GLACIER".into(), "GLACIER".into()));
        assert!(s.to_json().unwrap().contains("\"Tiers\": null,\n"));
    }
    let s = parse(r#","Tiers":{"2":{"ID":2,"StorageClass":"X","Tag":"k=v"},"0":{"ID":0}}"#).unwrap();
    assert_eq!((class(&s, 2), class(&s, 1), s.tier(2).tag), ("X".into(), String::new(), "k=v".into()));
    assert!(parse(r#","Tiers":{"x":{}}"#).is_err());
}

/// The same flags leave the same document behind as with the official client.
#[test]
fn classes_tags_and_limits_are_stored_as_the_official_client_does() {
    let format = golden!("tiers-format");
    let mut s = Settings::parse(format.as_bytes()).unwrap();
    let mut ours = Settings::new("tiers", &s.uuid, "file", "/srv/objects/");
    ours.set_first_class(Some("STANDARD_IA"), None).unwrap();
    assert_eq!(ours.to_json().unwrap(), format);
    s.set_tier(None, Some("ONEZONE_IA"), Some("team=a<b & c")).unwrap();
    assert_eq!(s.to_json().unwrap(), golden!("tiers-class"));
    s.set_tier(Some(2), Some("GLACIER_IR"), Some("k=v")).unwrap();
    assert_eq!(s.to_json().unwrap(), golden!("tiers-two"));
    s.set_limits(Some(parse_mbps("1.5G").unwrap()), Some(parse_mbps("100").unwrap()));
    assert_eq!(s.to_json().unwrap(), golden!("tiers-limits"));
    assert_eq!(s.limits(), (1500, 100));
    let odd = golden!("tiers-limits").replace("1500", "-5");
    assert_eq!(
        Settings::parse(odd.as_bytes()).unwrap().limits(),
        (0, 100),
        "nothing is limited to less than nothing"
    );
    s.set_tier(Some(2), Some(""), None).unwrap();
    s.set_limits(Some(0), None);
    assert_eq!(s.to_json().unwrap(), golden!("tiers-none"));
    // A volume of before 1.4: the class becomes that of tier 0 with the first change, whatever is changed.
    let old =
        format!(r#"{{"UUID":"{UUID}","BlockSize":4096,"StorageClass":"OLD","MinClientVersion":"1.1.0-A"}}"#);
    let changes: [fn(&mut Settings); 3] = [
        |s| s.set_limits(Some(5), None),
        |s| s.set_tier(None, None, Some("k=v")).unwrap(),
        |s| s.set_tier(Some(2), Some("NEW"), None).unwrap(),
    ];
    for (change, min) in changes.into_iter().zip(["1.1.0-A", "1.1.0-A", "1.4.0-A"]) {
        let mut s = Settings::parse(old.as_bytes()).unwrap();
        change(&mut s);
        assert_eq!((s.tiers[&0].storage_class.as_str(), s.storage_class.as_str()), ("OLD", "OLD"));
        assert_eq!(s.min_client_version, min);
    }
    // A mount's own class changes nothing that is stored elsewhere.
    s.override_class(Some("STANDARD"), None).unwrap();
    assert_eq!((s.tier(0).storage_class.as_str(), s.tier(0).tag.as_str()), ("STANDARD", "team=a<b & c"));
    assert_eq!(s.storage_class, "STANDARD_IA");
}

#[test]
fn what_is_no_class_tag_or_tier_is_refused() {
    let mut s = Settings::new("vol", UUID, "file", "/x/");
    let before = s.clone();
    for class in ["a b", "a\n", "Ä", "a\0"] {
        assert!(
            s.set_tier(None, Some(class), None).unwrap_err().to_string().contains("StorageClass"),
            "{class}"
        );
    }
    let long = ["k".repeat(129) + "=v", format!("k={}", "v".repeat(257))];
    for tag in ["noequal", "a=b=c", "a=b&c=d", "=d", "k=", "k=\n", &long[0], &long[1]] {
        let refused = s.override_class(None, Some(tag)).unwrap_err().to_string();
        assert!(refused.contains("KEY=VALUE"), "{refused}");
    }
    assert!(s.set_tier(Some(4), Some("X"), None).unwrap_err().to_string().contains("0 to 3"));
    assert!(s.set_tier(Some(2), None, None).unwrap_err().to_string().contains("--storage-class"));
    assert_eq!(s, before);
    s.set_tier(Some(3), None, Some("ä b=c&d %")).unwrap();
}

/// Numbers as the official client reads them; what it takes for no limit, or for one of no sense, is refused.
#[test]
fn bandwidths() {
    for (text, mbps) in [
        ("", 0),
        ("0", 0),
        ("1", 1),
        ("1.5", 1),
        ("10m", 10),
        ("1.5G", 1500),
        ("2T", 2_000_000),
        ("1P", 1_000_000_000),
        ("1e3", 1000),
        ("+5", 5),
    ] {
        assert_eq!(parse_mbps(text), Ok(mbps), "{text}");
    }
    for bad in
        ["0.4", "-5", " 5", "5 ", "3k", "5Mbps", "20Mb", "0x10", "inf", "nan", "M", "2000P", "5µ", "1e999"]
    {
        assert!(parse_mbps(bad).unwrap_err().to_string().contains("like 100 or 1.5G"), "{bad}");
    }
}

#[test]
fn unknown_keys_survive() {
    let text = r#"{"Name":"vol","UUID":"cb17d9ba-a2e6-4b75-bb43-3b00415f41f1","NewThing":{"b":1,"a":[null,18446744073709551615]},"BlockSize":4096,"Shards":null,"Odd":null}"#;
    let s = Settings::parse(text.as_bytes()).unwrap();
    assert_eq!(s.shards, 0);
    let again = s.to_json().unwrap();
    assert!(again.ends_with(
        "\"NewThing\": {\n\"b\": 1,\n\"a\": [\nnull,\n18446744073709551615\n]\n},\n\"Odd\": null\n}"
    ));
    assert_eq!(Settings::parse(again.as_bytes()).unwrap(), s);
}

#[test]
fn refusals() {
    let parse = |json: &str| Settings::parse(json.as_bytes()).unwrap_err();
    assert!(matches!(parse(""), SettingsError::Json(_)));
    assert!(matches!(parse("[]"), SettingsError::Json(_)));
    assert!(matches!(parse(r#"{"BlockSize":"4096"}"#), SettingsError::Json(_)));
    for size in ["0", "32", "100", "32768", "4294967295"] {
        let error = parse(&format!(r#"{{"BlockSize":{size}}}"#));
        assert!(matches!(error, SettingsError::Field { field: "BlockSize", .. }), "{size}");
    }
    assert!(matches!(parse("{}"), SettingsError::Field { field: "BlockSize", .. }));
    for odd in [
        "",
        "u",
        "../../../etc/cron.d/0000-0000-0000",
        "/b17d9ba-a2e6-4b75-bb43-3b00415f41f1",
        "cb17d9baa2e64b75bb433b00415f41f1",
        "cb17d9ba-a2e6-4b75-bb43-3b00415f41f1/x",
        "cb17d9ba-a2e6-4b75-bb43-3b00415f41f",
        "cb17d9ba-a2e6-4b75-bb43-3b00415f41fg",
        "cb17d9ba-a2e6-4b75-bb43-3b00415f41f1\\u0000",
        "------------------------------------",
        "cb17d9b-aa2e6-4b75-bb43-3b00415f41f1",
    ] {
        let error = parse(&format!(r#"{{"UUID":"{odd}","BlockSize":64}}"#));
        assert!(matches!(error, SettingsError::Field { field: "UUID", .. }), "{odd}: {error}");
    }
    let upper = UUID.to_uppercase();
    assert_eq!(
        Settings::parse(format!(r#"{{"UUID":"{upper}","BlockSize":64}}"#).as_bytes()).unwrap().uuid,
        upper
    );
    let error = parse(&format!(r#"{{"UUID":"{UUID}","BlockSize":64,"Compression":"brotli"}}"#));
    assert!(error.to_string().contains("brotli"));
    let error = parse(r#"{"BlockSize":64,"Shards":257}"#);
    assert!(matches!(error, SettingsError::Field { field: "Shards", .. }));

    let mut s = Settings::new("vol", "u", "file", "/x/");
    s.meta_version = 2;
    assert_eq!(s.check_mountable(), Err(SettingsError::MetaVersion(2)));
    s.meta_version = 1;
    s.min_client_version = "9.0.0-A".into();
    assert!(matches!(s.check_mountable(), Err(SettingsError::Version(_))));
    s.raise_min_client("1.4.0-A");
    assert_eq!(s.min_client_version, "9.0.0-A");
    s.min_client_version = "1.1.0-A".into();
    s.raise_min_client("1.4.0-A");
    assert_eq!(s.min_client_version, "1.4.0-A");
    s.encrypt_key = "pem".into();
    s.encrypt_algo = "sm4gcm".into();
    assert!(matches!(s.encryption(), Err(SettingsError::Field { field: "EncryptAlgo", .. })));
}

#[test]
fn names_and_sizes() {
    for good in ["abc", "a-b", "0a9", "my-vol-1", &"x".repeat(63)] {
        assert_eq!(validate_name(good), Ok(()), "{good}");
    }
    for bad in ["", "ab", "-ab", "ab-", "Abc", "a_b", "a.b", "a b", "äbc", &"x".repeat(64)] {
        assert!(validate_name(bad).is_err(), "{bad}");
    }
    // The cases of `docs/format/settings.md#fields`, in bytes.
    for (asked, kib) in [(100 << 10, 64), (5 << 20, 4096), (17 << 20, 16384), (1 << 10, 64), (0, 64)] {
        assert_eq!(round_block_size(asked), kib << 10);
    }
    assert_eq!(round_block_size(u64::MAX), MAX_BLOCK_SIZE);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), any::<String>(), "[<>&\u{2028}\u{2029}\"\\\\]{0,8}"]
}

proptest! {
    #[test]
    fn round_trip(
        texts in prop::array::uniform7(text()), uuid in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        numbers: [u64; 2], small: [u32; 3], signed: [i64; 4], flags: [bool; 6], shift in 6u32..15,
        tiers in prop::collection::btree_map(0u8..4, ("[A-Z]{0,5}", "[a-z=]{0,5}"), 0..4),
    ) {
        let [name, storage, storage_class, bucket, access_key, secret_key, kerb_conf] = texts;
        let s = Settings {
            name, uuid, storage, storage_class, bucket, access_key, secret_key: secret_key.into(), kerb_conf,
            tiers: tiers.into_iter().map(|(id, (storage_class, tag))| (id, Tier { id, storage_class, tag })).collect(),
            block_size_kib: 1 << shift,
            shards: small[0] % 257,
            trash_days: small[1],
            meta_version: small[2],
            capacity: numbers[0],
            inodes: numbers[1],
            upload_limit: signed[0],
            download_limit: signed[1],
            change_log_max_age: signed[2],
            change_log_max_lines: signed[3],
            hash_prefix: flags[0],
            key_encrypted: flags[1],
            dir_stats: flags[2],
            user_group_quota: flags[3],
            enable_acl: flags[4],
            change_log: flags[5],
            ..Settings::default()
        };
        let json = s.to_json().unwrap();
        prop_assert!(!json.contains(['<', '>', '&']));
        prop_assert_eq!(Settings::parse(json.as_bytes()).unwrap(), s.clone());
        prop_assert!(!s.to_display_json().unwrap().is_empty());
    }

    #[test]
    fn secrets_round_trip(secrets in prop::array::uniform3(any::<String>()), nonces: [[u8; 12]; 3]) {
        prop_assume!(secrets.iter().all(|s| s != REMOVED));
        let mut s = Settings::new("vol", "u", "s3", "");
        [s.encrypt_key, s.secret_key, s.session_token] = secrets.map(Secret::from);
        let plain = s.clone();
        s.encrypt_secrets(nonces).unwrap();
        prop_assert_eq!(s.key_encrypted, plain.has_secrets());
        s.decrypt_secrets().unwrap();
        prop_assert_eq!(s, plain);
    }

    #[test]
    fn never_panics(raw: Vec<u8>, text: String) {
        let _ = Settings::parse(&raw);
        let _ = validate_name(&text);
        let mut s = Settings { key_encrypted: true, secret_key: text.into(), ..Settings::default() };
        let _ = s.decrypt_secrets();
    }
}

#[test]
fn documents_have_a_greatest_length() {
    let mut settings = Settings::new("vol", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "file", "/x/");
    let raw = settings.to_json().unwrap();
    let padded = format!("{raw}{}", " ".repeat(MAX_DOCUMENT - raw.len()));
    assert!(Settings::parse(padded.as_bytes()).is_ok());
    assert_eq!(
        Settings::parse(format!("{padded} ").as_bytes()),
        Err(SettingsError::Length(MAX_DOCUMENT + 1))
    );
    settings.encrypt_key = "k".repeat(MAX_DOCUMENT).into();
    assert!(matches!(settings.to_json(), Err(SettingsError::Length(_))));
}
