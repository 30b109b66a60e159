//! Batch operations, for clients with little time, such as an app that a phone wakes in the background for seconds.
//!
//! Each item has its own result, in the order of the request; a failed item does not affect the others. A body that does not
//! match the documented format fails the whole request.

use poem::web::Data;
use poem_openapi::{Object, OpenApi, payload::Json};
use serde::Deserialize;

use super::{
    Tag,
    bearer::{Application, Signed},
    body::{self, Body},
    outermost::RequestId,
    problem::{Code, Problem, ProblemBody},
    uploads::NewPreview,
    view::{self, Image, UploadTicket, idempotency_key},
};
use crate::{
    domain::uploads::{DeclaredUpload, Issued},
    model::ImageId,
};

/// Items in one call.
pub const MOST: usize = 100;

/// Problems of each operation as a whole, in addition to those that follow from its shape. Items have the problems of the
/// single operations.
pub const PROBLEMS: &[(&str, &[Code])] =
    &[("create_uploads", &[]), ("renew_uploads", &[]), ("confirm_uploads", &[]), ("read_images", &[]), ("delete_images", &[])];

/// The operations.
pub struct Batch;

/// One of the uploads to open.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields, skip_serializing_if_is_none)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BatchUpload {
    /// As in a single upload.
    file_name: String,
    /// As in a single upload.
    content_type: String,
    /// As in a single upload.
    #[serde(deserialize_with = "body::integer")]
    size: i64,
    /// As in a single upload.
    sha256: String,
    /// As in a single upload.
    #[serde(default, deserialize_with = "body::present")]
    caption: Option<String>,
    /// As in a single upload.
    #[serde(default, deserialize_with = "body::present_object")]
    preview: Option<NewPreview>,
    /// As in a single upload.
    #[serde(default, deserialize_with = "body::present")]
    thumb_hash: Option<String>,
    /// As the header `Idempotency-Key` of a single upload.
    #[serde(default, deserialize_with = "body::present")]
    idempotency_key: Option<String>,
}

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
    image: Option<Image>,
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

/// From 1 to 100 of them.
fn bounded<T>(items: Vec<T>, member: &str) -> Result<Vec<T>, Problem> {
    if (1..=MOST).contains(&items.len()) {
        return Ok(items);
    }
    Err(Problem::new(Code::InvalidRequest, "A batch has from 1 to 100 items.").field(member, "must have from 1 to 100 items"))
}

