"""States of a bucket and its database in which the verdicts of `valet check` are compared. Each function in `ALL` creates one, and
returns whether the store supports it."""

import json
import uuid

from botocore.exceptions import ClientError

from bucket import Bucket


def attempt(bucket: Bucket, operation: str, **members) -> bool:
    """Makes a call, and returns whether it succeeded: not every store supports it."""
    try:
        getattr(bucket.s3, operation)(Bucket=bucket.name, **members)
        return True
    except ClientError:
        return False


def pair(bucket: Bucket, database, same: bool) -> None:
    """Pairs bucket and database as the server does, or with different deployments unless `same`."""
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    bucket.s3.put_object(Bucket=bucket.name, Key="valet/deployment", Body=f"{one}\n".encode())
    database.meta.insert_one({"_id": "deployment", "id": one if same else other})


def newly_created(bucket: Bucket, database) -> bool:
    bucket.s3.create_bucket(Bucket=bucket.name)
    return True


def set_up_with_rules_of_others(bucket: Bucket, database) -> bool:
    """Versions, lifecycle rules that delete and archive images, and a paired database."""
    bucket.s3.create_bucket(Bucket=bucket.name)
    rule = lambda name, **members: {"ID": name, "Status": "Enabled", **members}
    rules = [
        rule("expire", Filter={"Prefix": "u/"}, Expiration={"Days": 30}),
        rule("abort", Filter={"Prefix": "in/"}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1}),
    ]
    archive = rule("archive", Filter={"Prefix": "in/"}, Transitions=[{"Days": 30, "StorageClass": "GLACIER"}])
    attempt(bucket, "put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    # Sets as many of the rules as the store supports.
    for supported in ([*rules, archive], rules, rules[:1]):
        if attempt(bucket, "put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": supported}):
            break
    pair(bucket, database, same=True)
    return True


def public_by_a_policy(bucket: Bucket, database) -> bool:
    bucket.s3.create_bucket(Bucket=bucket.name)
    attempt(bucket, "delete_public_access_block")
    action = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket.name}/*"}
    return attempt(bucket, "put_bucket_policy", Policy=json.dumps({"Version": "2012-10-17", "Statement": [action]}))


def with_a_default_retention(bucket: Bucket, database) -> bool:
    try:
        bucket.s3.create_bucket(Bucket=bucket.name, ObjectLockEnabledForBucket=True)
    except ClientError:
        return False
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    return attempt(bucket, "put_object_lock_configuration", ObjectLockConfiguration=lock)


def of_another_deployment(bucket: Bucket, database) -> bool:
    bucket.s3.create_bucket(Bucket=bucket.name)
    pair(bucket, database, same=False)
    return True


ALL = {
    state.__name__: state
    for state in (newly_created, set_up_with_rules_of_others, public_by_a_policy, with_a_default_retention, of_another_deployment)
}
# States in which `valet check --fix` runs before the comparison.
FIXED = (set_up_with_rules_of_others,)
# States in which a server is started after the comparison.
SERVED = (newly_created,)
