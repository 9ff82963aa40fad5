use proptest::prelude::*;

use super::*;
use crate::testing::golden_plain;

macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("../../testdata/keys/", $name, ".pem"))
    };
}

const PASSPHRASE: &str = "correct-horse";

fn envelope(algorithm: Algorithm) -> Envelope {
    Envelope::new(PrivateKey::load(pem!("rsa-pkcs1"), None).unwrap(), algorithm)
}

fn both() -> [Envelope; 2] {
    [envelope(Algorithm::Aes256Gcm), envelope(Algorithm::ChaCha20Poly1305)]
}

#[test]
fn algorithms() {
    assert_eq!(Algorithm::parse(""), Ok(Algorithm::Aes256Gcm));
    for a in [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305] {
        assert_eq!(Algorithm::parse(a.name()), Ok(a));
    }
    let error = Algorithm::parse("sm4gcm").unwrap_err();
    assert!(error.to_string().contains("sm4gcm"), "{error}");
}

/// Objects written by the official client.
#[test]
fn golden() {
    let [aes, chacha] = both();
    let uuid = |json: &[u8]| crate::Settings::parse(json).unwrap().uuid.into_bytes();
    let sealed = include_bytes!("../../testdata/objects/aes256gcm-uuid");
    assert_eq!(sealed.len(), 36 + 287);
    assert_eq!(aes.open(sealed).unwrap(), uuid(include_bytes!("../../testdata/settings/enca.json")));
    assert_eq!(chacha.open(sealed), Err(EnvelopeError::Tag));
    let sealed = include_bytes!("../../testdata/objects/chacha20-uuid");
    assert_eq!(chacha.open(sealed).unwrap(), uuid(include_bytes!("../../testdata/settings/encc.json")));
    let sealed = include_bytes!("../../testdata/objects/aes256gcm-3_0_256");
    assert_eq!(aes.open(sealed).unwrap(), golden_plain("3_0_256"));
    let sealed = include_bytes!("../../testdata/objects/chacha20-1_0_1000");
    assert_eq!(chacha.open(sealed).unwrap(), golden_plain("1_0_1000"));
}

#[test]
fn every_form_of_the_key() {
    let sealed = include_bytes!("../../testdata/objects/aes256gcm-uuid");
    let plain = envelope(Algorithm::Aes256Gcm).open(sealed).unwrap();
    for pem in [pem!("rsa-pkcs1"), pem!("rsa-pkcs8")] {
        // A passphrase for a key without protection is ignored.
        for passphrase in [None, Some(""), Some("whatever")] {
            let key = PrivateKey::load(pem, passphrase).unwrap();
            assert_eq!(key.modulus_len(), 256);
            assert_eq!(Envelope::new(key, Algorithm::Aes256Gcm).open(sealed).unwrap(), plain);
        }
    }
    for pem in [
        pem!("rsa-legacy-aes128"),
        pem!("rsa-legacy-aes192"),
        pem!("rsa-legacy-aes256"),
        pem!("rsa-legacy-des3"),
        pem!("rsa-legacy-des"),
        pem!("rsa-pbes2-aes256"),
        pem!("rsa-pbes2-sha1"),
        pem!("rsa-pbes2-des3"),
        pem!("rsa-pbes2-scrypt"),
    ] {
        let key = PrivateKey::load(pem, Some(PASSPHRASE)).unwrap();
        assert_eq!(Envelope::new(key, Algorithm::Aes256Gcm).open(sealed).unwrap(), plain);
        assert_eq!(PrivateKey::load(pem, None).unwrap_err(), KeyError::PassphraseNeeded);
        assert_eq!(PrivateKey::load(pem, Some("")).unwrap_err(), KeyError::PassphraseNeeded);
        assert_eq!(PrivateKey::load(pem, Some("wrong")).unwrap_err(), KeyError::WrongPassphrase);
    }
    for error in [KeyError::PassphraseNeeded, KeyError::WrongPassphrase] {
        assert!(error.to_string().contains(PASSPHRASE_ENV));
    }
}

/// Enough wrong passphrases that some leave valid padding behind.
#[test]
fn wrong_passphrases() {
    for i in 0..600 {
        let error = PrivateKey::load(pem!("rsa-legacy-des3"), Some(&format!("wrong{i}"))).unwrap_err();
        assert_eq!(error, KeyError::WrongPassphrase);
    }
}

#[test]
fn unusable_keys() {
    let load = |pem: &str| PrivateKey::load(pem, Some(PASSPHRASE)).unwrap_err();
    assert_eq!(load(pem!("sm2")), KeyError::Type("SM2".into()));
    assert_eq!(load(pem!("ed25519")), KeyError::Type("Ed25519".into()));
    assert_eq!(load(pem!("ec")), KeyError::Type("elliptic-curve".into()));
    assert_eq!(load(pem!("public")), KeyError::NotAKey("PUBLIC KEY".into()));
    assert!(matches!(load(pem!("rsa1024")), KeyError::Invalid(_)));
    assert!(matches!(load(pem!("rsa-pbes1")), KeyError::Protection(_)));
    assert!(matches!(load(""), KeyError::Pem(_)));
    assert!(matches!(load("removed"), KeyError::Pem(_)));
    let unknown = pem!("rsa-legacy-des3").replace("DES-EDE3-CBC", "RC2-CBC");
    assert_eq!(load(&unknown), KeyError::Protection("RC2-CBC".into()));
    for info in ["", "DES-EDE3-CBC", "DES-EDE3-CBC,zz", "DES-EDE3-CBC,00", "AES-128-CBC,0011223344556677"] {
        let bad = pem!("rsa-legacy-des3").lines().map(|l| {
            if l.starts_with("DEK-Info") { format!("DEK-Info: {info}\n") } else { format!("{l}\n") }
        });
        assert!(matches!(load(&bad.collect::<String>()), KeyError::Pem(_)), "{info}");
    }
    let damaged = pem!("rsa-pkcs1").replacen("MIIE", "AAAA", 1);
    assert!(matches!(load(&damaged), KeyError::Invalid(_)));
}

