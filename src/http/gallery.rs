//! `/api/images`: pages of the gallery, its timeline, single images, download URLs, captions and deletion.

use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    authentication::{Application, CurrentUser},
    body::Body,
    entity_tags,
    image_page::{ImagePage, PageWriter},
    operation::{Operation, RequestBody, SHORT_DEADLINE, Tag},
    pagination::{self, Listing},
    parameters::parse_image_id,
    problem::{Code, Problem},
    raw_json::RawJson,
    responses::{GalleryImage, whole_seconds},
};
use crate::{
    domain::throttle::names::{CALLS, S3},
    model::{GalleryOrder, TimelineMonth},
};

/// Metadata of the operations below.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        id: "list_images",
        body: RequestBody::None,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS],
        problems: &[&[Code::InvalidCursor]],
    },
    Operation { id: "get_timeline", body: RequestBody::None, deadline: SHORT_DEADLINE, rate_limits: &[CALLS], problems: &[] },
    Operation {
        id: "get_image",
        body: RequestBody::None,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS],
        problems: &[&[Code::NotFound]],
    },
    Operation {
        id: "download_image",
        body: RequestBody::None,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS],
        problems: &[&[Code::NotFound]],
    },
    Operation {
        id: "update_image",
        body: RequestBody::SINGLE,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS],
        problems: &[&[Code::NotFound, Code::InvalidCaption]],
    },
    Operation {
        id: "delete_image",
        body: RequestBody::None,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, S3],
        problems: &[&[Code::NotFound, Code::UploadComplete]],
    },
];

/// Handlers of images in the gallery.
pub struct GalleryApi;

/// A URL for downloading an image as a file.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct DownloadUrl {
    /// A presigned GET URL whose response names the file. Open it without the access token.
    url: String,
    /// When the URL expires.
    expires_at: OffsetDateTime,
}

/// Changes to an image.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageUpdate {
    /// A caption of at most 1000 characters; the empty string removes the caption.
    caption: String,
}

/// Order of the gallery's images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Enum)]
#[oai(rename_all = "lowercase")]
pub(super) enum ImageOrder {
    /// Order of `uploadedAt`.
    #[default]
    Uploaded,
    /// Order of the local times in `takenAt`; of `createdAt` for images without one.
    Taken,
}

impl ImageOrder {
    /// Converts to the model's type.
    fn order(self) -> GalleryOrder {
        match self {
            Self::Uploaded => GalleryOrder::Uploaded,
            Self::Taken => GalleryOrder::Taken,
        }
    }
}

/// The months of a gallery.
#[derive(Object)]
struct ImageTimeline {
    /// Months with images, the latest first.
    months: Vec<TimelineEntry>,
}

/// A month of a gallery.
#[derive(Object)]
struct TimelineEntry {
    /// The month, such as `2024-12`.
    month: String,
    /// The number of images.
    count: u64,
}

/// `Cache-Control` of a page: a browser may cache the page for its user only, and must revalidate it each time.
const CACHE_CONTROL: &str = "private, no-cache";

#[derive(ApiResponse)]
enum ListResponse {
    /// A page of the gallery.
    #[oai(status = 200)]
    Page(
        RawJson<ImagePage>,
        /// Identifies this page's content and URLs.
        #[oai(header = "ETag")]
        String,
        #[oai(header = "Cache-Control")] String,
    ),
    /// The page has not changed since the answer with this `ETag`, and its URLs are valid for at least half of their lifetime.
    #[oai(status = 304)]
    Unchanged(
        /// The `ETag` of the request.
        #[oai(header = "ETag")]
        String,
        #[oai(header = "Cache-Control")] String,
    ),
}

#[derive(ApiResponse)]
enum DeleteResponse {
    /// The image or upload is deleted, with its bytes.
    #[oai(status = 204)]
    Deleted,
}

