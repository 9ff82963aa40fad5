//! The protection of old PEM files: `Proc-Type: 4,ENCRYPTED` with a `DEK-Info` header. The key is MD5 over passphrase and
//! IV, repeated; it is read because such keys exist, nobody should make new ones.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use md5::{Digest, Md5};

use super::KeyError;

/// Decrypts the content of a PEM block. `info` is the value of its `DEK-Info`: the cipher and its IV in hex.
pub(super) fn decrypt(data: &[u8], info: &str, passphrase: &str) -> Result<Vec<u8>, KeyError> {
    let malformed = || KeyError::Pem(format!("malformed DEK-Info header {info:?}"));
    let (cipher, iv) = info.split_once(',').ok_or_else(malformed)?;
    let iv = unhex(iv.trim()).ok_or_else(malformed)?;
    match cipher.trim() {
        "AES-128-CBC" => cbc::<cbc::Decryptor<aes::Aes128>>(data, &iv, passphrase, 16),
        "AES-192-CBC" => cbc::<cbc::Decryptor<aes::Aes192>>(data, &iv, passphrase, 24),
        "AES-256-CBC" => cbc::<cbc::Decryptor<aes::Aes256>>(data, &iv, passphrase, 32),
        "DES-EDE3-CBC" => cbc::<cbc::Decryptor<des::TdesEde3>>(data, &iv, passphrase, 24),
        "DES-CBC" => cbc::<cbc::Decryptor<des::Des>>(data, &iv, passphrase, 8),
        other => Err(KeyError::Protection(other.to_owned())),
    }
}

fn cbc<C: BlockModeDecrypt + KeyIvInit>(
    data: &[u8],
    iv: &[u8],
    passphrase: &str,
    key_len: usize,
) -> Result<Vec<u8>, KeyError> {
    let salt =
        iv.first_chunk::<8>().ok_or_else(|| KeyError::Pem("short IV in DEK-Info header".to_owned()))?;
    let cipher = C::new_from_slices(&derive(passphrase.as_bytes(), salt, key_len), iv)
        .map_err(|_| KeyError::Pem("IV of the wrong length in DEK-Info header".to_owned()))?;
    let mut data = data.to_vec();
    let plain = cipher.decrypt_padded::<Pkcs7>(&mut data).map_err(|_| KeyError::WrongPassphrase)?;
    Ok(plain.to_vec())
}

/// `EVP_BytesToKey` with MD5 and one round.
fn derive(passphrase: &[u8], salt: &[u8; 8], len: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(len + 16);
    let mut last = Vec::new();
    while key.len() < len {
        last = Md5::new().chain_update(&last).chain_update(passphrase).chain_update(salt).finalize().to_vec();
        key.extend_from_slice(&last);
    }
    key.truncate(len);
    key
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}