/// Only the first block counts; text around it does not.
#[test]
fn first_block() {
    let text = format!("Bag Attributes\n  friendlyName: x\n{}{}", pem!("rsa-pkcs8"), pem!("ed25519"));
    assert!(PrivateKey::load(&text, None).is_ok());
    let text = format!("{}{}", pem!("ed25519"), pem!("rsa-pkcs8"));
    assert_eq!(PrivateKey::load(&text, None).unwrap_err(), KeyError::Type("Ed25519".into()));
    assert!(PrivateKey::load(&pem!("rsa-pkcs8").replace('\n', "\r\n"), None).is_ok());
}

#[test]
fn layout() {
    for e in both() {
        let sealed = e.seal(b"hello", [1; 32], [2; 12]).unwrap();
        assert_eq!(sealed.len(), 5 + e.overhead());
        assert_eq!(e.overhead(), 287);
        assert_eq!(sealed[..3], [1, 0, 12]);
        assert_eq!(sealed[3 + 256..3 + 256 + 12], [2; 12]);
        // A fresh reader must go through the private key.
        let reader = envelope(e.algorithm);
        assert_eq!(reader.open(&sealed).unwrap(), b"hello");
        assert_eq!(Envelope::plain_len(&sealed), Ok(5));
        assert_eq!(
            reader.open_into(&sealed, &mut [0; 4]),
            Err(EnvelopeError::Buffer { got: 4, expected: 5 })
        );
    }
}

#[test]
fn shared_data_key() {
    for e in both() {
        let key = e.wrap_key([7; 32]).unwrap();
        let one = e.seal_with(&key, b"one", [1; 12]).unwrap();
        let two = e.seal_with(&key, b"two", [2; 12]).unwrap();
        assert_eq!(one[..259], two[..259]);
        let reader = envelope(e.algorithm);
        assert_eq!(reader.open(&one).unwrap(), b"one");
        assert_eq!(reader.open(&two).unwrap(), b"two");
        assert_eq!(reader.known.lock().unwrap().keys.len(), 1);
    }
}

#[test]
fn known_keys_are_bounded() {
    let mut known = KnownKeys::default();
    for i in 0..MAX_CACHED_KEYS + 10 {
        for _ in 0..2 {
            known.insert(Arc::from(i.to_be_bytes().as_slice()), [0; 32]);
        }
    }
    assert_eq!((known.keys.len(), known.age.len()), (MAX_CACHED_KEYS, MAX_CACHED_KEYS));
    assert!(!known.keys.contains_key(9_usize.to_be_bytes().as_slice()));
    assert!(known.keys.contains_key(10_usize.to_be_bytes().as_slice()));
}

#[test]
fn damage() {
    for e in both() {
        let sealed = e.seal(b"some content", [1; 32], [2; 12]).unwrap();
        for n in [0, 2, 3, 258, 259, 270, 286] {
            assert!(matches!(e.open(&sealed[..n]), Err(EnvelopeError::Truncated { .. })), "{n}");
        }
        assert_eq!(e.open(&sealed[..sealed.len() - 1]), Err(EnvelopeError::Tag));
        let flipped = |at: usize| {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            e.open(&bad).unwrap_err()
        };
        assert_eq!(flipped(2), EnvelopeError::Nonce(13));
        assert_eq!(flipped(100), EnvelopeError::Unwrap);
        for at in [260, 271, sealed.len() - 1] {
            assert_eq!(flipped(at), EnvelopeError::Tag);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trip(plain in prop::collection::vec(any::<u8>(), 0..5000), key: [u8; 32], nonce: [u8; 12], chacha: bool) {
        let e = &ENVELOPES[usize::from(chacha)];
        let sealed = e.seal(&plain, key, nonce).unwrap();
        prop_assert_eq!(sealed.len(), plain.len() + e.overhead());
        prop_assert_eq!(e.open(&sealed).unwrap(), plain);
    }

    #[test]
    fn garbage(raw in prop::collection::vec(any::<u8>(), 0..600), valid_head: bool) {
        let raw = if valid_head { [&[1, 0, 12], &raw[..]].concat() } else { raw };
        prop_assert!(ENVELOPES[0].open(&raw).is_err());
    }

    #[test]
    fn garbage_keys(text: String, body in "[A-Za-z0-9+/=\n:, -]{0,200}") {
        let _ = PrivateKey::load(&text, Some("x"));
        for tag in ["RSA PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
            let _ = PrivateKey::load(&format!("-----BEGIN {tag}-----\n{body}\n-----END {tag}-----\n"), Some("x"));
        }
    }
}

static ENVELOPES: std::sync::LazyLock<[Envelope; 2]> = std::sync::LazyLock::new(both);
