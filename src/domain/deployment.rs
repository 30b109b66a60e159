//! Ties one bucket to one database. Both keep the deployment's id, written at the first start, compared at every one and by the
//! sweeper of a running server: a database that is empty or another deployment's makes every object look abandoned. Both also keep
//! a stamp, which shows a database that was restored from a backup (`stamps`).

mod stamps;

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

pub use self::stamps::{EVERY, Restored, Stamps};
use self::stamps::{NextStamp, is_in_time};
use super::Valet;
use crate::{
    model::DeploymentId,
    store::{DeploymentRecord, Objects, StoreError, objects::marker::Marker, probe::DatabaseProbe},
};

/// Objects whose owners are looked up before a bucket without a marker is taken over.
const SAMPLE: usize = 500;
/// Keys that are looked through for them under each prefix: other programs' keys may come first.
const KEYS: usize = 20_000;

/// Why a bucket and a database are not worked on together.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// Each has the id of another deployment.
    #[error(
        "the bucket and the database belong to different deployments (bucket {bucket}, database {database}). Check S3_BUCKET, \
         MONGODB_URI and MONGODB_DATABASE; if this database is to own this bucket from now on, run `valet join`"
    )]
    Differ {
        /// The bucket's id.
        bucket: DeploymentId,
        /// The database's id.
        database: DeploymentId,
    },
    /// The bucket belongs to a deployment, the database to none.
    #[error(
        "the bucket belongs to a deployment (bucket {bucket}), and the database is new or was restored from before that. Check \
         MONGODB_URI and MONGODB_DATABASE; if this database is to own this bucket from now on, run `valet join`"
    )]
    NewDatabase {
        /// The bucket's id.
        bucket: DeploymentId,
    },
    /// The database has ready images; the bucket has no marker and no object of Valet's.
    #[error(
        "the database has ready images, and the bucket has none. Check S3_BUCKET and S3_ENDPOINT; if the objects are lost or \
         still to be restored, run `valet join`"
    )]
    EmptyBucket,
    /// The bucket has objects of Valet's, and the database knows none of them.
    #[error(
        "the bucket has images, and the database has no record of them. Check S3_BUCKET, MONGODB_URI and MONGODB_DATABASE; if this \
         database is to own this bucket from now on, run `valet join`"
    )]
    UnknownObjects,
    /// The bucket has so many keys of other programs that no object of Valet's was found behind them, nor their absence.
    #[error(
        "whether the bucket has images of another deployment is not known: the first {KEYS} keys under u/ or in/ belong to other \
         programs. Use a bucket of Valet's own; if this database is to own this bucket from now on, run `valet join`"
    )]
    Crowded,
    /// The bucket's marker or the database's record exists and holds no deployment's id.
    #[error(
        "the deployment's id in the {side} is damaged. Check S3_BUCKET, MONGODB_URI and MONGODB_DATABASE; if this database is to own \
         this bucket from now on, run `valet join`"
    )]
    Damaged {
        /// "bucket" or "database".
        side: &'static str,
    },
    /// The marker could not be read or written.
    #[error(
        "the marker valet/deployment in the bucket could not be read or written (the role needs s3:GetObject and s3:PutObject on it): {0}"
    )]
    Marker(#[source] StoreError),
    /// The database or S3 failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PairError {
    /// Whether bucket and database are seen not to belong together, rather than not seen at all.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(
            self,
            Self::Differ { .. }
                | Self::NewDatabase { .. }
                | Self::EmptyBucket
                | Self::UnknownObjects
                | Self::Crowded
                | Self::Damaged { .. }
        )
    }
}

/// The ids and stamps that a bucket and a database have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The id in the bucket's marker.
    pub bucket: Option<DeploymentId>,
    /// The id in the database.
    pub database: Option<DeploymentId>,
    /// The stamps of both.
    pub stamps: Stamps,
}

