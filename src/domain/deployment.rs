//! Ties one bucket to one database. Both keep the deployment's id, written at the first start and compared at every one: a
//! database that is empty, restored, or another deployment's makes every object look abandoned.

use crate::{
    model::DeploymentId,
    store::{Objects, StoreError, database_probe::DatabaseProbe},
};

use super::Valet;

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

/// The ids that a bucket and a database have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// In the bucket's marker.
    pub bucket: Option<DeploymentId>,
    /// In the database.
    pub database: Option<DeploymentId>,
}

impl Pair {
    /// Reads both ids.
    ///
    /// # Errors
    /// [`PairError::Marker`] or [`PairError::Store`].
    pub async fn read(database: &DatabaseProbe, objects: &Objects) -> Result<Self, PairError> {
        let database = async {
            database.deployment_id().await.map_err(|error| match error {
                StoreError::Corrupt { .. } => PairError::Damaged { side: "database" },
                error => PairError::Store(error),
            })
        };
        let bucket = async {
            objects.deployment_id().await.map_err(|error| match error {
                StoreError::Corrupt { .. } => PairError::Damaged { side: "bucket" },
                error => PairError::Marker(error),
            })
        };
        // Both to their end: which of two failures is reported must not depend on which comes first.
        let (database, bucket) = tokio::join!(database, bucket);
        Ok(Self { database: database?, bucket: bucket? })
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

/// Judges a bucket and a database without writing to either. Returns their id; `None` where the next start of a server ties
/// them.
///
/// # Errors
/// [`PairError`].
pub async fn examine(database: &DatabaseProbe, objects: &Objects) -> Result<Option<DeploymentId>, PairError> {
    if let Some(id) = Pair::read(database, objects).await?.judge()? {
        return Ok(Some(id));
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
    /// server that dies before the marker leaves a pair that the next start completes.
    ///
    /// # Errors
    /// [`PairError`]; a mismatch has changed nothing.
    pub async fn verify_pair(&self) -> Result<DeploymentId, PairError> {
        if let Some(id) = examine(&self.store.probe(), &self.objects).await? {
            return Ok(id);
        }
        let database = self.store.insert_deployment_id(DeploymentId::new()).await?;
        self.objects.insert_deployment_id(database).await.map_err(PairError::Marker)?;
        // Another database's server may have been faster at the bucket.
        let id = self.pair().await?.judge()?.ok_or(PairError::Store(StoreError::Contention { what: "the bucket's marker" }))?;
        tracing::info!(deployment = %id, "tied the bucket to the database");
        Ok(id)
    }

    /// Makes the database the owner of the bucket, whatever either belonged to, also where an id is damaged. Servers of other
    /// databases are refused from their next start on.
    ///
    /// # Errors
    /// [`PairError`]; safe to repeat.
    pub async fn join_pair(&self) -> Result<DeploymentId, PairError> {
        let id = match self.store.insert_deployment_id(DeploymentId::new()).await {
            Err(StoreError::Corrupt { .. }) => {
                let id = DeploymentId::new();
                self.store.replace_deployment_id(id).await?;
                id
            }
            id => id?,
        };
        self.objects.replace_deployment_id(id).await.map_err(PairError::Marker)?;
        tracing::warn!(deployment = %id, "joined the bucket to the database");
        Ok(id)
    }

    /// Makes the indexes that the use cases rely on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn make_indexes(&self) -> Result<(), StoreError> {
        self.store.make_indexes().await
    }
}
