//! ACL rules that this client knows.
//!
//! Rules are immutable and shared by id, so what is known stays true. Identical rules should share an id: they are found by
//! content here (`docs/format/acls-and-xattrs.md#acl-rules`).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ciderfs_format::acl::AclRule;
use parking_lot::Mutex;

use crate::error::Result;
use crate::store::{Counter, Read, StoreError, Value};
use crate::volume::Meta;

/// Rules kept; more than that, and all are forgotten and fetched again as needed.
const RULES_MAX: usize = 65_536;
/// Rules fetched when a volume is opened: the newest.
const LOADED_MAX: u32 = 10_000;
/// Rules fetched in one turn.
const BATCH: usize = 1000;

/// Rules by id and by content.
#[derive(Default)]
pub(crate) struct Rules {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<u32, Arc<AclRule>>,
    by_rule: HashMap<Arc<AclRule>, u32>,
    last: u32,
}

impl Rules {
    /// The rule of an id.
    pub(crate) fn get(&self, id: u32) -> Option<Arc<AclRule>> {
        self.inner.lock().by_id.get(&id).cloned()
    }

    /// The id of a rule.
    pub(crate) fn find(&self, rule: &AclRule) -> Option<u32> {
        self.inner.lock().by_rule.get(rule).copied()
    }

    /// Up to this id all rules have been looked at.
    pub(crate) fn last(&self) -> u32 {
        self.inner.lock().last
    }

    /// All rules up to this id have been looked at.
    pub(crate) fn looked_at(&self, last: u32) {
        let mut inner = self.inner.lock();
        inner.last = inner.last.max(last);
    }

    /// Remembers a stored rule.
    pub(crate) fn learn(&self, id: u32, raw: &[u8]) -> Result<Arc<AclRule>, StoreError> {
        let rule = Arc::new(AclRule::decode(raw)?);
        let mut inner = self.inner.lock();
        if inner.by_id.len() >= RULES_MAX {
            inner.by_id.clear();
            inner.by_rule.clear();
        }
        inner.by_id.insert(id, Arc::clone(&rule));
        inner.by_rule.entry(Arc::clone(&rule)).or_insert(id);
        Ok(rule)
    }
}

impl Meta {
    /// Fetches the rules of the volume, the newest if there are very many.
    pub(crate) async fn load_rules(&self) -> Result<()> {
        let Some(Value::Int(last)) = self.read(&[Read::Counter(Counter::AclMaxId)]).await?.into_iter().next()
        else {
            return Err(StoreError::another_question().into());
        };
        let last = u32::try_from(last).unwrap_or(u32::MAX);
        let ids: Vec<u32> = (last.saturating_sub(LOADED_MAX)..last).map(|id| id + 1).collect();
        for ids in ids.chunks(BATCH) {
            let reads: Vec<Read> = ids.iter().map(|id| Read::Acl(*id)).collect();
            for (id, value) in ids.iter().zip(self.read(&reads).await?) {
                if let Value::Bytes(Some(raw)) = value {
                    self.rules.learn(*id, &raw)?;
                }
            }
        }
        self.rules.looked_at(last);
        Ok(())
    }

    /// The rule of an id, from the engine if need be.
    ///
    /// # Errors
    /// `EIO` if the volume has lost it.
    pub(crate) async fn fetch_rule(&self, id: u32) -> Result<Arc<AclRule>> {
        if let Some(rule) = self.rules.get(id) {
            return Ok(rule);
        }
        match self.read(&[Read::Acl(id)]).await?.into_iter().next() {
            Some(Value::Bytes(raw)) => Ok(self.keep_rule(id, raw)?),
            _ => Err(StoreError::another_question().into()),
        }
    }

    /// Remembers a fetched rule, which must be there.
    pub(crate) fn keep_rule(&self, id: u32, raw: Option<Bytes>) -> Result<Arc<AclRule>, StoreError> {
        match raw {
            Some(raw) => self.rules.learn(id, &raw),
            None => Err(StoreError::Corrupt(format!("ACL rule {id} is missing"))),
        }
    }
}