impl Pair {
    /// Reads both sides.
    ///
    /// # Errors
    /// [`PairError::Marker`] or [`PairError::Store`].
    pub async fn read(database: &DatabaseProbe, objects: &Objects) -> Result<Self, PairError> {
        // The bucket first: its stamp is written last, so it is never later than one that is read from the database afterwards.
        let bucket = objects.marker().await.map_err(|error| match error {
            StoreError::Corrupt { .. } => PairError::Damaged { side: "bucket" },
            error => PairError::Marker(error),
        });
        let database = database.deployment().await.map_err(|error| match error {
            StoreError::Corrupt { .. } => PairError::Damaged { side: "database" },
            error => PairError::Store(error),
        });
        // The database's failure is reported first.
        let (database, bucket) = (database?, bucket?);
        let stamps = Stamps {
            bucket: bucket.and_then(|marker| marker.stamp),
            database: database.and_then(|record| record.stamp),
            former: database.and_then(|record| record.former_stamp),
        };
        Ok(Self { bucket: bucket.map(|marker| marker.id), database: database.map(|record| record.id), stamps })
    }

    /// Returns the common id; `None` where one side has none yet.
    ///
    /// # Errors
    /// [`PairError::Differ`], [`PairError::NewDatabase`].
    pub fn judge(self) -> Result<Option<DeploymentId>, PairError> {
        match (self.bucket, self.database) {
            (Some(bucket), Some(database)) if bucket == database => Ok(Some(bucket)),
            (Some(bucket), Some(database)) => Err(PairError::Differ { bucket, database }),
            (Some(bucket), None) => Err(PairError::NewDatabase { bucket }),
            (None, _) => Ok(None),
        }
    }

    /// Returns the side that was restored from a backup, where both belong together.
    #[must_use]
    pub fn restored(self) -> Option<Restored> {
        self.stamps.restored().filter(|_| self.bucket.is_some() && self.bucket == self.database)
    }
}

/// Relation of a sample of the bucket to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// There is no object of Valet's.
    Empty,
    /// The database has a record of at least one of the objects.
    Known,
    /// The database has no record of any.
    Unknown,
    /// No object of Valet's was found, and the keys of other programs were too many to look through.
    Crowded,
}

impl Sample {
    /// Looks up the owners of the first objects in the bucket.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take(database: &DatabaseProbe, objects: &Objects) -> Result<Self, StoreError> {
        let mut images = Vec::new();
        let mut is_crowded = false;
        for prefix in ["u/", "in/"] {
            let (mut next, mut seen) = (None, 0);
            loop {
                let page = objects.list_page(prefix, next).await?;
                seen += page.objects.len();
                let before = images.len();
                images.extend(page.objects.iter().filter_map(|object| Some(object.key.owner()?.image)).take(SAMPLE));
                next = page.next;
                if next.is_none() || images.len() > before {
                    break;
                }
                if seen >= KEYS {
                    is_crowded = true;
                    break;
                }
            }
        }
        Ok(match images.is_empty() {
            true if is_crowded => Self::Crowded,
            true => Self::Empty,
            false if database.knows_any(&images).await? => Self::Known,
            false => Self::Unknown,
        })
    }
}

/// Judges a bucket and a database without writing to either. Returns their id, with the pair; `None` where the next start of a
/// server ties them.
///
/// # Errors
/// [`PairError`].
pub async fn examine(database: &DatabaseProbe, objects: &Objects) -> Result<Option<(DeploymentId, Pair)>, PairError> {
    let pair = Pair::read(database, objects).await?;
    if let Some(id) = pair.judge()? {
        return Ok(Some((id, pair)));
    }
    match Sample::take(database, objects).await? {
        Sample::Unknown => Err(PairError::UnknownObjects),
        Sample::Crowded => Err(PairError::Crowded),
        Sample::Empty if database.has_ready_image().await? => Err(PairError::EmptyBucket),
        Sample::Empty | Sample::Known => Ok(None),
    }
}

