//! Stamps: the time that servers write every [`STAMP_INTERVAL`] to the database first and then to the bucket's marker. A bucket
//! whose stamp is later than its database's shows that the database was restored from a backup: objects of later uploads have no
//! record there.
//!
//! Stamps are written only while both sides agree, so that a restored side stays recognizable until the operator joins the pair.

use std::{
    fmt,
    time::{Duration, Instant},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Time between two stamps. The last server to stop writes one, too, so only the restore of a backup that was made less than this
/// time before a crash is not recognized.
pub const STAMP_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Maximum time from reading the pair to writing the marker. A server that was suspended for longer writes nothing: other servers
/// may have written later stamps.
const MAX_WRITE_DELAY: Duration = Duration::from_secs(60);

/// The stamps of a bucket and a database that belong together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamps {
    /// Stamp in the bucket's marker.
    pub bucket: Option<OffsetDateTime>,
    /// Latest stamp in the database.
    pub database: Option<OffsetDateTime>,
    /// Stamp before the latest one in the database.
    pub earlier: Option<OffsetDateTime>,
}

/// The side of a pair that was restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoredSide {
    /// The database: objects of later uploads have no record.
    Database,
    /// The bucket: records of later uploads have no object.
    Bucket,
}

/// The next write of a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextStamp {
    /// A new stamp, to both sides.
    New,
    /// The database's latest stamp, to the bucket: the server that wrote it to the database has not written it to the bucket.
    ToBucket,
    /// No stamp, because one side was restored.
    None,
}

impl Stamps {
    /// Returns the side that was restored from a backup, if one was.
    #[must_use]
    pub fn restored_side(self) -> Option<RestoredSide> {
        // `None`, a side without a stamp, is less than every stamp.
        if self.bucket > self.database {
            return Some(RestoredSide::Database);
        }
        (self.bucket != self.database && self.bucket != self.earlier).then_some(RestoredSide::Bucket)
    }

    /// Returns which stamp is written next.
    pub(super) fn next_stamp(self) -> NextStamp {
        match self.restored_side() {
            Some(_) => NextStamp::None,
            None if self.bucket == self.database => NextStamp::New,
            None => NextStamp::ToBucket,
        }
    }
}

impl fmt::Display for Stamps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |at: Option<OffsetDateTime>| at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "none".to_owned());
        write!(f, "last stamp {} in the database, {} in the bucket", text(self.database), text(self.bucket))
    }
}

/// Returns whether a pair that was read at `began` was read recently enough to write a marker that depends on it.
pub(super) fn is_in_time(began: Instant) -> bool {
    began.elapsed() < MAX_WRITE_DELAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_is_older_than_the_other_was_restored() {
        let at = |seconds| Some(OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds));
        // Stamps of the bucket and of the database, and the database's previous one; the restored side; the next write.
        let rows = [
            (None, None, None, None, NextStamp::New),
            (at(2), at(2), at(1), None, NextStamp::New),
            (at(1), at(1), None, None, NextStamp::New),
            // A server wrote to the database and not, or not yet, to the bucket.
            (at(1), at(2), at(1), None, NextStamp::ToBucket),
            (None, at(1), None, None, NextStamp::ToBucket),
            (at(3), at(2), at(1), Some(RestoredSide::Database), NextStamp::None),
            (at(3), None, None, Some(RestoredSide::Database), NextStamp::None),
            (at(1), at(3), at(2), Some(RestoredSide::Bucket), NextStamp::None),
            (None, at(3), at(2), Some(RestoredSide::Bucket), NextStamp::None),
        ];
        for (bucket, database, earlier, restored, next) in rows {
            let stamps = Stamps { bucket, database, earlier };
            assert_eq!((stamps.restored_side(), stamps.next_stamp()), (restored, next), "{stamps:?}");
        }
    }
}
