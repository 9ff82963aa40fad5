//! What requests go through once the region of the bucket is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use ciderfs_format::settings::Tier;
use opendal::services::S3;
use opendal::{HttpTransporter, OperationContext, Operator};
use reqsign_aws_v4::RequestSigner;
use reqsign_core::{Context, OsEnv, Signer};
use reqwest::Client;

use super::address::Address;
use super::answers::Bounded;
use super::bucket::Sender;
use super::keys::Keys;
use super::outgoing::{Outgoing, headers};
use crate::bandwidth::Bandwidth;
use crate::error::{ObjectError, Result};

/// How things are stored, and how fast.
pub(crate) struct Manner {
    /// Class and tag by storage tier.
    pub(crate) tiers: BTreeMap<u8, Tier>,
    /// For the bodies.
    pub(crate) bandwidth: Arc<Bandwidth>,
}

/// The address with its region, and the operators for it.
pub(super) struct Bound {
    pub(super) address: Address,
    pub(super) operator: Operator,
    /// For what is stored in a tier; none where that is stored as the store's default.
    tiers: BTreeMap<u8, Option<Operator>>,
}

impl Bound {
    /// Fails if the address or a tier cannot be used.
    pub(super) fn new(address: Address, keys: &Keys, client: &Client, manner: &Manner) -> Result<Self> {
        let region = address.region.as_deref().unwrap_or("us-east-1");
        let operator = |is_signed: bool, outgoing: Outgoing| {
            let mut builder = S3::default()
                .bucket(&address.bucket)
                .endpoint(&address.endpoint)
                .region(region)
                .credential_provider_chain(keys.provider(address.is_aws()));
            if address.virtual_host {
                builder = builder.enable_virtual_host_style();
            }
            if !is_signed {
                builder = builder.skip_signature();
            }
            let transport = HttpTransporter::new(Bounded(outgoing));
            let context = OperationContext::new().with_http_transport(transport);
            let failed =
                |e| ObjectError::Config(format!("bucket {} at {}: {e}", address.bucket, address.endpoint));
            let built = Operator::new(builder).map_err(failed)?;
            Ok(built.with_context(context))
        };
        let outgoing = Outgoing::new(client, &address, &manner.bandwidth);
        // Signs when class and tag are there.
        let signer = (!keys.is_anonymous()).then(|| {
            let context = Context::new().with_http_send(Sender(client.clone())).with_env(OsEnv);
            Signer::new(context, keys.provider(address.is_aws()), RequestSigner::new("s3", region))
        });
        let mut tiers = BTreeMap::new();
        for (id, tier) in &manner.tiers {
            let headers = headers(tier)?;
            let placed = (!headers.is_empty())
                .then(|| operator(false, outgoing.placing(headers, signer.clone())))
                .transpose()?;
            tiers.insert(*id, placed);
        }
        let operator = operator(signer.is_some(), outgoing)?;
        Ok(Self { address, operator, tiers })
    }

    /// What is stored in `tier` goes through this one. Tiers that are not set are tier 0.
    pub(super) fn operator_for(&self, tier: u8) -> &Operator {
        let placed = self.tiers.get(&tier).or_else(|| self.tiers.get(&0));
        placed.and_then(Option::as_ref).unwrap_or(&self.operator)
    }
}