impl Valet {
    /// Returns the ids of both sides.
    ///
    /// # Errors
    /// [`PairError::Marker`] or [`PairError::Store`].
    pub async fn pair(&self) -> Result<Pair, PairError> {
        Pair::read(&self.store.probe(), &self.objects).await
    }

    /// Returns what the bucket's first objects say about the database.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sample(&self) -> Result<Sample, StoreError> {
        Sample::take(&self.store.probe(), &self.objects).await
    }

    /// Verifies that bucket and database belong together, and ties them at the first start. The database's id comes first: a
    /// server that dies before the marker leaves a pair that the next start completes. A pair of which one side was restored is
    /// worked on, with a warning.
    ///
    /// # Errors
    /// [`PairError`]; a mismatch has changed nothing.
    pub async fn verify_pair(&self) -> Result<DeploymentId, PairError> {
        if let Some((id, pair)) = examine(&self.store.probe(), &self.objects).await? {
            warn_of_restored(pair);
            return Ok(id);
        }
        let record = self.store.insert_deployment_id(DeploymentId::new()).await?;
        self.objects.insert_marker(marker_of(&record)).await.map_err(PairError::Marker)?;
        // Another database's server may have been faster at the bucket.
        let id = self.pair().await?.judge()?.ok_or(PairError::Store(StoreError::Contention { what: "the bucket's marker" }))?;
        tracing::info!(deployment = %id, "tied the bucket to the database");
        Ok(id)
    }

    /// Makes the database the owner of the bucket, whatever either belonged to, also where an id is damaged or a side was
    /// restored. Both get a new id: servers of every other database, copies of this one included, stop sweeping, and are refused
    /// from their next start on.
    ///
    /// # Errors
    /// [`PairError`]; safe to repeat.
    pub async fn join_pair(&self) -> Result<DeploymentId, PairError> {
        let record = self.store.replace_deployment(DeploymentId::new()).await?;
        self.objects.replace_marker(marker_of(&record)).await.map_err(PairError::Marker)?;
        tracing::warn!(deployment = %record.id, "joined the bucket to the database");
        Ok(record.id)
    }

    /// Looks at the pair while a server runs, and stamps it when the latest stamp is `age` old.
    ///
    /// # Errors
    /// [`PairError`]; a mismatch is remembered until a look finds that both belong together.
    pub async fn keep_pair(&self, age: Duration) -> Result<(), PairError> {
        let began = Instant::now();
        let pair = self.pair().await?;
        let judged = pair.judge();
        self.is_parted.store(judged.is_err(), Relaxed);
        let Some(id) = judged? else { return Ok(()) };
        let record = DeploymentRecord { id, stamp: pair.stamps.database, former_stamp: pair.stamps.former };
        let written = match pair.stamps.next() {
            NextStamp::None => None,
            NextStamp::ToBucket => Some(record),
            NextStamp::New => self.store.stamp_deployment(&record, age).await?,
        };
        if let Some(record) = written
            && is_in_time(began)
        {
            self.objects.replace_marker(marker_of(&record)).await.map_err(PairError::Marker)?;
        }
        Ok(())
    }

    /// Whether the latest look found that the bucket belongs to another database.
    pub(super) fn is_parted(&self) -> bool {
        self.is_parted.load(Relaxed)
    }

    /// Makes the indexes that the use cases rely on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn make_indexes(&self) -> Result<(), StoreError> {
        self.store.make_indexes().await
    }
}

fn marker_of(record: &DeploymentRecord) -> Marker {
    Marker { id: record.id, stamp: record.stamp }
}

fn warn_of_restored(pair: Pair) {
    let stamps = pair.stamps;
    match pair.restored() {
        Some(Restored::Database) => tracing::warn!(
            %stamps,
            "the database was restored from a backup: objects of later uploads have no record, and `sweep --orphans --delete` refuses \
             until `valet join`"
        ),
        Some(Restored::Bucket) => tracing::warn!(
            %stamps,
            "the bucket was restored from a backup: records of later uploads have no object; once that is as it should be, run `valet join`"
        ),
        None => {}
    }
}
