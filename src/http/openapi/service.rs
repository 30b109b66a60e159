//! The service that poem-openapi makes of the handlers, and the document's introduction.

use poem_openapi::{LicenseObject, OpenApiService, ServerObject};

use crate::http::{
    admin_users::AdminApi, auth::AuthApi, batch::BatchApi, events::EventsApi, gallery::GalleryApi, health::HealthApi,
    multipart::MultipartApi, sessions::SessionsApi, uploads::UploadsApi, uppy::UppyApi,
};

/// All documented operations.
pub type Api = (AuthApi, SessionsApi, UploadsApi, BatchApi, MultipartApi, GalleryApi, EventsApi, AdminApi, UppyApi, HealthApi);

/// The document's introduction.
const DESCRIPTION: &str = "\
Direct uploads to a private S3 bucket: clients get presigned URLs, each valid for one file and a limited time, and send the \
bytes straight to S3.

1. **Sign up or sign in.** Send the answer's `token` as `Authorization: Bearer …` with every other request (in Swagger UI: paste \
it under *Authorize*). Before it expires, exchange the `refreshToken` for new tokens.
2. **Open an upload** with the file's name, media type, size and SHA-256. The answer has a presigned PUT.
3. **PUT the bytes** to that URL with exactly the headers that the answer lists, and without the token.
4. **Confirm the upload.** The service checks the object in S3 and adds the image to the gallery.
5. **Read the gallery.** Every image has a presigned GET URL.

After the PUT: on 200 or 412, confirm. On 409, 5xx or no answer, repeat the PUT. On 403, renew the URL once. On 400, the bytes \
have changed: open a new upload. After a confirm that got 503, 504 or no answer, repeat it.

Errors are `application/problem+json` (RFC 9457). Decide by `code`, which is stable; later versions may add codes and states: \
handle an unknown code by its HTTP status, and an unknown state as not ready yet. Times are RFC 3339 in UTC, in whole seconds. \
Ids are opaque. Optional members are left out, never null; unknown members of a request are refused. The header \
`Idempotency-Key` is ignored by operations that do not list it, as are unknown query parameters; each item of a batch of uploads \
has its own `idempotencyKey`. EXIF data, including a GPS position, stays in the image: remove it before the upload if it must \
not be stored.";

/// All operations that are documented with `UPPY=off`.
pub type ApiWithoutUppy = (AuthApi, SessionsApi, UploadsApi, BatchApi, MultipartApi, GalleryApi, EventsApi, AdminApi, HealthApi);

/// Returns the service with all operations.
#[must_use]
pub fn service() -> OpenApiService<Api, ()> {
    service_of((AuthApi, SessionsApi, UploadsApi, BatchApi, MultipartApi, GalleryApi, EventsApi, AdminApi, UppyApi, HealthApi))
}

/// Returns the service with the operations that are offered with `UPPY=off`.
#[must_use]
pub fn service_without_uppy() -> OpenApiService<ApiWithoutUppy, ()> {
    service_of((AuthApi, SessionsApi, UploadsApi, BatchApi, MultipartApi, GalleryApi, EventsApi, AdminApi, HealthApi))
}

/// Returns the service of these handlers, with the introduction and the license.
fn service_of<T>(api: T) -> OpenApiService<T, ()> {
    OpenApiService::new(api, "Valet", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(LicenseObject::new("MIT OR Apache-2.0").url("https://spdx.org/licenses/"))
        .server(ServerObject::new("/").description("This server"))
}
