//! What is asked of all file systems that this driver knows of.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tonic::Status;

use super::ControllerService;
use crate::capability;
use crate::engine::{Opened, meta_status};
use crate::proto::{GetCapacityRequest, GetCapacityResponse};
use crate::secrets::Secrets;

/// One of several engines has this long, so that the others count before the call ends.
const PATIENCE: Duration = Duration::from_secs(15);

impl ControllerService {
    /// The Secrets of all file systems that are known without one in the call.
    fn known(&self) -> Result<Vec<Secrets>, Status> {
        let mut secrets = self.engines.known();
        if self.driver.secrets_dir.is_some() {
            let own = self.secrets(&BTreeMap::new())?;
            // There may be nothing in it yet.
            if !own.is_empty() && !secrets.iter().any(|known| known.get("metaurl") == own.get("metaurl")) {
                secrets.push(own);
            }
        }
        if secrets.is_empty() {
            return Err(Status::failed_precondition(
                "this call brings no Secret, and none is known yet: give the driver one with --secrets-dir",
            ));
        }
        Ok(secrets)
    }

    /// Is it the file system of this driver's Secret? That is asked in any case.
    fn is_own(&self, secrets: &Secrets) -> bool {
        let own = self.driver.secrets_dir.as_ref().and_then(|_| self.secrets(&BTreeMap::new()).ok());
        own.is_some_and(|own| own.get("metaurl") == secrets.get("metaurl"))
    }

    /// Asks all file systems that are known at the same time, each of them for a while.
    fn asked<'a, T: Send + 'a>(
        &'a self,
        secrets: &'a [Secrets],
        ask: &'a (impl Fn(Opened) -> BoxFuture<'static, Result<T, Status>> + Send + Sync),
    ) -> FuturesUnordered<impl Future<Output = Result<T, Status>> + Send + 'a> {
        let asked = secrets.iter().map(move |secrets| async move {
            let asking = async { ask(self.open_with(secrets, None).await?).await };
            let late = |_| Err(Status::deadline_exceeded("it does not answer"));
            let answer = tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(late);
            let is_forgotten = self.engines.answered(secrets, answer.is_ok()) && !self.is_own(secrets);
            answer.map_err(|e| {
                let place = secrets.shown_place();
                if is_forgotten {
                    tracing::warn!(
                        "{place}: no answer for a long time ({}): calls that bring no Secret are answered without it from now on, until \
                         another call names it",
                        e.message()
                    );
                }
                Status::new(e.code(), format!("{place}: {}", e.message().trim_start_matches(&format!("{place}: "))))
            })
        });
        asked.collect()
    }

    /// What all file systems that are known answer. A list without one of them would lack its part; one that does not answer for long
    /// is not known any more.
    pub(super) async fn of_all_known<T: Send>(
        &self,
        ask: impl Fn(Opened) -> BoxFuture<'static, Result<T, Status>> + Send + Sync,
    ) -> Result<Vec<T>, Status> {
        let secrets = self.known()?;
        let answers: Vec<_> = self.asked(&secrets, &ask).collect().await;
        answers.into_iter().collect()
    }

    /// Asks all file systems that are known, until one has what is looked for. One that does not answer is an error if no other
    /// has it.
    pub(super) async fn find_known<T: Send>(
        &self,
        look: impl Fn(Opened) -> BoxFuture<'static, Result<Option<T>, Status>> + Send + Sync,
    ) -> Result<Option<T>, Status> {
        let secrets = self.known()?;
        let mut asked = self.asked(&secrets, &look);
        let mut failure = None;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(e) => failure = Some(e),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    pub(super) async fn room(&self, r: GetCapacityRequest) -> Result<GetCapacityResponse, Status> {
        self.has_own()?;
        let fits = r.volume_capabilities.iter().all(|c| capability::check(c).is_ok());
        let secrets = if fits { self.known()? } else { Vec::new() };
        let room = |opened: Opened| -> BoxFuture<'static, Result<i64, Status>> {
            Box::pin(async move {
                let stat = opened.meta.statfs().await.map_err(|e| meta_status(&opened.place, e))?;
                Ok(i64::try_from(stat.avail_space).unwrap_or(i64::MAX))
            })
        };
        let mut asked = self.asked(&secrets, &room);
        // One that does not answer has room for nothing.
        let (mut most, mut failure) = (None, None);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(room) => most = most.max(Some(room)),
                Err(e) => failure = Some(e),
            }
        }
        let available = match (most, failure) {
            (None, Some(e)) => return Err(e),
            (most, _) => most.unwrap_or(0),
        };
        Ok(GetCapacityResponse { available_capacity: available, ..Default::default() })
    }
}
