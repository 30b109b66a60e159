//! Batch operations, for clients with little time, such as an app that a phone wakes in the background for seconds.
//!
//! Each item has its own result, in the order of the request; a failed item does not affect the others. A body that does not
//! match the documented format fails the whole request.

use poem::web::Data;
use poem_openapi::{Object, OpenApi, payload::Json};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    authentication::{Application, CurrentUser},
    body::{self, Body},
    middleware::request_id::RequestId,
    operation::{Operation, READING_DEADLINE, RequestBody, SHORT_DEADLINE, Tag},
    parameters::parse_idempotency_key,
    problem::{Code, Problem, ProblemBody},
    responses::{GalleryImage, UploadTicket},
    uploads::BatchUpload,
};
use crate::{
    config::MAX_BATCH_ITEMS,
    domain::{
        throttle::names::{CALLS, S3, UPLOAD, URLS},
        uploads::OpenOutcome,
    },
    model::ImageId,
};

/// Maximum number of items in one request.
pub const MAX_ITEMS: usize = MAX_BATCH_ITEMS as usize;

/// Metadata of the operations below. Items have the problems of the single operations.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        id: "create_uploads",
        body: RequestBody::BATCH,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, UPLOAD],
        problems: &[],
    },
    Operation {
        id: "renew_uploads",
        body: RequestBody::BATCH,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, URLS],
        problems: &[],
    },
    Operation {
        id: "confirm_uploads",
        body: RequestBody::BATCH,
        deadline: READING_DEADLINE,
        rate_limits: &[CALLS, S3],
        problems: &[],
    },
    Operation {
        id: "read_images",
        body: RequestBody::BATCH,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, URLS],
        problems: &[],
    },
    Operation {
        id: "delete_images",
        body: RequestBody::BATCH,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, S3],
        problems: &[],
    },
];

/// Handlers of batches.
pub struct BatchApi;

/// Uploads to open.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadBatch {
    /// From 1 to 100 items.
    #[serde(deserialize_with = "body::objects")]
    items: Vec<BatchUpload>,
}

/// The images.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageIds {
    /// From 1 to 100 items.
    ids: Vec<String>,
}

/// The outcome of one upload.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct UploadResult {
    /// The HTTP status that the single operation would have answered with.
    status: u16,
    /// Present on success.
    ticket: Option<UploadTicket>,
    /// Present on failure.
    problem: Option<ProblemBody>,
}

/// The outcomes of the uploads, in the order of the request.
#[derive(Object)]
struct UploadResults {
    /// One result for each item.
    results: Vec<UploadResult>,
}

/// The outcome for one image.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ImageResult {
    /// As in the request.
    id: String,
    /// The HTTP status that the single operation would have answered with.
    status: u16,
    /// Present on success.
    image: Option<GalleryImage>,
    /// Present on failure.
    problem: Option<ProblemBody>,
}

/// The outcomes for the images, in the order of the request.
#[derive(Object)]
struct ImageResults {
    /// One result for each id.
    results: Vec<ImageResult>,
}

/// The outcome of one deletion.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct DeleteResult {
    /// As in the request.
    id: String,
    /// The HTTP status that the single operation would have answered with.
    status: u16,
    /// Present on failure.
    problem: Option<ProblemBody>,
}

/// The outcomes of the deletions, in the order of the request.
#[derive(Object)]
struct DeleteResults {
    /// One result for each id.
    results: Vec<DeleteResult>,
}

/// Returns the items if there are 1 to [`MAX_ITEMS`] of them. `member` is the request's name of the list.
fn bounded<T>(items: Vec<T>, member: &str) -> Result<Vec<T>, Problem> {
    if (1..=MAX_ITEMS).contains(&items.len()) {
        return Ok(items);
    }
    let problem = Problem::new(Code::InvalidRequest, format!("A batch has from 1 to {MAX_ITEMS} items."));
    Err(problem.field(member, format!("must have from 1 to {MAX_ITEMS} items")))
}