/// How many items a limit counts.
fn count<T>(items: &[T]) -> u32 {
    // From 1 to 100.
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// The ids as given, and those of them that can be ids.
fn read_ids(body: ImageIds) -> Result<(Vec<String>, Vec<ImageId>), Problem> {
    let given = bounded(body.ids, "ids")?;
    let ids = given.iter().filter_map(|text| ImageId::parse(text)).collect();
    Ok((given, ids))
}

/// A result for each given id: its answer, or that there is no such thing where it cannot be an id.
fn results<T, E: Into<Problem>, R>(
    given: Vec<String>,
    answers: Vec<Result<T, E>>,
    make: impl Fn(String, Result<T, Problem>) -> R,
) -> Vec<R> {
    let mut answers = answers.into_iter();
    let mut answer = |id: &str| {
        ImageId::parse(id)
            .and_then(|_| answers.next())
            .map_or_else(|| Err(Problem::not_found()), |answer| answer.map_err(Into::into))
    };
    given
        .into_iter()
        .map(|id| {
            let answer = answer(&id);
            make(id, answer)
        })
        .collect()
}

impl UploadResult {
    fn new(answer: Result<(u16, UploadTicket), Problem>, request_id: &str) -> Self {
        match answer {
            Ok((status, ticket)) => Self { status, ticket: Some(ticket), problem: None },
            Err(problem) => {
                Self { status: problem.code.status().as_u16(), ticket: None, problem: Some(problem.item(request_id)) }
            }
        }
    }
}

impl ImageResult {
    fn new(id: String, answer: Result<Image, Problem>, request_id: &str) -> Self {
        match answer {
            Ok(image) => Self { id, status: 200, image: Some(image), problem: None },
            Err(problem) => {
                Self { id, status: problem.code.status().as_u16(), image: None, problem: Some(problem.item(request_id)) }
            }
        }
    }
}

#[OpenApi(prefix_path = "/api/images", tag = "Tag::Batches")]
impl Batch {
    /// Open many uploads
    ///
    /// As `POST /api/images/upload` for each item, in one request.
    #[oai(path = "/upload/batch", method = "post", operation_id = "create_uploads")]
    async fn create(
        &self,
        app: Application<'_>,
        request: Data<&RequestId>,
        caller: Signed,
        body: Body<UploadBatch>,
    ) -> Result<Json<UploadResults>, Problem> {
        let now = view::now();
        let items = bounded(body.0.items, "items")?;
        app.valet.throttle().count_uploads(caller.0.user, count(&items))?;
        let mut keys = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let read = |text: &String| idempotency_key(text, &format!("items[{at}].idempotencyKey"));
            keys.push(item.idempotency_key.as_ref().map(read).transpose()?);
        }
        let declare = |(item, key)| {
            let item: &BatchUpload = item;
            let key: &Option<_> = key;
            DeclaredUpload {
                file_name: &item.file_name,
                content_type: &item.content_type,
                size: item.size,
                sha256: &item.sha256,
                caption: item.caption.as_deref(),
                preview: item.preview.as_ref().map(NewPreview::declared),
                thumb_hash: item.thumb_hash.as_deref(),
                key: key.as_ref(),
            }
        };
        let declared: Vec<_> = items.iter().zip(&keys).map(declare).collect();
        let answers = app.valet.issue_all(caller.0.user, &declared, now).await?;
        let result = |answer: Result<Issued, _>| {
            let answer = answer.map_err(Problem::from).and_then(|Issued { ticket, opened }| {
                let ticket = UploadTicket::new(ticket, now, |image| app.valet.presign_image(image, now))?;
                Ok((if opened { 201 } else { 200 }, ticket))
            });
            UploadResult::new(answer, &request.0.0)
        };
        Ok(Json(UploadResults { results: answers.into_iter().map(result).collect() }))
    }

    /// Renew many uploads' URLs
    ///
    /// As `POST /api/images/{id}/renew` for each id.
    #[oai(path = "/renew", method = "post", operation_id = "renew_uploads")]
    async fn renew(
        &self,
        app: Application<'_>,
        request: Data<&RequestId>,
        caller: Signed,
        body: Body<ImageIds>,
    ) -> Result<Json<UploadResults>, Problem> {
        let now = view::now();
        let (given, ids) = read_ids(body.0)?;
        app.valet.throttle().count_urls(caller.0.user, count(&ids))?;
        let answers = app.valet.renew_all(caller.0.user, &ids, now).await?;
        let result = |_, answer: Result<_, Problem>| {
            let answer =
                answer.and_then(|ticket| Ok((200, UploadTicket::new(ticket, now, |image| app.valet.presign_image(image, now))?)));
            UploadResult::new(answer, &request.0.0)
        };
        Ok(Json(UploadResults { results: results(given, answers, result) }))
    }

    /// Confirm many uploads
    ///
    /// As `POST /api/images/{id}/confirm` for each id.
    #[oai(path = "/confirm", method = "post", operation_id = "confirm_uploads")]
    async fn confirm(
        &self,
        app: Application<'_>,
        request: Data<&RequestId>,
        caller: Signed,
        body: Body<ImageIds>,
    ) -> Result<Json<ImageResults>, Problem> {
        let now = view::now();
        let (given, ids) = read_ids(body.0)?;
        app.valet.throttle().count_s3_calls(caller.0.user, count(&ids))?;
        let answers = app.valet.confirm_all(caller.0.user, &ids, now).await?;
        let result = |id, answer: Result<_, Problem>| {
            let shown = answer.and_then(|image| Ok(app.valet.presign_image(image, now)?.into()));
            ImageResult::new(id, shown, &request.0.0)
        };
        Ok(Json(ImageResults { results: results(given, answers, result) }))
    }

    /// Read many images
    ///
    /// Images with new URLs, for example for a gallery page that is scrolled back to. An image that is not ready has status 404.
    #[oai(path = "/read", method = "post", operation_id = "read_images")]
    async fn read(
        &self,
        app: Application<'_>,
        request: Data<&RequestId>,
        caller: Signed,
        body: Body<ImageIds>,
    ) -> Result<Json<ImageResults>, Problem> {
        let (given, ids) = read_ids(body.0)?;
        app.valet.throttle().count_urls(caller.0.user, count(&ids))?;
        let answers = app.valet.read_images(caller.0.user, &ids, view::now()).await?;
        let result = |id, answer: Result<_, Problem>| ImageResult::new(id, answer.map(Into::into), &request.0.0);
        Ok(Json(ImageResults { results: results(given, answers, result) }))
    }

    /// Delete many images and open uploads
    ///
    /// As `DELETE /api/images/{id}` for each id.
    #[oai(path = "/delete", method = "post", operation_id = "delete_images")]
    async fn delete(
        &self,
        app: Application<'_>,
        request: Data<&RequestId>,
        caller: Signed,
        body: Body<ImageIds>,
    ) -> Result<Json<DeleteResults>, Problem> {
        let (given, ids) = read_ids(body.0)?;
        app.valet.throttle().count_s3_calls(caller.0.user, count(&ids))?;
        let answers = app.valet.delete_all(caller.0.user, &ids, view::now()).await?;
        let result = |id, answer: Result<(), Problem>| match answer {
            Ok(()) => DeleteResult { id, status: 204, problem: None },
            Err(problem) => {
                DeleteResult { id, status: problem.code.status().as_u16(), problem: Some(problem.item(&request.0.0)) }
            }
        };
        Ok(Json(DeleteResults { results: results(given, answers, result) }))
    }
}
