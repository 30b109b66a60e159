//! Ties one bucket to one database. Both keep the deployment's id, written at the first start and compared at every one: a
//! database that is empty, restored, or another deployment's makes every object look abandoned.

use crate::{
    model::{DeploymentId, ImageId},
    store::{Objects, StoreError},
};

use super::Valet;

/// Objects whose owners are looked up before a bucket without a marker is taken over.
const SAMPLE: usize = 500;

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
    /// The database has ready images; the bucket has no object of Valet's.
    #[error(
        "the database has ready images, and the bucket is empty. Check S3_BUCKET and S3_ENDPOINT; if the objects are lost or \
         still to be restored, run `valet join`"
    )]
    EmptyBucket,
    /// The bucket has objects of Valet's, and the database knows none of them.
    #[error(
        "the bucket has images, and the database has no record of them. Check S3_BUCKET, MONGODB_URI and MONGODB_DATABASE; if this \
         database is to own this bucket from now on, run `valet join`"
    )]
    UnknownObjects,
    /// The marker could not be read or written.
    #[error(
        "the marker valet/deployment in the bucket could not be read or written (the role needs s3:GetObject and s3:PutObject on it): {0}"
    )]
    Marker(#[source] StoreError),
    /// The database or S3 failed.
    #[error(transparent)]
    Store(#[from] StoreError),
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

/// What a sample of the bucket says about the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// There is no object of Valet's.
    Empty,
    /// The database has a record of at least one of the objects.
    Known,
    /// The database has no record of any.
    Unknown,
}

impl Valet {
    /// Returns the ids of both sides.
    ///
    /// # Errors
    /// [`PairError::Marker`] or [`PairError::Store`].
    pub async fn pair(&self) -> Result<Pair, PairError> {
        let database = async { self.store.deployment_id().await.map_err(PairError::Store) };
        let bucket = async { self.objects.deployment_id().await.map_err(PairError::Marker) };
        let (database, bucket) = tokio::try_join!(database, bucket)?;
        Ok(Pair { bucket, database })
    }

    /// Verifies that bucket and database belong together, and ties them at the first start. The database's id comes first: a
    /// server that dies before the marker leaves a pair that the next start completes.
    ///
    /// # Errors
    /// [`PairError`]; nothing was changed.
    pub async fn verify_pair(&self) -> Result<DeploymentId, PairError> {
        let pair = self.pair().await?;
        if let Some(id) = pair.judge()? {
            return Ok(id);
        }
        match self.sample().await? {
            Sample::Unknown => return Err(PairError::UnknownObjects),
            Sample::Empty if self.store.has_ready_image().await? => return Err(PairError::EmptyBucket),
            Sample::Empty | Sample::Known => {}
        }
        let database = self.store.insert_deployment_id(DeploymentId::new()).await?;
        self.objects.insert_deployment_id(database).await.map_err(PairError::Marker)?;
        // Another database's server may have been faster at the bucket.
        let id = self.pair().await?.judge()?.ok_or(PairError::Store(StoreError::Contention { what: "the bucket's marker" }))?;
        tracing::info!(deployment = %id, "tied the bucket to the database");
        Ok(id)
    }

    /// Makes the database the owner of the bucket, whatever either belonged to. Other databases are refused from then on.
    ///
    /// # Errors
    /// [`PairError`]; safe to repeat.
    pub async fn join_pair(&self) -> Result<DeploymentId, PairError> {
        let id = self.store.insert_deployment_id(DeploymentId::new()).await?;
        self.objects.replace_deployment_id(id).await.map_err(PairError::Marker)?;
        tracing::warn!(deployment = %id, "joined the bucket to the database");
        Ok(id)
    }

    /// Looks up the owners of the first objects in the bucket.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sample(&self) -> Result<Sample, StoreError> {
        let mut images = Vec::new();
        for prefix in ["u/", "in/"] {
            images.extend(sampled(&self.objects, prefix).await?);
        }
        if images.is_empty() {
            return Ok(Sample::Empty);
        }
        let known = self.store.images.entries(&images).await?;
        Ok(if known.is_empty() { Sample::Unknown } else { Sample::Known })
    }
}

async fn sampled(objects: &Objects, prefix: &str) -> Result<Vec<ImageId>, StoreError> {
    let page = objects.list_page(prefix, None).await?;
    Ok(page.objects.iter().filter_map(|object| Some(object.key.owner()?.image)).take(SAMPLE).collect())
}
