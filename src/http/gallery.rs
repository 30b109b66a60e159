//! `/api/images`: reading, captions, deleting.

use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Tag,
    bearer::{Application, Signed},
    body::Body,
    image_page::{Draft, ImagePage, matches},
    page::{self, Listing},
    problem::{Code, Problem},
    view::{self, Image, image_id, whole_seconds},
    written::Written,
};

/// The problems of each operation, beside those of every operation of its shape.
pub const PROBLEMS: &[(&str, &[Code])] = &[
    ("list_images", &[Code::InvalidCursor]),
    ("get_image", &[Code::NotFound]),
    ("download_image", &[Code::NotFound]),
    ("update_image", &[Code::NotFound, Code::InvalidCaption]),
    ("delete_image", &[Code::NotFound]),
];

/// The operations.
pub struct Gallery;

/// A URL that saves a file.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Download {
    /// A presigned GET whose answer carries the image's file name. Open it without the access token.
    url: String,
    /// When it stops working.
    expires_at: OffsetDateTime,
}

/// What to change of an image.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageUpdate {
    /// Words to show with the image, at most 1000 characters; the empty text clears them.
    caption: String,
}

/// A browser may keep a page, for its user alone, and asks each time whether it is still the same.
const KEPT: &str = "private, no-cache";

#[derive(ApiResponse)]
enum ListResponse {
    /// A page of the gallery.
    #[oai(status = 200)]
    Page(
        Written<ImagePage>,
        /// Of this page, until an image comes, goes or changes, and its URLs are renewed.
        #[oai(header = "ETag")]
        String,
        #[oai(header = "Cache-Control")] String,
    ),
    /// The page is the one that `If-None-Match` names; its URLs still have at least half of their life.
    #[oai(status = 304)]
    Unchanged(
        /// As it was sent.
        #[oai(header = "ETag")]
        String,
        #[oai(header = "Cache-Control")] String,
    ),
}

#[derive(ApiResponse)]
enum DeleteResponse {
    /// It is deleted: gone for every read, and its bytes with it.
    #[oai(status = 204)]
    Deleted,
}

#[OpenApi(prefix_path = "/api/images", tag = "Tag::Gallery")]
impl Gallery {
    /// List images
    ///
    /// Ready images, newest first. Pages by cursor: nothing is shown twice or skipped while images come and go. Send the
    /// `ETag` of a page back as `If-None-Match`: while the page and its URLs are the same, the answer is 304 and empty.
    #[oai(path = "/gallery", method = "get", operation_id = "list_images")]
    async fn list(
        &self,
        app: Application<'_>,
        caller: Signed,
        /// Images on a page, from 1 to 100.
        limit: Query<Option<i64>>,
        /// The `nextCursor` of the page before.
        cursor: Query<Option<String>>,
        /// The `ETag` of this page as it was read last. Browsers send it by themselves.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
    ) -> Result<ListResponse, Problem> {
        let limit = page::limit(limit.0)?;
        let after = page::after(cursor.0.as_deref(), Listing::Gallery, caller.0.user)?;
        let found = app.valet.gallery(caller.0.user, after, limit, view::now()).await?;
        let page = Draft::new(&found, caller.0.user, limit)?;
        let etag = page.etag()?;
        if if_none_match.0.is_some_and(|known| matches(&known, &etag)) {
            return Ok(ListResponse::Unchanged(etag, KEPT.to_owned()));
        }
        Ok(ListResponse::Page(page.write()?, etag, KEPT.to_owned()))
    }

    /// Get an image
    ///
    /// A ready image, with a URL to its bytes.
    #[oai(path = "/:id", method = "get", operation_id = "get_image")]
    async fn get(&self, app: Application<'_>, caller: Signed, id: Path<String>) -> Result<Json<Image>, Problem> {
        Ok(Json(app.valet.image(caller.0.user, image_id(&id)?, view::now()).await?.into()))
    }

    /// Get a download URL
    ///
    /// The URL saves the image under its file name, whatever its script (RFC 6266, RFC 8187). A name whose extension is not one of
    /// the verified type gets one more: `holiday.hta` is saved as `holiday.hta.jpg`.
    #[oai(path = "/:id/download", method = "get", operation_id = "download_image")]
    async fn download(&self, app: Application<'_>, caller: Signed, id: Path<String>) -> Result<Json<Download>, Problem> {
        let signed = app.valet.download(caller.0.user, image_id(&id)?, view::now()).await?;
        Ok(Json(Download { url: signed.url, expires_at: whole_seconds(signed.expires_at) }))
    }

    /// Change an image's caption
    ///
    /// The empty text clears it.
    #[oai(path = "/:id", method = "patch", operation_id = "update_image")]
    async fn update(
        &self,
        app: Application<'_>,
        caller: Signed,
        id: Path<String>,
        body: Body<ImageUpdate>,
    ) -> Result<Json<Image>, Problem> {
        Ok(Json(app.valet.set_caption(caller.0.user, image_id(&id)?, &body.0.caption, view::now()).await?.into()))
    }

    /// Delete an image or an open upload
    ///
    /// Final. Repeating it answers 204 for as long as a URL could bring the object back, then 404.
    #[oai(path = "/:id", method = "delete", operation_id = "delete_image")]
    async fn delete(&self, app: Application<'_>, caller: Signed, id: Path<String>) -> Result<DeleteResponse, Problem> {
        app.valet.throttle().s3(caller.0.user, 1)?;
        app.valet.delete(caller.0.user, image_id(&id)?, view::now()).await?;
        Ok(DeleteResponse::Deleted)
    }
}