/// Returns the number of items for a rate limit.
fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// The ids of a request.
struct RequestedIds {
    /// As in the request.
    given: Vec<String>,
    /// The texts that are valid ids, parsed.
    valid: Vec<ImageId>,
}

impl RequestedIds {
    /// Parses the ids of a batch; invalid ids get a result of their own.
    fn parse(body: ImageIds) -> Result<Self, Problem> {
        let given = bounded(body.ids, "ids")?;
        let valid = given.iter().filter_map(|text| ImageId::parse(text)).collect();
        Ok(Self { given, valid })
    }

    /// Returns an outcome for each given id; `results` are those of the valid ids, and `convert` returns a success with its status.
    fn outcomes<T, E: Into<Problem>, R>(
        self,
        results: Vec<Result<T, E>>,
        request_id: &str,
        convert: impl Fn(T) -> Result<(u16, R), Problem>,
    ) -> impl Iterator<Item = (String, Outcome<R>)> {
        let mut results = results.into_iter();
        self.given.into_iter().map(move |id| {
            let result = ImageId::parse(&id).and_then(|_| results.next());
            let result = result.map_or_else(|| Err(Problem::not_found()), |result| result.map_err(Into::into).and_then(&convert));
            (id, Outcome::new(result, request_id))
        })
    }
}

/// The outcome for one item.
struct Outcome<T> {
    status: u16,
    success: Option<T>,
    problem: Option<ProblemBody>,
}

impl<T> Outcome<T> {
    fn new(result: Result<(u16, T), Problem>, request_id: &str) -> Self {
        match result {
            Ok((status, success)) => Self { status, success: Some(success), problem: None },
            Err(problem) => {
                Self { status: problem.code.status().as_u16(), success: None, problem: Some(problem.into_body(request_id)) }
            }
        }
    }
}

impl From<Outcome<UploadTicket>> for UploadResult {
    fn from(Outcome { status, success, problem }: Outcome<UploadTicket>) -> Self {
        Self { status, ticket: success, problem }
    }
}

impl From<(String, Outcome<GalleryImage>)> for ImageResult {
    fn from((id, Outcome { status, success, problem }): (String, Outcome<GalleryImage>)) -> Self {
        Self { id, status, image: success, problem }
    }
}

