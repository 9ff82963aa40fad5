//! The S3 operations that clients of volumes use.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use futures_util::TryStreamExt;
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};

use super::objects::{About, Info, Objects, decode, url_encode};

/// Most entries of a page.
const MAX_KEYS: i32 = 1000;

pub(crate) struct Service {
    objects: Objects,
}

impl Service {
    pub(crate) fn new(objects: Objects) -> Self {
        Self { objects }
    }

    fn info(&self, bucket: &str, key: &str) -> S3Result<Info> {
        let info = self.objects.info(bucket, key).ok_or_else(|| s3_error!(NoSuchBucket))?;
        info.ok_or_else(|| s3_error!(NoSuchKey))
    }

    fn page(&self, bucket: &str, ask: &Ask<'_>) -> S3Result<Page> {
        let found =
            self.objects.list(bucket, ask.prefix, ask.after).ok_or_else(|| s3_error!(NoSuchBucket))?;
        let name = |key: &str| if ask.url { url_encode(key) } else { key.to_owned() };
        let mut page = Page::default();
        let mut prefixes = BTreeSet::new();
        for (key, info) in found {
            let common = ask.delimiter.filter(|d| !d.is_empty()).and_then(|d| {
                let rest = key.get(ask.prefix.len()..)?;
                Some(key.get(..ask.prefix.len() + rest.find(d)? + d.len())?.to_owned())
            });
            if let Some(common) = &common
                && (prefixes.contains(common) || common.as_str() <= ask.after)
            {
                continue;
            }
            if page.objects.len() + prefixes.len() >= ask.max {
                page.truncated = true;
                break;
            }
            if let Some(common) = common {
                page.last.clone_from(&common);
                prefixes.insert(common);
                continue;
            }
            page.last.clone_from(&key);
            page.objects.push(Object {
                key: Some(name(&key)),
                size: Some(info.size as i64),
                e_tag: Some(ETag::Strong(info.etag)),
                last_modified: Some(info.modified.into()),
                ..Object::default()
            });
        }
        page.prefixes = prefixes.iter().map(|p| CommonPrefix { prefix: Some(name(p)) }).collect();
        Ok(page)
    }
}

struct Ask<'a> {
    prefix: &'a str,
    after: &'a str,
    delimiter: Option<&'a str>,
    max: usize,
    url: bool,
}

#[derive(Default)]
struct Page {
    objects: Vec<Object>,
    prefixes: Vec<CommonPrefix>,
    truncated: bool,
    last: String,
}

fn internal(e: io::Error) -> S3Error {
    s3_error!(InternalError, "{}", e)
}

/// Classes that are accepted: those of Amazon S3. Empty for the standard one.
fn accepted_class(asked: Option<&StorageClass>) -> S3Result<String> {
    match asked.map_or("", StorageClass::as_str) {
        "" | StorageClass::STANDARD => Ok(String::new()),
        class @ (StorageClass::DEEP_ARCHIVE
        | StorageClass::GLACIER
        | StorageClass::GLACIER_IR
        | StorageClass::INTELLIGENT_TIERING
        | StorageClass::ONEZONE_IA
        | StorageClass::REDUCED_REDUNDANCY
        | StorageClass::STANDARD_IA) => Ok(class.to_owned()),
        _ => Err(s3_error!(InvalidStorageClass)),
    }
}

/// The standard class is not told, as S3 does.
fn told_class(class: String) -> Option<StorageClass> {
    Some(class).filter(|c| !c.is_empty()).map(StorageClass::from)
}

/// Tags as the header has them: at most ten `key=value`, encoded like a query, with the characters that S3 allows.
fn are_tags(header: &str) -> bool {
    let allowed = |text: &str| text.chars().all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c));
    let is_short = |text: &str, most| text.chars().count() <= most && allowed(text);
    let is_tag = |tag: &str| {
        let (key, value) = tag.split_once('=').unwrap_or((tag, ""));
        let plain = |text: &str| decode(&text.replace('+', " "));
        plain(key).is_ok_and(|k| !k.is_empty() && is_short(&k, 128))
            && plain(value).is_ok_and(|v| is_short(&v, 256))
    };
    header.split('&').count() <= 10 && header.split('&').all(is_tag)
}

fn max_keys(asked: Option<i32>) -> i32 {
    asked.unwrap_or(MAX_KEYS).clamp(0, MAX_KEYS)
}

