//! Pairs one bucket with one database. Both store the deployment's id, written at the first start and compared at every start and
//! by the sweeper of a running server: with an empty database, or another deployment's, every object would look orphaned. Both
//! also store a stamp, which reveals a database that was restored from a backup (`stamps`).

mod stamps;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use self::stamps::{NextStamp, is_in_time};
pub use self::stamps::{RestoredSide, STAMP_INTERVAL, Stamps};
use crate::{
    model::DeploymentId,
    store::{DeploymentRecord, Objects, Store, StoreError, database_probe::DatabaseProbe, objects::marker::Marker},
};

/// Maximum number of objects under each prefix whose records are looked up before a bucket without a marker is paired with a
/// database.
const MAX_SAMPLED_OBJECTS: usize = 500;
/// Maximum number of keys that are listed under each prefix to find these objects: keys of other programs may come first.
const MAX_LISTED_KEYS: usize = 20_000;

/// Why a bucket and a database are not used together.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// Bucket and database have the ids of different deployments.
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
    /// The bucket has a deployment's id, the database has none.
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
    /// The bucket has objects of Valet, and the database has no record of them.
    #[error(
        "the bucket has images, and the database has no record of them. Check S3_BUCKET, MONGODB_URI and MONGODB_DATABASE; if this \
         database is to own this bucket from now on, run `valet join`"
    )]
    UnknownObjects,
    /// The bucket has too many keys of other programs to find out whether it has objects of Valet.
    #[error(
        "it is not known whether the bucket has images of another deployment: the first {MAX_LISTED_KEYS} keys under u/ or in/ \
         belong to other programs. Use a bucket of Valet's own; if this database is to own this bucket from now on, run \
         `valet join`"
    )]
    Crowded,
    /// The bucket's marker or the database's record exists, but contains no deployment's id.
    #[error(
        "the deployment's id in the {side} is damaged. Check S3_BUCKET, MONGODB_URI and MONGODB_DATABASE; if this database is to own \
         this bucket from now on, run `valet join`"
    )]
    Damaged {
        /// "bucket" or "database".
        side: &'static str,
    },
    /// The bucket has no marker, although a server with this database has started.
    #[error(
        "the bucket has lost its marker valet/deployment, so it is not known whether it belongs to this database. Restart a server: it \
         writes the marker again if the bucket has this database's images; otherwise run `valet join`"
    )]
    NoMarker,
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
    /// Returns whether bucket and database were found not to belong together, as opposed to a failure to find out.
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

/// The ids and stamps of a bucket and a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Id in the bucket's marker.
    pub bucket: Option<DeploymentId>,
    /// Id in the database.
    pub database: Option<DeploymentId>,
    /// Stamps of both.
    pub stamps: Stamps,
}

impl Pair {
    /// Reads both sides.
    ///
    /// # Errors
    /// [`PairError::Marker`] or [`PairError::Store`].
    pub async fn read(database: &DatabaseProbe, objects: &Objects) -> Result<Self, PairError> {
        // The bucket is read first: its stamp is written last, so the database's stamp, read after it, is at least as late.
        let bucket = objects.read_marker().await.map_err(|error| match error {
            StoreError::Corrupt { .. } => PairError::Damaged { side: "bucket" },
            error => PairError::Marker(error),
        });
        let database = database.read_deployment().await.map_err(|error| match error {
            StoreError::Corrupt { .. } => PairError::Damaged { side: "database" },
            error => PairError::Store(error),
        });
        // A failure of the database takes precedence.
        let (database, bucket) = (database?, bucket?);
        let stamps = Stamps {
            bucket: bucket.and_then(|marker| marker.stamp),
            database: database.and_then(|record| record.stamp),
            earlier: database.and_then(|record| record.earlier_stamp),
        };
        Ok(Self { bucket: bucket.map(|marker| marker.id), database: database.map(|record| record.id), stamps })
    }

    /// Returns the common id; `None` if the bucket has no id yet, so that it is not known whether both belong together.
    ///
    /// # Errors
    /// [`PairError::Differ`], [`PairError::NewDatabase`].
    pub fn common_id(self) -> Result<Option<DeploymentId>, PairError> {
        match (self.bucket, self.database) {
            (Some(bucket), Some(database)) if bucket == database => Ok(Some(bucket)),
            (Some(bucket), Some(database)) => Err(PairError::Differ { bucket, database }),
            (Some(bucket), None) => Err(PairError::NewDatabase { bucket }),
            (None, _) => Ok(None),
        }
    }

    /// Returns the common id of a bucket and a database that were paired before.
    ///
    /// # Errors
    /// As [`Pair::common_id`], and [`PairError::NoMarker`].
    pub fn require_common_id(self) -> Result<DeploymentId, PairError> {
        self.common_id()?.ok_or(PairError::NoMarker)
    }

    /// Returns the side that was restored from a backup, if both belong together.
    #[must_use]
    pub fn restored_side(self) -> Option<RestoredSide> {
        self.stamps.restored_side().filter(|_| self.bucket.is_some() && self.bucket == self.database)
    }
}

/// Relation of a sample of the bucket to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// The bucket has no object of Valet.
    Empty,
    /// The database has a record of at least one of the objects.
    Known,
    /// The database has no record of any.
    Unknown,
    /// No object of Valet was found, and there were too many keys of other programs to list.
    Crowded,
}

