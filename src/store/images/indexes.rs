//! The indexes of `images`. All begin with the user, so that the collection can be sharded by user, except those that the
//! sweeper and the TTL monitor read.

use std::time::Duration;

use mongodb::{IndexModel, bson::doc, options::IndexOptions};

use crate::model::ImageState;

/// How long the record of a purged image is kept.
const PURGED_RECORD_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the indexes for the scans of galleries and pending lists; for one live image per user and bytes; for one upload per
/// user and idempotency key; for the sweeper's queue; for reservations to settle; for images whose sweep keeps failing; and the
/// TTL index of purged images, the only records that MongoDB may remove by itself.
pub(super) fn models() -> [IndexModel; 7] {
    let named = |name: &str| IndexOptions::builder().name(name.to_owned()).build();
    let index = |keys, options| IndexModel::builder().keys(keys).options(options).build();
    [
        index(doc! { "user": 1, "state": 1, "uploadedAt": -1, "_id": -1 }, named("gallery")),
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
        index(
            doc! { "due": 1 },
            IndexOptions::builder().name("due".to_owned()).partial_filter_expression(doc! { "due": { "$exists": true } }).build(),
        ),
        index(
            doc! { "state": 1, "reservation.place": 1, "reservation.due": 1 },
            IndexOptions::builder()
                .name("reserved".to_owned())
                .partial_filter_expression(doc! { "reservation.due": { "$exists": true } })
                .build(),
        ),
        index(
            doc! { "sweepFailures": 1 },
            IndexOptions::builder()
                .name("stuck".to_owned())
                .partial_filter_expression(doc! { "sweepFailures": { "$exists": true } })
                .build(),
        ),
        index(
            doc! { "goneAt": 1 },
            IndexOptions::builder()
                .name("gone".to_owned())
                .expire_after(PURGED_RECORD_TTL)
                .partial_filter_expression(doc! { "state": ImageState::Purged.as_str() })
                .build(),
        ),
    ]
}