#[OpenApi(prefix_path = "/api/images", tag = "Tag::Gallery")]
impl GalleryApi {
    /// List images
    ///
    /// Ready images, newest first, paged by cursor: no image is repeated or skipped while others are added or deleted. With
    /// `order=taken` they are in the order of the local times in `takenAt`; images without one are in the place of their
    /// `createdAt`. A cursor continues in its own order only. Send a page's `ETag` as `If-None-Match`: while the page and its URLs
    /// are the same, the answer is an empty 304.
    #[oai(path = "/gallery", method = "get", operation_id = "list_images")]
    async fn list(
        &self,
        app: Application<'_>,
        caller: CurrentUser,
        /// Images on a page, from 1 to 100.
        limit: Query<Option<i64>>,
        /// The `nextCursor` of the previous page.
        cursor: Query<Option<String>>,
        /// The order of the images; `uploaded` if it is omitted.
        order: Query<Option<ImageOrder>>,
        /// The `ETag` of the last answer for this page. Browsers send it automatically.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
    ) -> Result<ListResponse, Problem> {
        let limit = pagination::parse_limit(limit.0)?;
        let order = order.0.unwrap_or_default().order();
        let listing = match order {
            GalleryOrder::Uploaded => Listing::Gallery(caller.user),
            GalleryOrder::Taken => Listing::Taken(caller.user),
        };
        let after = pagination::parse_cursor(cursor.0.as_deref(), listing)?;
        let found = app.valet.gallery.page(caller.user, order, after, limit, OffsetDateTime::now_utc()).await?;
        let page = PageWriter::new(&found, listing, limit);
        let etag = page.etag();
        if if_none_match.0.is_some_and(|known| entity_tags::is_tag_listed(&known, &etag)) {
            return Ok(ListResponse::Unchanged(etag, CACHE_CONTROL.to_owned()));
        }
        Ok(ListResponse::Page(page.write()?, etag, CACHE_CONTROL.to_owned()))
    }

    /// Get the timeline
    ///
    /// The months in which images were taken, with the number of ready images in each, for headings and a scrubber. An image counts
    /// in the month of the time by which `order=taken` has its place.
    #[oai(path = "/timeline", method = "get", operation_id = "get_timeline")]
    async fn timeline(&self, app: Application<'_>, caller: CurrentUser) -> Result<Json<ImageTimeline>, Problem> {
        let months = app.valet.gallery.timeline(caller.user).await?;
        let entry = |(month, count): (TimelineMonth, u64)| TimelineEntry { month: month.to_string(), count };
        Ok(Json(ImageTimeline { months: months.into_iter().map(entry).collect() }))
    }

    /// Get an image
    ///
    /// A ready image, with presigned GET URLs.
    #[oai(path = "/:id", method = "get", operation_id = "get_image")]
    async fn get(&self, app: Application<'_>, caller: CurrentUser, id: Path<String>) -> Result<Json<GalleryImage>, Problem> {
        Ok(Json(app.valet.gallery.read(caller.user, parse_image_id(&id)?, OffsetDateTime::now_utc()).await?.into()))
    }

    /// Get a download URL
    ///
    /// The URL saves the image under its file name, in any alphabet (RFC 6266, RFC 8187). A name whose extension does not fit the
    /// verified type gets a second one: `holiday.hta` is saved as `holiday.hta.jpg`.
    #[oai(path = "/:id/download", method = "get", operation_id = "download_image")]
    async fn download(&self, app: Application<'_>, caller: CurrentUser, id: Path<String>) -> Result<Json<DownloadUrl>, Problem> {
        let signed = app.valet.gallery.download(caller.user, parse_image_id(&id)?, OffsetDateTime::now_utc()).await?;
        Ok(Json(DownloadUrl { url: signed.url, expires_at: whole_seconds(signed.expires_at) }))
    }

    /// Change an image's caption
    ///
    /// The empty string removes the caption.
    #[oai(path = "/:id", method = "patch", operation_id = "update_image")]
    async fn update(
        &self,
        app: Application<'_>,
        caller: CurrentUser,
        id: Path<String>,
        body: Body<ImageUpdate>,
    ) -> Result<Json<GalleryImage>, Problem> {
        Ok(Json(
            app.valet
                .gallery
                .set_caption(caller.user, parse_image_id(&id)?, &body.caption, OffsetDateTime::now_utc())
                .await?
                .into(),
        ))
    }

    /// Delete an image or an open upload
    ///
    /// Deletes it permanently. Repeating it answers 204 while an upload URL is still valid, then 404. To cancel an upload, send
    /// `onlyPending=true`: another upload of the same bytes may have made it an image.
    #[oai(path = "/:id", method = "delete", operation_id = "delete_image")]
    async fn delete(
        &self,
        app: Application<'_>,
        caller: CurrentUser,
        id: Path<String>,
        /// Whether only an open upload is deleted. An image then stays, and the answer is 409 `upload_complete`.
        #[oai(name = "onlyPending")]
        only_pending: Query<Option<bool>>,
    ) -> Result<DeleteResponse, Problem> {
        app.valet.throttle.count_s3_calls(caller.user, 1)?;
        let (id, now) = (parse_image_id(&id)?, OffsetDateTime::now_utc());
        if only_pending.unwrap_or(false) {
            app.valet.deletion.delete_open(caller.user, id, now).await?;
        } else {
            app.valet.deletion.delete(caller.user, id, now).await?;
        }
        Ok(DeleteResponse::Deleted)
    }
}