impl Sample {
    /// Looks up the records of the first objects in the bucket.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(database: &DatabaseProbe, objects: &Objects) -> Result<Self, StoreError> {
        let mut images = Vec::new();
        let mut is_crowded = false;
        for prefix in ["u/", "in/"] {
            let (mut next, mut seen) = (None, 0);
            loop {
                let page = objects.object_page(prefix, next).await?;
                seen += page.objects.len();
                let before = images.len();
                images.extend(page.objects.iter().filter_map(|object| Some(object.key.owner()?.image)).take(MAX_SAMPLED_OBJECTS));
                next = page.next;
                if next.is_none() || images.len() > before {
                    break;
                }
                if seen >= MAX_LISTED_KEYS {
                    is_crowded = true;
                    break;
                }
            }
        }
        Ok(match images.is_empty() {
            true if is_crowded => Self::Crowded,
            true => Self::Empty,
            false if database.has_any_image(&images).await? => Self::Known,
            false => Self::Unknown,
        })
    }
}

/// Compares a bucket and a database without writing to either. Returns their id, with the pair; `None` if the next start of a
/// server pairs them.
///
/// # Errors
/// [`PairError`].
pub async fn examine(database: &DatabaseProbe, objects: &Objects) -> Result<Option<(DeploymentId, Pair)>, PairError> {
    let pair = Pair::read(database, objects).await?;
    if let Some(id) = pair.common_id()? {
        return Ok(Some((id, pair)));
    }
    match Sample::read(database, objects).await? {
        Sample::Unknown => Err(PairError::UnknownObjects),
        Sample::Crowded => Err(PairError::Crowded),
        Sample::Empty if database.has_ready_image().await? => Err(PairError::EmptyBucket),
        Sample::Empty | Sample::Known => Ok(None),
    }
}

/// The pair of bucket and database.
#[derive(Debug)]
pub struct Deployment {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
    /// Whether the last conclusive check found that the bucket belongs to another database.
    pub(super) is_mismatched: AtomicBool,
}

impl Deployment {
    /// Returns the ids of both sides.
    ///
    /// # Errors
    /// [`PairError::Marker`] or [`PairError::Store`].
    pub async fn read_pair(&self) -> Result<Pair, PairError> {
        Pair::read(&self.store.probe(), &self.objects).await
    }

    /// Looks up the records of the bucket's first objects.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_sample(&self) -> Result<Sample, StoreError> {
        Sample::read(&self.store.probe(), &self.objects).await
    }

    /// Verifies that bucket and database belong together, and pairs them at the first start. The database's id is written first:
    /// if a server dies before it writes the marker, the next start completes the pair. A pair with one side restored is used,
    /// with a warning.
    ///
    /// # Errors
    /// [`PairError`]; after a mismatch, bucket and database are unchanged.
    pub async fn verify_pair(&self) -> Result<DeploymentId, PairError> {
        if let Some((id, pair)) = examine(&self.store.probe(), &self.objects).await? {
            warn_of_restored(pair);
            return Ok(id);
        }
        let record = self.store.insert_deployment_id(DeploymentId::new()).await?;
        self.objects.insert_marker(marker_of(&record)).await.map_err(PairError::Marker)?;
        // A server with another database may have written its marker first.
        let id = self
            .read_pair()
            .await?
            .common_id()?
            .ok_or(PairError::Store(StoreError::Contention { subject: "the bucket's marker" }))?;
        tracing::info!(deployment = %id, "paired the bucket with the database");
        Ok(id)
    }

    /// Makes the database the owner of the bucket, even if either belonged to another deployment, an id is damaged, or a side was
    /// restored. Both get a new id: servers of every other database, including copies of this one, stop sweeping, and are refused
    /// at their next start.
    ///
    /// # Errors
    /// [`PairError`]; safe to repeat.
    pub async fn join_pair(&self) -> Result<DeploymentId, PairError> {
        let record = self.store.replace_deployment(DeploymentId::new()).await?;
        self.objects.replace_marker(marker_of(&record)).await.map_err(PairError::Marker)?;
        tracing::warn!(deployment = %record.id, "joined the bucket to the database");
        Ok(record.id)
    }

    /// Checks the pair while a server runs, and stamps it if the latest stamp is `age` old.
    ///
    /// # Errors
    /// [`PairError`]; a mismatch is remembered until a check finds equal ids.
    pub async fn check_and_stamp_pair(&self, age: Duration) -> Result<(), PairError> {
        let began = Instant::now();
        let paired = self.read_pair().await.and_then(|pair| Ok((pair, pair.require_common_id()?)));
        match &paired {
            Ok(_) => self.is_mismatched.store(false, Relaxed),
            Err(error) if error.is_mismatch() => self.is_mismatched.store(true, Relaxed),
            // The ids could not be compared, so a mismatch neither begins nor ends.
            Err(_) => {}
        }
        let (pair, id) = paired?;
        let record = DeploymentRecord { id, stamp: pair.stamps.database, earlier_stamp: pair.stamps.earlier };
        let written = match pair.stamps.next_stamp() {
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

    /// Returns whether a check found that the bucket belongs to another database, and no later check found that both belong
    /// together.
    #[must_use]
    pub fn is_mismatched(&self) -> bool {
        self.is_mismatched.load(Relaxed)
    }

    /// Creates the indexes that the use cases need.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn make_indexes(&self) -> Result<(), StoreError> {
        self.store.make_indexes().await
    }
}

/// Returns the marker that belongs to a record.
fn marker_of(record: &DeploymentRecord) -> Marker {
    Marker { id: record.id, stamp: record.stamp }
}

/// Logs a warning if bucket or database was restored from a backup.
fn warn_of_restored(pair: Pair) {
    let stamps = pair.stamps;
    match pair.restored_side() {
        Some(RestoredSide::Database) => tracing::warn!(
            %stamps,
            "the database was restored from a backup: objects of later uploads have no record, and `sweep --orphans --delete` refuses \
             until `valet join`"
        ),
        Some(RestoredSide::Bucket) => tracing::warn!(
            %stamps,
            "the bucket was restored from a backup: records of later uploads have no object; once that is as it should be, run `valet join`"
        ),
        None => {}
    }
}
