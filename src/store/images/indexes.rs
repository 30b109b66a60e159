//! The indexes of `images`. All begin with the user, so that the collection can be sharded by user, except those that the
//! sweeper, the workers, the fan-out and the TTL monitor read. [`Undated`] lists the kinds of records that lack their `due`.

use std::time::Duration;

use mongodb::{
    IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};

use super::renderings::unsupported;
use crate::{model::ImageState, store::outbox};

/// Age at which MongoDB removes the record of a purged image.
const PURGED_RECORD_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Records of the sweeper's queue that lack their `due`. Only damage makes such records: their indexes are empty and cost an
/// insertion nothing.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Undated {
    /// Pending images.
    Pending,
    /// Tombstones.
    Tombstones,
    /// Ready images with leftover keys.
    Leftovers,
}

impl Undated {
    pub(in crate::store) const ALL: [Self; 3] = [Self::Pending, Self::Tombstones, Self::Leftovers];

    /// Returns the name of the index of these records.
    pub(in crate::store) fn index(self) -> &'static str {
        match self {
            Self::Pending => "undatedPending",
            Self::Tombstones => "undatedTombstones",
            Self::Leftovers => "undatedLeftovers",
        }
    }

    /// Returns the index's filter. Null also matches the absent field.
    pub(in crate::store) fn filter(self) -> Document {
        match self {
            Self::Pending => doc! { "due": null, "state": ImageState::Pending.as_str() },
            // Pending and ready images are live, and purged ones have `goneAt`.
            Self::Tombstones => doc! { "due": null, "live": null, "goneAt": null },
            Self::Leftovers => doc! { "due": null, "state": ImageState::Ready.as_str(), "strays.0": { "$exists": true } },
        }
    }

    /// Returns the index's keys. They differ, because before MongoDB 5.0 two indexes cannot have the same keys, even with different
    /// filters.
    fn keys(self) -> Document {
        match self {
            Self::Pending => doc! { "state": 1 },
            Self::Tombstones => doc! { "state": 1, "live": 1 },
            Self::Leftovers => doc! { "state": 1, "strays": 1 },
        }
    }

    /// Returns the index for the driver.
    fn model(self) -> IndexModel {
        let options = IndexOptions::builder().name(self.index().to_owned()).partial_filter_expression(self.filter()).build();
        IndexModel::builder().keys(self.keys()).options(options).build()
    }
}

/// Returns an index with this name and these keys, of the documents that have this field.
fn with_field(name: &str, keys: Document, field: &str) -> IndexModel {
    let options = IndexOptions::builder().name(name.to_owned());
    let options = options.partial_filter_expression(doc! { field: { "$exists": true } }).build();
    IndexModel::builder().keys(keys).options(options).build()
}

/// Returns the indexes for: pages of the gallery and of pending images; the gallery in the order of the time taken; one live image
/// per user and bytes; one upload per user and idempotency key; the sweeper's queue; reservations that are to be settled; the
/// workers' queue; images that no worker could decode; images whose sweep fails repeatedly; the removal of the records of purged
/// images, the only records that MongoDB removes by itself; documents with events; and records that lack their `due`.
pub(super) fn models() -> Vec<IndexModel> {
    let named = |name: &str| IndexOptions::builder().name(name.to_owned()).build();
    let index = |keys, options| IndexModel::builder().keys(keys).options(options).build();
    let mut models = vec![
        index(doc! { "user": 1, "state": 1, "uploadedAt": -1, "_id": -1 }, named("gallery")),
        index(
            doc! { "user": 1, "state": 1, "takenSort": -1, "_id": -1 },
            IndexOptions::builder()
                .name("taken".to_owned())
                .partial_filter_expression(doc! { "state": ImageState::Ready.as_str() })
                .build(),
        ),
        index(
            doc! { "user": 1, "sha256": 1, "size": 1 },
            IndexOptions::builder()
                .name("liveBytes".to_owned())
                .unique(true)
                .partial_filter_expression(doc! { "live": true, "sha256": { "$exists": true } })
                .build(),
        ),
        index(
            doc! { "user": 1, "idemKey": 1 },
            IndexOptions::builder()
                .name("idemKey".to_owned())
                .unique(true)
                .partial_filter_expression(doc! { "idemKey": { "$exists": true } })
                .build(),
        ),
        with_field("due", doc! { "due": 1 }, "due"),
        with_field("reserved", doc! { "state": 1, "reservation.place": 1, "reservation.due": 1 }, "reservation.due"),
        with_field("renderings", doc! { "rendering.due": 1 }, "rendering.due"),
        index(
            doc! { "rendering.failure": 1, "_id": 1 },
            IndexOptions::builder()
                .name("unsupported".to_owned())
                .partial_filter_expression(doc! { "rendering.failure": unsupported() })
                .build(),
        ),
        with_field("stuck", doc! { "sweepFailures": 1 }, "sweepFailures"),
        index(
            doc! { "goneAt": 1 },
            IndexOptions::builder()
                .name("gone".to_owned())
                .expire_after(PURGED_RECORD_TTL)
                .partial_filter_expression(doc! { "state": ImageState::Purged.as_str() })
                .build(),
        ),
    ];
    models.push(outbox::index());
    models.extend(Undated::ALL.map(Undated::model));
    models
}
