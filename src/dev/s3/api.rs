//! The S3 operations: each finds its bucket and calls the file of its subject. Functions that read or write files run on the
//! threads for blocking work; heads and lists of objects are read from the index in memory.

use std::sync::Arc;

use hyper::header::{IF_MATCH, IF_NONE_MATCH};
use s3s::dto::*;
use s3s::{S3, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::bucket_setting::BucketSetting;
use super::condition::{self, WriteCondition};
use super::folder::{Bucket as LocalBucket, Folder, blocking, internal};
use super::object::{MAX_KEY_BYTES, timestamp};
use super::put::{self, headers};
use super::{copy, cors, lifecycle, listing, multipart, read, unsupported};
use crate::signer::BucketName;

/// Region whose buckets have no location constraint.
const FIRST_REGION: &str = "us-east-1";
/// Maximum number of keys in one batch delete.
const MAX_BATCH: usize = 1000;

/// The operations on one folder.
pub(super) struct Api {
    folder: Arc<Folder>,
}

/// Result of an operation.
type Answer<T> = S3Result<S3Response<T>>;

/// Wraps an operation's output.
fn answer<T>(output: T) -> Answer<T> {
    Ok(S3Response::new(output))
}

/// Checks the location constraint of a new bucket: it must equal the server's region; us-east-1 must be omitted ("`CreateBucket`"
/// in the S3 API reference).
fn check_location(constraint: Option<&str>, region: Option<&str>) -> S3Result<()> {
    let region = region.unwrap_or(FIRST_REGION);
    if constraint == Some(FIRST_REGION) {
        return Err(s3_error!(InvalidLocationConstraint, "The specified location-constraint is not valid"));
    }
    if constraint.unwrap_or(FIRST_REGION) == region {
        return Ok(());
    }
    Err(s3_error!(
        IllegalLocationConstraintException,
        "The {} location constraint is incompatible for the region specific endpoint this request was sent to.",
        constraint.unwrap_or("unspecified")
    ))
}

impl Api {
    /// Creates the operations on this folder.
    pub(super) fn new(folder: Arc<Folder>) -> Self {
        Self { folder }
    }

    /// Returns the bucket with this name.
    fn bucket(&self, name: &str) -> S3Result<Arc<LocalBucket>> {
        self.folder.bucket(name)
    }

    /// Stores a setting of a bucket.
    async fn put_setting<T>(&self, bucket: &str, setting: BucketSetting, value: T) -> S3Result<()>
    where
        T: serde::Serialize + Send + 'static,
    {
        let (folder, bucket) = (Arc::clone(&self.folder), self.bucket(bucket)?);
        blocking(move || setting.put(&folder, &bucket, &value)).await
    }

    /// Reads a setting of a bucket.
    async fn get_setting<T>(&self, bucket: &str, setting: BucketSetting) -> S3Result<T>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let bucket = self.bucket(bucket)?;
        blocking(move || setting.get(&bucket)).await
    }

    /// Removes a setting of a bucket.
    async fn delete_setting(&self, bucket: &str, setting: BucketSetting) -> S3Result<()> {
        let bucket = self.bucket(bucket)?;
        blocking(move || setting.delete(&bucket)).await
    }
}

