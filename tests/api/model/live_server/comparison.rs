//! Compares everything that the server stores and shows with the model.

use serde_json::{Value, json};

use super::Live;
use crate::model::{
    QUOTA, UserIndex,
    reference_model::{Image, Model, Object, State},
};

impl Live<'_> {
    /// Compares the state of every image in the database, and every key in the bucket, with the model.
    async fn compare_stores(&self, model: &Model, when: &str) {
        let (images, mut keys) = tokio::join!(self.app.db_all("images"), self.app.bucket_keys());
        let mut states: Vec<_> = images
            .iter()
            .map(|image| (image.get_str("_id").unwrap().to_owned(), image.get_str("state").unwrap().to_owned()))
            .collect();
        let mut expected: Vec<_> = model.images.iter().map(|image| (image.id.clone(), image.state.name().to_owned())).collect();
        states.sort();
        expected.sort();
        assert_eq!(states, expected, "{when}, states");
        let with_object = model.images.iter().filter(|image| image.object != Object::Nothing);
        let mut expected: Vec<_> = with_object.map(|image| format!("u/{}/{}", self.users[image.user].id, image.id)).collect();
        keys.sort();
        expected.sort();
        assert_eq!(keys, expected, "{when}, objects");
    }

    /// Compares gallery, open uploads and usage of both users, and the stored data.
    pub async fn compare(&self, model: &Model, when: &str) {
        self.compare_stores(model, when).await;
        for (index, user) in self.users.iter().enumerate() {
            let (bytes, images, pending) = model.usage(index);
            let expected = json!({ "bytes": bytes, "quotaBytes": QUOTA, "images": images, "pending": pending });
            let (me, gallery, open) = tokio::join!(
                user.get("/api/auth/me"),
                user.get("/api/images/gallery?limit=100"),
                user.get("/api/images/pending?limit=100")
            );
            assert_eq!(me.json["usage"], expected, "{when}, usage of {index}");
            self.check_gallery(model, index, gallery.json["images"].as_array().unwrap(), when);
            let mut listed = open.json["uploads"].as_array().unwrap().iter();
            let open_images = model.images.iter().rev().filter(|image| image.user == index && image.state == State::Pending);
            for image in open_images {
                let upload = listed.next().unwrap_or_else(|| panic!("{when}: {} is not listed as open", image.id));
                let kind = if image.in_parts { "multipart" } else { "single" };
                assert_eq!((&upload["id"], &upload["kind"]), (&json!(image.id), &json!(kind)), "{when}, open uploads of {index}");
                assert_eq!(upload.get("caption").and_then(Value::as_str), image.caption.as_deref(), "{when}");
            }
            assert_eq!(listed.next(), None, "{when}, open uploads of {index}");
        }
    }

    /// Asserts that the gallery lists the user's ready images, the newest first; images of the same moment may have any order.
    fn check_gallery(&self, model: &Model, owner: UserIndex, listed: &[Value], when: &str) {
        let index_of = |listed: &Value| model.images.iter().position(|image| json!(image.id) == listed["id"]);
        let actual: Vec<_> =
            listed.iter().map(|image| index_of(image).unwrap_or_else(|| panic!("{when}: {image} belongs to no user"))).collect();
        let is_in_gallery = |image: &Image| image.user == owner && image.state == State::Ready;
        let mut expected: Vec<_> = (0..model.images.len()).filter(|at| is_in_gallery(&model.images[*at])).collect();
        let mut sorted = actual.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected, "{when}, gallery of {owner}");
        expected.sort_by_key(|at| std::cmp::Reverse(model.images[*at].ready_moment));
        let moments = |order: &[usize]| order.iter().map(|at| model.images[*at].ready_moment).collect::<Vec<_>>();
        assert_eq!(moments(&actual), moments(&expected), "{when}, order of {owner}'s gallery");
        for (image, index) in listed.iter().zip(actual) {
            self.check_image(model, index, image);
        }
    }

    /// Asserts that pages of one and of two images list the gallery of the model.
    pub async fn walk_in_small_pages(&self, model: &Model) {
        for (index, user) in self.users.iter().enumerate() {
            for limit in [1, 2] {
                let (mut listed, mut path) = (Vec::new(), format!("/api/images/gallery?limit={limit}"));
                loop {
                    let page = user.get(&path).await;
                    listed.extend(page.json["images"].as_array().unwrap().clone());
                    let Some(cursor) = page.json["nextCursor"].as_str() else { break };
                    path = format!("/api/images/gallery?limit={limit}&cursor={cursor}");
                }
                self.check_gallery(model, index, &listed, &format!("in pages of {limit}"));
            }
        }
    }
}