#[OpenApi(prefix_path = "/api/images", tag = "Tag::Batches")]
impl BatchApi {
    /// Open many uploads
    ///
    /// As `POST /api/images/upload` for each item, in one request.
    #[oai(path = "/upload/batch", method = "post", operation_id = "create_uploads")]
    async fn create(
        &self,
        app: Application<'_>,
        request: Data<&RequestId>,
        caller: CurrentUser,
        body: Body<UploadBatch>,
    ) -> Result<Json<UploadResults>, Problem> {
        let now = OffsetDateTime::now_utc();
        let items = bounded(body.0.items, "items")?;
        app.valet.throttle.count_uploads(caller.user, count(&items))?;
        let mut keys = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let parse = |text: &String| parse_idempotency_key(text, &format!("items[{index}].idempotencyKey"));
            keys.push(item.idempotency_key.as_ref().map(parse).transpose()?);
        }
        let declared: Vec<_> = items.iter().zip(&keys).map(|(item, key)| item.declared(key.as_ref())).collect();
        let results = app.valet.uploads.open_all(caller.user, &declared, now).await?;
        let convert = |OpenOutcome { ticket, is_new }| {
            let ticket = UploadTicket::new(ticket, now, |image| app.valet.gallery.presign_image(image, now))?;
            Ok((if is_new { 201 } else { 200 }, ticket))
        };
        let outcome =
            |result: Result<OpenOutcome, _>| Outcome::new(result.map_err(Problem::from).and_then(convert), &request.0.0).into();
        Ok(Json(UploadResults { results: results.into_iter().map(outcome).collect() }))
    }

    /// Renew many uploads' URLs
    ///
    /// As `POST /api/images/{id}/renew` for each id.
    #[oai(path = "/renew", method = "post", operation_id = "renew_uploads")]
    async fn renew(
        &self,
        app: Application<'_>,
        request: Data<&RequestId>,
        caller: CurrentUser,
        body: Body<ImageIds>,
    ) -> Result<Json<UploadResults>, Problem> {
        let now = OffsetDateTime::now_utc();
        let ids = RequestedIds::parse(body.0)?;
        app.valet.throttle.count_urls(caller.user, count(&ids.valid))?;
        let results = app.valet.uploads.renew_all(caller.user, &ids.valid, now).await?;
        let convert = |ticket| Ok((200, UploadTicket::new(ticket, now, |image| app.valet.gallery.presign_image(image, now))?));
        let outcomes = ids.outcomes(results, &request.0.0, convert);
        Ok(Json(UploadResults { results: outcomes.map(|(_, outcome)| outcome.into()).collect() }))
    }

    /// Confirm many uploads
    ///
    /// As `POST /api/images/{id}/confirm` for each id.
    #[oai(path = "/confirm", method = "post", operation_id = "confirm_uploads")]
    async fn confirm(
        &self,
        app: Application<'_>,
        request: Data<&RequestId>,
        caller: CurrentUser,
        body: Body<ImageIds>,
    ) -> Result<Json<ImageResults>, Problem> {
        let now = OffsetDateTime::now_utc();
        let ids = RequestedIds::parse(body.0)?;
        app.valet.throttle.count_s3_calls(caller.user, count(&ids.valid))?;
        let results = app.valet.confirmation.confirm_all(caller.user, &ids.valid, now).await?;
        let outcomes =
            ids.outcomes(results, &request.0.0, |image| Ok((200, app.valet.gallery.presign_image(image, now)?.into())));
        Ok(Json(ImageResults { results: outcomes.map(Into::into).collect() }))
    }

    /// Read many images
    ///
    /// Images with new URLs, for example for a gallery page that is scrolled back to. An image that is not ready has status 404.
    #[oai(path = "/read", method = "post", operation_id = "read_images")]
    async fn read(
        &self,
        app: Application<'_>,
        request: Data<&RequestId>,
        caller: CurrentUser,
        body: Body<ImageIds>,
    ) -> Result<Json<ImageResults>, Problem> {
        let ids = RequestedIds::parse(body.0)?;
        app.valet.throttle.count_urls(caller.user, count(&ids.valid))?;
        let results = app.valet.gallery.read_all(caller.user, &ids.valid, OffsetDateTime::now_utc()).await?;
        let outcomes = ids.outcomes(results, &request.0.0, |shown| Ok((200, shown.into())));
        Ok(Json(ImageResults { results: outcomes.map(Into::into).collect() }))
    }

    /// Delete many images and open uploads
    ///
    /// As `DELETE /api/images/{id}` for each id.
    #[oai(path = "/delete", method = "post", operation_id = "delete_images")]
    async fn delete(
        &self,
        app: Application<'_>,
        request: Data<&RequestId>,
        caller: CurrentUser,
        body: Body<ImageIds>,
    ) -> Result<Json<DeleteResults>, Problem> {
        let ids = RequestedIds::parse(body.0)?;
        app.valet.throttle.count_s3_calls(caller.user, count(&ids.valid))?;
        let results = app.valet.deletion.delete_all(caller.user, &ids.valid, OffsetDateTime::now_utc()).await?;
        let outcomes = ids.outcomes(results, &request.0.0, |()| Ok((204, ())));
        let result = |(id, outcome): (String, Outcome<()>)| DeleteResult { id, status: outcome.status, problem: outcome.problem };
        Ok(Json(DeleteResults { results: outcomes.map(result).collect() }))
    }
}