#[async_trait::async_trait]
impl S3 for Api {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        unsupported::check(&req.headers, req.uri.query())?;
        let bucket = self.bucket(&req.input.bucket)?;
        put::put(&self.folder, bucket, req).await
    }

    async fn head_object(&self, mut req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        let current = bucket.meta(&req.input.key).ok();
        condition::read_list(req.headers.get(IF_MATCH), current.as_deref(), &mut req.input.if_match);
        condition::read_list(req.headers.get(IF_NONE_MATCH), current.as_deref(), &mut req.input.if_none_match);
        let out = read::head(&bucket, req.input)?;
        let is_partial = out.content_range.is_some();
        let mut response = S3Response::new(out);
        response.status = is_partial.then_some(hyper::StatusCode::PARTIAL_CONTENT);
        Ok(response)
    }

    async fn get_object(&self, mut req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        let current = bucket.meta(&req.input.key).ok();
        condition::read_list(req.headers.get(IF_MATCH), current.as_deref(), &mut req.input.if_match);
        condition::read_list(req.headers.get(IF_NONE_MATCH), current.as_deref(), &mut req.input.if_none_match);
        answer(read::get(bucket, req.input).await?)
    }

    async fn get_object_attributes(&self, req: S3Request<GetObjectAttributesInput>) -> Answer<GetObjectAttributesOutput> {
        answer(read::attributes(&*self.bucket(&req.input.bucket)?, &req.input)?)
    }

    async fn get_object_tagging(&self, req: S3Request<GetObjectTaggingInput>) -> Answer<GetObjectTaggingOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        read::check_version(req.input.version_id.as_deref())?;
        bucket.meta(&req.input.key)?;
        // No object has tags. The AWS CLI reads them before it copies an object in parts.
        answer(GetObjectTaggingOutput { tag_set: Vec::new(), version_id: None })
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        read::check_version(req.input.version_id.as_deref())?;
        let condition = WriteCondition::new(req.input.if_match.as_ref(), None)?;
        blocking(move || bucket.remove(&req.input.key, &condition)).await?;
        answer(DeleteObjectOutput::default())
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        let Delete { objects, quiet } = req.input.delete;
        if objects.is_empty() || objects.len() > MAX_BATCH {
            return Err(s3_error!(MalformedXML, "A batch holds 1 to {MAX_BATCH} keys"));
        }
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        let results = blocking(move || {
            let remove = |object: ObjectIdentifier| {
                let condition = match &object.e_tag {
                    Some(tag) => WriteCondition::Matches(tag.value().to_owned()),
                    None => WriteCondition::Always,
                };
                let result =
                    read::check_version(object.version_id.as_deref()).and_then(|()| bucket.remove(&object.key, &condition));
                (object, result)
            };
            Ok(objects.into_iter().map(remove).collect::<Vec<_>>())
        })
        .await?;
        for (object, result) in results {
            match result {
                Ok(()) => deleted.push(DeletedObject {
                    key: Some(object.key),
                    version_id: object.version_id,
                    ..DeletedObject::default()
                }),
                Err(e) => errors.push(Error {
                    key: Some(object.key),
                    version_id: object.version_id,
                    code: Some(e.code().as_str().to_owned()),
                    message: e.message().map(str::to_owned),
                }),
            }
        }
        answer(DeleteObjectsOutput {
            deleted: (!quiet.unwrap_or(false)).then_some(deleted),
            errors: Some(errors).filter(|e| !e.is_empty()),
            ..DeleteObjectsOutput::default()
        })
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        unsupported::check(&req.headers, req.uri.query())?;
        let mut input = req.input;
        if input.key.len() > MAX_KEY_BYTES {
            return Err(s3_error!(KeyTooLongError, "Your key is too long"));
        }
        // `s3s` does not support conditions on a copy's target.
        let condition = match req.headers.get(IF_NONE_MATCH) {
            None => WriteCondition::Always,
            Some(value) => {
                let condition = ETagCondition::parse_http_header(value.as_bytes());
                WriteCondition::new(None, Some(&condition.map_err(|_| s3_error!(InvalidArgument, "if-none-match"))?))?
            }
        };
        let replacement = headers!(input);
        let folder = Arc::clone(&self.folder);
        answer(blocking(move || copy::copy(&folder, input, replacement, &condition)).await?)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        answer(listing::list_v2(&*self.bucket(&req.input.bucket)?, req.input)?)
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        answer(listing::list_v1(&*self.bucket(&req.input.bucket)?, req.input)?)
    }

    async fn list_object_versions(&self, req: S3Request<ListObjectVersionsInput>) -> Answer<ListObjectVersionsOutput> {
        answer(listing::list_versions(&*self.bucket(&req.input.bucket)?, req.input)?)
    }

    async fn create_multipart_upload(
        &self,
        mut req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        unsupported::check(&req.headers, req.uri.query())?;
        let bucket = self.bucket(&req.input.bucket)?;
        let headers = headers!(req.input);
        answer(multipart::create(Arc::clone(&self.folder), bucket, req.input, headers).await?)
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        unsupported::check(&req.headers, req.uri.query())?;
        let bucket = self.bucket(&req.input.bucket)?;
        answer(multipart::upload_part(Arc::clone(&self.folder), bucket, req).await?)
    }

    async fn upload_part_copy(&self, req: S3Request<UploadPartCopyInput>) -> Answer<UploadPartCopyOutput> {
        let folder = Arc::clone(&self.folder);
        answer(blocking(move || copy::copy_part(&folder, req.input)).await?)
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        answer(blocking(move || multipart::list_parts(&bucket, req.input)).await?)
    }

    async fn list_multipart_uploads(&self, req: S3Request<ListMultipartUploadsInput>) -> Answer<ListMultipartUploadsOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        answer(blocking(move || multipart::list_uploads(&bucket, req.input)).await?)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let (folder, bucket) = (Arc::clone(&self.folder), self.bucket(&req.input.bucket)?);
        answer(blocking(move || multipart::complete(&folder, &bucket, req.input)).await?)
    }

    async fn abort_multipart_upload(&self, req: S3Request<AbortMultipartUploadInput>) -> Answer<AbortMultipartUploadOutput> {
        let (folder, bucket) = (Arc::clone(&self.folder), self.bucket(&req.input.bucket)?);
        blocking(move || multipart::abort(&folder, &bucket, &req.input.upload_id, &req.input.key)).await?;
        answer(AbortMultipartUploadOutput::default())
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        unsupported::check_bucket(&req.headers)?;
        let (folder, name) = (Arc::clone(&self.folder), req.input.bucket);
        let location = format!("/{name}");
        let name: BucketName = name.parse().map_err(|_| s3_error!(InvalidBucketName, "The specified bucket is not valid."))?;
        let constraint = req.input.create_bucket_configuration.and_then(|configuration| configuration.location_constraint);
        check_location(
            constraint.as_ref().map(BucketLocationConstraint::as_str),
            req.region.as_ref().map(s3s::region::Region::as_str),
        )?;
        // In its first region S3 accepts the creation of an existing own bucket ("CreateBucket" in the S3 API reference).
        let allows_existing = req.region.as_ref().is_none_or(|region| region.as_str() == FIRST_REGION);
        if blocking(move || folder.create_bucket(&name).map_err(internal)).await? || allows_existing {
            answer(CreateBucketOutput { location: Some(location) })
        } else {
            Err(s3_error!(BucketAlreadyOwnedByYou, "Your previous request to create the named bucket succeeded"))
        }
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.bucket(&req.input.bucket)?;
        let bucket_region = req.region.map(|region| region.as_str().to_owned());
        answer(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() })
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
        let folder = Arc::clone(&self.folder);
        blocking(move || folder.delete_bucket(&req.input.bucket)).await?;
        answer(DeleteBucketOutput::default())
    }

    async fn list_buckets(&self, _req: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        let bucket = |local: &Arc<LocalBucket>| Bucket {
            name: Some(local.name.clone()),
            creation_date: Some(timestamp(local.created)),
            ..Bucket::default()
        };
        answer(ListBucketsOutput {
            buckets: Some(self.folder.buckets().iter().map(bucket).collect()),
            owner: Some(listing::owner()),
            ..ListBucketsOutput::default()
        })
    }

    async fn get_bucket_location(&self, req: S3Request<GetBucketLocationInput>) -> Answer<GetBucketLocationOutput> {
        self.bucket(&req.input.bucket)?;
        // S3 writes us-east-1 as no constraint. `authentication` has rejected requests for other regions than the server's.
        let region = req.region.filter(|region| region.as_str() != FIRST_REGION);
        let location_constraint = region.map(|region| BucketLocationConstraint::from(region.as_str().to_owned()));
        answer(GetBucketLocationOutput { location_constraint })
    }

    async fn get_bucket_versioning(&self, req: S3Request<GetBucketVersioningInput>) -> Answer<GetBucketVersioningOutput> {
        self.bucket(&req.input.bucket)?;
        answer(GetBucketVersioningOutput::default())
    }

    async fn put_bucket_cors(&self, req: S3Request<PutBucketCorsInput>) -> Answer<PutBucketCorsOutput> {
        cors::check(&req.input.cors_configuration)?;
        self.put_setting(&req.input.bucket, BucketSetting::Cors, req.input.cors_configuration).await?;
        answer(PutBucketCorsOutput::default())
    }

    async fn get_bucket_cors(&self, req: S3Request<GetBucketCorsInput>) -> Answer<GetBucketCorsOutput> {
        let stored: CORSConfiguration = self.get_setting(&req.input.bucket, BucketSetting::Cors).await?;
        answer(GetBucketCorsOutput { cors_rules: Some(stored.cors_rules) })
    }

    async fn delete_bucket_cors(&self, req: S3Request<DeleteBucketCorsInput>) -> Answer<DeleteBucketCorsOutput> {
        self.delete_setting(&req.input.bucket, BucketSetting::Cors).await?;
        answer(DeleteBucketCorsOutput::default())
    }

    async fn put_public_access_block(&self, req: S3Request<PutPublicAccessBlockInput>) -> Answer<PutPublicAccessBlockOutput> {
        let value = req.input.public_access_block_configuration;
        self.put_setting(&req.input.bucket, BucketSetting::PublicAccessBlock, value).await?;
        answer(PutPublicAccessBlockOutput::default())
    }

    async fn delete_public_access_block(
        &self,
        req: S3Request<DeletePublicAccessBlockInput>,
    ) -> Answer<DeletePublicAccessBlockOutput> {
        self.delete_setting(&req.input.bucket, BucketSetting::PublicAccessBlock).await?;
        answer(DeletePublicAccessBlockOutput::default())
    }

    async fn get_public_access_block(&self, req: S3Request<GetPublicAccessBlockInput>) -> Answer<GetPublicAccessBlockOutput> {
        let stored = self.get_setting(&req.input.bucket, BucketSetting::PublicAccessBlock).await?;
        answer(GetPublicAccessBlockOutput { public_access_block_configuration: Some(stored) })
    }

    async fn put_bucket_lifecycle_configuration(
        &self,
        req: S3Request<PutBucketLifecycleConfigurationInput>,
    ) -> Answer<PutBucketLifecycleConfigurationOutput> {
        let mut value = req.input.lifecycle_configuration.ok_or(S3ErrorCode::MissingRequestBodyError)?;
        lifecycle::check(&mut value)?;
        self.put_setting(&req.input.bucket, BucketSetting::Lifecycle, value).await?;
        answer(PutBucketLifecycleConfigurationOutput::default())
    }

    async fn delete_bucket_lifecycle(&self, req: S3Request<DeleteBucketLifecycleInput>) -> Answer<DeleteBucketLifecycleOutput> {
        self.delete_setting(&req.input.bucket, BucketSetting::Lifecycle).await?;
        answer(DeleteBucketLifecycleOutput::default())
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        req: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> Answer<GetBucketLifecycleConfigurationOutput> {
        let stored: BucketLifecycleConfiguration = self.get_setting(&req.input.bucket, BucketSetting::Lifecycle).await?;
        answer(GetBucketLifecycleConfigurationOutput {
            rules: Some(stored.rules),
            ..GetBucketLifecycleConfigurationOutput::default()
        })
    }
}
