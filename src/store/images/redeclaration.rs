//! Repeated declarations of pending uploads: the same bytes, declared again with another name, type, caption, preview, ThumbHash or
//! time taken.

use mongodb::bson::{Bson, Document, doc, serialize_to_bson};

use super::{Images, document::PreviewDoc, owned, transitions::stored_leftover_keys};
use crate::{
    model::{Image, ImageState, Upload},
    store::StoreError,
};

impl Images {
    /// Replaces the declarations of pending uploads, in one round trip. An upload that is no longer pending does not change.
    /// The reservation must already cover the new preview.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn redeclare_all(&self, declarations: &[(&Image, &Upload)]) -> Result<(), StoreError> {
        let updates = declarations.iter().map(|(image, upload)| {
            let filter = owned(image.user, image.id, ImageState::Pending);
            (filter, Bson::from(vec![doc! { "$set": redeclaration(image, upload) }]))
        });
        self.mongo.update_each(&self.collection, updates).await.map(drop)
    }
}

/// Returns the changed fields. `$literal`, because a pipeline would read a leading `$` as a field path.
fn redeclaration(image: &Image, upload: &Upload) -> Document {
    let or_remove = |value: Option<Bson>| value.map_or(Bson::from("$$REMOVE"), |value| doc! { "$literal": value }.into());
    let preview = upload.preview().map(PreviewDoc::new).and_then(|preview| serialize_to_bson(&preview).ok());
    let content_type = upload.content_type.as_str();
    let types = doc! { "$setUnion": [{ "$ifNull": ["$formerTypes", []] }, ["$contentType"]] };
    let key = doc! { "$literal": [image.key.preview().as_str()] };
    // If the new declaration has no preview, the bytes of the earlier preview may still arrive: its key is cleared after confirm.
    let leftover_keys = match &preview {
        Some(_) => doc! { "$setDifference": [stored_leftover_keys(), key] },
        None => doc! { "$setUnion": [stored_leftover_keys(), { "$cond": [{ "$gt": ["$preview", Bson::Null] }, key, []] }] },
    };
    doc! {
        "fileName": { "$literal": upload.file_name.as_str() },
        "contentType": content_type,
        "formerTypes": { "$setDifference": [types, [content_type]] },
        "caption": or_remove(upload.caption.as_ref().map(|caption| caption.as_str().into())),
        "preview": or_remove(preview),
        "thumbHash": or_remove(upload.thumb_hash.as_ref().map(|hash| hash.to_string().into())),
        "takenAt": or_remove(upload.taken_at.map(|taken_at| taken_at.to_string().into())),
        "strays": leftover_keys,
    }
}
