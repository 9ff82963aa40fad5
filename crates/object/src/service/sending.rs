//! Requests on their way out.

use http::header::RANGE;
use http::{Request, Response, StatusCode};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, Result};
use opendal_http_transport_reqwest::ReqwestTransport;

/// Sends requests, and takes no whole object for a part of one.
pub(super) struct Sending(pub(super) ReqwestTransport);

impl HttpTransport for Sending {
    async fn fetch(&self, req: Request<Buffer>) -> Result<Response<HttpBody>> {
        let is_part = req.headers().contains_key(RANGE);
        let answer = self.0.fetch(req).await?;
        if is_part && answer.status() == StatusCode::OK {
            return Err(Error::new(ErrorKind::Unsupported, "the server does not send parts of objects"));
        }
        Ok(answer)
    }
}
