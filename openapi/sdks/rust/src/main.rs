//! openapi-generator's `rust` with reqwest.

use std::{error::Error as AnyError, fmt::Debug};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use valet_client::{
    apis::{
        Error,
        accounts_api::{get_me, log_in, log_out, refresh_session, sign_up},
        batches_api::{confirm_uploads, create_uploads, delete_images},
        configuration::Configuration,
        gallery_api::{delete_image, get_image, list_images, update_image},
        uploads_api::{confirm_upload, create_upload},
    },
    models::{
        BatchUpload, ImageIds, ImageType, ImageUpdate, NewUpload, PresignedRequest, Problem, RefreshToken,
        SignInCredentials, UploadBatch,
    },
};

/// A picture that was never uploaded before: bytes after an image's end are accepted.
fn new_picture() -> (Vec<u8>, NewUpload) {
    let mut content = std::fs::read(std::env::var("VALET_PICTURE").unwrap()).unwrap();
    content.extend(Uuid::new_v4().as_bytes());
    let sha256 = STANDARD.encode(Sha256::digest(&content));
    let declared = NewUpload::new("beach.png".to_owned(), ImageType::PNG, content.len() as i64, sha256);
    (content, declared)
}

/// Sends the bytes with the method and the headers of the ticket, and no others.
async fn put(request: &PresignedRequest, content: &[u8]) -> u16 {
    let method = request.method.parse().unwrap();
    let sent = reqwest::Client::new().request(method, &request.url).body(content.to_vec());
    let sent = request.headers.iter().fold(sent, |sent, (name, value)| sent.header(name, value));
    sent.send().await.unwrap().status().as_u16()
}

/// Returns the problem of a refused call.
fn problem<T: Debug, E: Debug>(answer: Result<T, Error<E>>) -> (u16, String) {
    let Err(Error::ResponseError(refused)) = answer else { panic!("no problem: {answer:?}") };
    (refused.status.as_u16(), serde_json::from_str::<Problem>(&refused.content).unwrap().code)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn AnyError>> {
    let anonymous = Configuration { base_path: std::env::var("VALET_URL")?, ..Configuration::default() };

    // Accounts.
    let credentials = SignInCredentials::new(format!("{}@example.com", Uuid::new_v4()), format!("four words {}", Uuid::new_v4()));
    sign_up(&anonymous, credentials.clone()).await?;
    let session = log_in(&anonymous, credentials.clone()).await?;
    let refreshed = refresh_session(&anonymous, RefreshToken::new(session.refresh_token.clone())).await?;
    assert_ne!(refreshed.refresh_token, session.refresh_token);
    let ada = Configuration { bearer_access_token: Some(refreshed.token), ..anonymous.clone() };

    // From a file to an image.
    let (mut newest_first, mut content) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (bytes, declared) = new_picture();
        let declared = NewUpload { caption: Some("The sea".to_owned()), ..declared };
        let ticket = create_upload(&ada, declared, Some(&Uuid::new_v4().to_string())).await?;
        assert_eq!(ticket.state, "pending");
        let upload = ticket.upload.unwrap();
        assert_eq!([put(&upload, &bytes).await, put(&upload, &bytes).await], [200, 412]);
        newest_first.insert(0, confirm_upload(&ada, &ticket.id).await?.id);
        content = bytes;
    }

    // The gallery, by pages.
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = list_images(&ada, Some(1), cursor.as_deref(), None, None).await?;
        seen.extend(page.images.into_iter().map(|image| image.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, newest_first);

    // Many at once.
    let pictures = [new_picture(), new_picture()];
    let item =
        |(_, one): &(_, NewUpload)| BatchUpload::new(one.file_name.clone(), one.content_type, one.size, one.sha256.clone());
    let opened = create_uploads(&ada, UploadBatch::new(pictures.iter().map(item).collect())).await?.results;
    let mut ids = Vec::new();
    for (result, (bytes, _)) in opened.into_iter().zip(&pictures) {
        let ticket = result.ticket.unwrap();
        assert_eq!((result.status, put(&ticket.upload.unwrap(), bytes).await), (201, 200));
        ids.push(ticket.id);
    }
    let confirmed = confirm_uploads(&ada, ImageIds::new(ids.clone())).await?.results;
    assert_eq!(confirmed.into_iter().map(|result| result.image.unwrap().id).collect::<Vec<_>>(), ids);
    let deleted = delete_images(&ada, ImageIds::new(ids)).await?.results;
    assert!(deleted.iter().all(|result| result.status == 204));

    // One image.
    let newest = &newest_first[0];
    let image = get_image(&ada, newest).await?;
    assert_eq!(reqwest::get(&image.url).await?.bytes().await?, content);
    let image = update_image(&ada, newest, ImageUpdate::new("The harbour".to_owned())).await?;
    assert_eq!(image.caption.as_deref(), Some("The harbour"));
    assert_eq!(get_me(&ada).await?.usage.unwrap().images, 2);
    delete_image(&ada, newest, None).await?;

    // Problems.
    assert_eq!(problem(get_image(&ada, newest).await), (404, "not_found".to_owned()));
    let wrong = SignInCredentials { password: "not the password".to_owned(), ..credentials };
    assert_eq!(problem(log_in(&anonymous, wrong).await), (401, "invalid_credentials".to_owned()));
    let large = NewUpload { size: 1 << 50, ..new_picture().1 };
    assert_eq!(problem(create_upload(&ada, large, None).await), (422, "file_too_large".to_owned()));

    log_out(&anonymous, RefreshToken::new(refreshed.refresh_token)).await?;
    assert_eq!(problem(get_me(&ada).await), (401, "session_ended".to_owned()));
    Ok(())
}