fn is_url(encoding: Option<&EncodingType>) -> bool {
    encoding.is_some_and(|e| e.as_str() == EncodingType::URL)
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        if !self.objects.create_bucket(&req.input.bucket).map_err(internal)? {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        if !self.objects.has_bucket(&req.input.bucket) {
            return Err(s3_error!(NoSuchBucket));
        }
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        if !self.objects.has_bucket(&req.input.bucket) {
            return Err(s3_error!(NoSuchBucket));
        }
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.objects.buckets();
        let buckets =
            buckets.into_iter().map(|name| Bucket { name: Some(name), ..Bucket::default() }).collect();
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let PutObjectInput {
            bucket, key, body, content_type, metadata, content_length, if_none_match, ..
        } = req.input;
        let class = accepted_class(req.input.storage_class.as_ref())?;
        if !req.input.tagging.as_deref().is_none_or(are_tags) {
            return Err(s3_error!(InvalidTag));
        }
        let chunks: Vec<Bytes> = match body {
            Some(body) => body.try_collect().await.map_err(|e| s3_error!(IncompleteBody, "{}", e))?,
            None => Vec::new(),
        };
        let body: Bytes = chunks.concat().into();
        if content_length.is_some_and(|len| len != body.len() as i64) {
            return Err(s3_error!(IncompleteBody));
        }
        let about = About {
            content_type: content_type.map(|t| t.to_string()),
            metadata: metadata.unwrap_or_default(),
            storage_class: class,
        };
        let info = self
            .objects
            .put_if(&bucket, &key, body, about, if_none_match.is_some())
            .map_err(internal)?
            .ok_or_else(|| s3_error!(NoSuchBucket))?
            .ok_or_else(|| s3_error!(PreconditionFailed))?;
        let output = PutObjectOutput { e_tag: Some(ETag::Strong(info.etag)), ..PutObjectOutput::default() };
        Ok(S3Response::new(output))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput { bucket, key, range, .. } = req.input;
        let info = self.info(&bucket, &key)?;
        let (part, content_range) = match range {
            Some(range) => {
                let part = range.check(info.size)?;
                let header = format!("bytes {}-{}/{}", part.start, part.end.saturating_sub(1), info.size);
                (part, Some(header))
            }
            None => (0..info.size, None),
        };
        let body = self.objects.body(&bucket, &key, &info, part.clone()).map_err(internal)?;
        let output = GetObjectOutput {
            body: Some(StreamingBlob::from(s3s::Body::from(body))),
            content_length: Some((part.end - part.start) as i64),
            content_range,
            accept_ranges: Some("bytes".to_owned()),
            content_type: info.content_type,
            e_tag: Some(ETag::Strong(info.etag)),
            last_modified: Some(info.modified.into()),
            metadata: Some(info.metadata),
            storage_class: told_class(info.storage_class),
            ..GetObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let info = self.info(&req.input.bucket, &req.input.key)?;
        let output = HeadObjectOutput {
            content_length: Some(info.size as i64),
            accept_ranges: Some("bytes".to_owned()),
            content_type: info.content_type,
            e_tag: Some(ETag::Strong(info.etag)),
            last_modified: Some(info.modified.into()),
            metadata: Some(info.metadata),
            storage_class: told_class(info.storage_class),
            ..HeadObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let done = self.objects.delete(&req.input.bucket, &req.input.key).map_err(internal)?;
        done.ok_or_else(|| s3_error!(NoSuchBucket))?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            let done = self.objects.delete(&req.input.bucket, &object.key).map_err(internal)?;
            done.ok_or_else(|| s3_error!(NoSuchBucket))?;
            deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
        }
        let output = DeleteObjectsOutput { deleted: Some(deleted), ..DeleteObjectsOutput::default() };
        Ok(S3Response::new(output))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let CopySource::Bucket { bucket, key, .. } = &req.input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        let class = accepted_class(req.input.storage_class.as_ref())?;
        let info = self.info(bucket, key)?;
        let body = self.objects.body(bucket, key, &info, 0..info.size).map_err(internal)?;
        let about = About { content_type: info.content_type, metadata: info.metadata, storage_class: class };
        let copy = self
            .objects
            .put(&req.input.bucket, &req.input.key, body, about)
            .map_err(internal)?
            .ok_or_else(|| s3_error!(NoSuchBucket))?;
        let result = CopyObjectResult {
            e_tag: Some(ETag::Strong(copy.etag)),
            last_modified: Some(copy.modified.into()),
            ..CopyObjectResult::default()
        };
        let output = CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() };
        Ok(S3Response::new(output))
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        let max = max_keys(input.max_keys);
        let url = is_url(input.encoding_type.as_ref());
        let page = self.page(
            &input.bucket,
            &Ask {
                prefix: input.prefix.as_deref().unwrap_or_default(),
                after: input.marker.as_deref().unwrap_or_default(),
                delimiter: input.delimiter.as_deref(),
                max: max as usize,
                url,
            },
        )?;
        let output = ListObjectsOutput {
            name: Some(input.bucket),
            prefix: input.prefix,
            marker: input.marker,
            max_keys: Some(max),
            is_truncated: Some(page.truncated),
            next_marker: page.truncated.then_some(page.last),
            contents: Some(page.objects),
            common_prefixes: Some(page.prefixes),
            delimiter: input.delimiter,
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let max = max_keys(input.max_keys);
        let token = input.continuation_token.as_deref();
        let page = self.page(
            &input.bucket,
            &Ask {
                prefix: input.prefix.as_deref().unwrap_or_default(),
                after: token.or(input.start_after.as_deref()).unwrap_or_default(),
                delimiter: input.delimiter.as_deref(),
                max: max as usize,
                url: is_url(input.encoding_type.as_ref()),
            },
        )?;
        let output = ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            max_keys: Some(max),
            key_count: Some((page.objects.len() + page.prefixes.len()) as i32),
            is_truncated: Some(page.truncated),
            next_continuation_token: page.truncated.then_some(page.last),
            continuation_token: input.continuation_token,
            contents: Some(page.objects),
            common_prefixes: Some(page.prefixes),
            delimiter: input.delimiter,
            encoding_type: input.encoding_type,
            start_after: input.start_after,
            ..ListObjectsV2Output::default()
        };
        Ok(S3Response::new(output))
    }
}
