//! Reading and printing the document the way the official client's JSON library does.

use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Serializer, Value};

use super::{Settings, SettingsError};

fn error(e: &serde_json::Error) -> SettingsError {
    SettingsError::Json(e.to_string())
}

pub(super) fn parse(raw: &[u8]) -> Result<Settings, SettingsError> {
    let mut doc: Map<String, Value> = serde_json::from_slice(raw).map_err(|e| error(&e))?;
    let known = known_keys()?;
    doc.retain(|key, value| !(value.is_null() && known.contains_key(key)));
    serde_json::from_value(Value::Object(doc)).map_err(|e| error(&e))
}

/// Every key of the document: those of a value whose optional fields are all filled.
fn known_keys() -> Result<Map<String, Value>, SettingsError> {
    let full = Settings {
        storage_class: "x".into(),
        access_key: "x".into(),
        secret_key: "x".into(),
        session_token: "x".into(),
        compression: "x".into(),
        shards: 1,
        hash_prefix: true,
        capacity: 1,
        inodes: 1,
        encrypt_key: "x".into(),
        encrypt_algo: "x".into(),
        key_encrypted: true,
        upload_limit: 1,
        download_limit: 1,
        meta_version: 1,
        min_client_version: "x".into(),
        max_client_version: "x".into(),
        dir_stats: true,
        user_group_quota: true,
        ranger_rest_url: "x".into(),
        ranger_service: "x".into(),
        change_log: true,
        change_log_max_age: 1,
        change_log_max_lines: 1,
        kerb_conf: "x".into(),
        ..Settings::default()
    };
    match serde_json::to_value(full).map_err(|e| error(&e))? {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

pub(super) fn print(settings: &Settings, indent: &[u8]) -> Result<String, SettingsError> {
    let mut out = Vec::new();
    settings
        .serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(indent)))
        .map_err(|e| error(&e))?;
    let text = String::from_utf8(out).map_err(|e| SettingsError::Json(e.to_string()))?;
    Ok(escape_html(&text))
}

/// The official client's library writes these characters as escapes. They occur only inside strings. Readers take
/// both forms, but equal settings should be equal bytes.
pub(crate) fn escape_html(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out
}

/// `Tiers`: a map whose keys are decimal strings.
pub(super) mod tiers {
    use std::collections::BTreeMap;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::settings::Tier;

    pub(in crate::settings) fn serialize<S: Serializer>(
        tiers: &BTreeMap<u8, Tier>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        // Null rather than an empty object: that is the form for which readers are known to assume tier 0.
        if tiers.is_empty() {
            return s.serialize_none();
        }
        s.collect_map(tiers.iter().map(|(id, tier)| (id.to_string(), tier)))
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<u8, Tier>, D::Error> {
        Option::<BTreeMap<String, Tier>>::deserialize(d)?
            .unwrap_or_default()
            .into_iter()
            .map(|(id, tier)| match id.parse() {
                Ok(id) => Ok((id, tier)),
                Err(_) => Err(D::Error::custom(format!("tier id {id:?} is not a number from 0 to 255"))),
            })
            .collect()
    }
}
