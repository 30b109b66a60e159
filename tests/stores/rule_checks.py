"""Checks the rules of `valet check` with another client: one function for each name of docs/check.md, which returns whether the rule
holds, and None if it cannot be checked."""

import datetime
import email.utils
import os
import socket
import time
import urllib.parse
import uuid
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import pymongo
from botocore.exceptions import ClientError
from pymongo.errors import PyMongoError

import deviations
from bucket import BODY, OTHER, TYPE, Bucket, Response, send, sha256, status_of, upload_headers

# Seconds by which two clocks may differ.
MAX_SKEW = 30
# Attempts with two overlapping PUTs; to confirm a race that `valet check` has found, more attempts may be necessary.
ROUNDS, MAX_ROUNDS = 5, 60
# The headers that a sealed PUT names without a value (docs/s3-compatibility.md).
SEALS = [
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-acl",
    "x-amz-copy-source",
    "x-amz-copy-source-range",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-object-lock-legal-hold",
    "x-amz-object-lock-mode",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-website-redirect-location",
]
# Beginnings of the keys of the server's objects.
OUR_PREFIXES = ("u/", "in/", "valet/")
# Beginnings of the keys of multipart uploads; `in/` has those of Uppy's own client.
MULTIPART_PREFIXES = ("u/", "in/")
# Days after which rules may abort or expire uploads: a day more than MULTIPART_TTL and UPLOAD_TTL, which verdicts.py sets to a day.
LIVE_DAYS = 2


class NotSupported(Exception):
    """The store does not support the call of a rule."""


class RuleChecks:
    """The rules that a bucket and a database satisfy, checked without any code of the server."""

    def __init__(self, bucket: Bucket, database: str, name: str, origin: str, max_bytes: int):
        self.bucket, self.s3, self.origin, self.max_bytes = bucket, bucket.s3, origin, max_bytes
        self.mongo = pymongo.MongoClient(database, serverSelectionTimeoutMS=60000)
        self.database = self.mongo[name]
        self.outcome = deviations.Outcome(set(), {}, False)
        # Whether multipart uploads work; other rules are checked only then.
        self.has_multipart = False

    def check_all(self, names: list[str], reported: dict[str, str]) -> dict[str, bool | None]:
        """Returns whether each rule holds. `reported` are the verdicts of `valet check`: a race that it found may need more attempts."""
        self.reported = reported
        if self.deployment_pair() is False:
            # `valet check` stops at a wrong pair of bucket and database.
            return dict.fromkeys(names) | {"settings": True, "deployment_pair": False}
        self.is_retained = self.bucket_default_retention() is False
        if not self.is_retained:
            self.outcome = deviations.probe_all(self.bucket)
        return {name: self.check(name) for name in names}

    def check(self, name: str) -> bool | None:
        # In a bucket that retains objects, `valet check` writes nothing, and skips all rules after `bucket_default_retention`.
        is_skipped = name.startswith(("upload_", "object_", "multipart_", "cors_", "bucket_")) or name in ("s3_public_tls", "s3_clock")
        if self.is_retained and is_skipped and name != "bucket_default_retention":
            return None
        if name in deviations.RULES:
            return self.outcome.holds(name)
        try:
            return getattr(self, name)()
        except NotSupported:
            return None
        except (ClientError, PyMongoError, OSError) as error:
            print(f"  {name}: {error}")
            return False

    def call(self, operation: str, **members) -> dict:
        return getattr(self.s3, operation)(Bucket=self.bucket.name, **members)

    def setting(self, operation: str) -> dict | None:
        """Returns a setting of the bucket; None if it is not set."""
        try:
            return self.call(operation)
        except ClientError as error:
            if status_of(error) in (405, 501) or error.response["Error"]["Code"] in ("NotImplemented", "MethodNotAllowed"):
                raise NotSupported from error
            if status_of(error) == 404:
                return None
            raise

    # Rules for settings, MongoDB, the identity provider, imgproxy and workers.

    def settings(self):
        return True  # `valet check` ran with settings that it could read.

    def deployment_pair(self):
        """Returns whether bucket and database have the same deployment id, and None if the bucket has none."""
        found = self.database.meta.find_one({"_id": "deployment"})
        marker = self.bucket.read("valet/deployment")
        if found is None or marker is None:
            return None if marker is None else False
        return marker["Bytes"].decode().strip() == found["id"]

    def deployment_stamps(self):
        """Returns whether the marker's stamp is one of the database's, and None before the first stamp."""
        found = self.database.meta.find_one({"_id": "deployment"}) or {}
        marker = self.call("head_object", Key="valet/deployment") if self.deployment_pair() else {"Metadata": {}}
        stamp = marker["Metadata"].get("valet-stamp")
        if stamp is None:
            return None
        known = [found[name] for name in ("stamp", "formerStamp") if name in found]
        return int(stamp) in [round(at.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000) for at in known]

    def hello(self) -> dict:
        return self.mongo.admin.command("hello")

    def mongodb_reachable(self):
        return self.mongo.admin.command("ping")["ok"] == 1

    def mongodb_replica_set(self):
        return "setName" in self.hello()

    def mongodb_primary(self):
        return self.hello()["isWritablePrimary"]

    def mongodb_majority_write(self):
        scratch = self.database.get_collection("outside", write_concern=pymongo.WriteConcern("majority", wtimeout=60000))
        scratch.insert_one({"_id": uuid.uuid4().hex})
        scratch.drop()
        return True

    def mongodb_transaction(self):
        self.database.create_collection("outside-transaction")
        with self.mongo.start_session() as session, session.start_transaction():
            self.database["outside-transaction"].insert_one({"_id": 1}, session=session)
        held = self.database["outside-transaction"].count_documents({}) == 1
        self.database.drop_collection("outside-transaction")
        return held

    def mongodb_clock(self):
        theirs = self.hello()["localTime"].replace(tzinfo=datetime.UTC)
        return abs((theirs - datetime.datetime.now(datetime.UTC)).total_seconds()) < MAX_SKEW

    def mongodb_version(self):
        version = tuple(self.mongo.server_info()["versionArray"][:3])
        # The first releases of each series without CVE-2025-14847 and CVE-2026-6914.
        least = {(7, 0): (7, 0, 32), (8, 0): (8, 0, 21)}.get(version[:2], (8, 2, 3))
        return version >= least

    def provider_keys(self):
        return None  # No provider is configured.

    def imgproxy_picture(self):
        return None  # No imgproxy is configured.

    def imgproxy_signature(self):
        return None

    def preview_workers(self):
        return None  # No workers are configured.

    # Rules for the store and its bucket.

    def s3_credentials(self):
        return self.s3_bucket()

    def s3_bucket(self):
        return self.call("head_bucket")["ResponseMetadata"]["HTTPStatusCode"] == 200

    def s3_region(self):
        region = self.call("head_bucket")["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        return region == self.bucket.region if region else None

    def s3_public_tls(self):
        parts = urllib.parse.urlsplit(self.bucket.endpoint)
        if parts.scheme == "https":
            return True
        return None if parts.hostname in ("127.0.0.1", "localhost", "::1") else False

    def s3_clock(self):
        date = send("GET", self.bucket.sign("GET", self.bucket.prefix + "none")).headers["date"]
        return abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < MAX_SKEW

    # Rules for uploads.

    def key(self, name: str) -> str:
        """Returns a unique key."""
        return f"{self.bucket.prefix}{name}-{uuid.uuid4().hex[:8]}"

    def stored(self) -> str:
        """Returns the key of a new object with BODY."""
        key = self.key("stored")
        self.bucket.put(key)
        return key

    def keeps_nothing(self, key: str, response: Response) -> bool:
        """Returns whether the store refused the request, and has no object at the key."""
        return response.refused and self.bucket.read(key) is None

    def upload_put(self):
        return self.bucket.put(self.key("put")).ok

    def upload_sealed_put(self):
        obeyed_headers = {name for kind, name in self.outcome.obeyed if kind in ("PUT", "preview PUT")}
        # The server seals its URLs only if the store obeys one of these headers.
        if not obeyed_headers & {"copy source", "ACL", "grant"}:
            raise NotSupported
        source = self.stored()
        self.call("put_object", Key=source, Body=OTHER)
        return all(self.sealed(name, source) for name in ("nothing", "copy source", "ACL", "grant"))

    def sealed(self, name: str, source: str) -> bool:
        """Sends a sealed PUT with a deviation; `nothing` leaves it unchanged. Returns whether the store accepts exactly the unchanged one."""
        key, headers = self.key("sealed"), upload_headers(BODY)
        url = self.bucket.seal("PUT", key, headers | {"content-length": str(len(BODY))}, SEALS)
        response = send("PUT", url, headers | deviations.added_headers(name, f"{self.bucket.name}/{source}"), BODY)
        is_stored = self.bucket.read(key) is not None
        return response.ok and is_stored if name == "nothing" else not response.ok and not is_stored

    def upload_checksum(self):
        key = self.key("checksum")
        url = self.bucket.sign("PUT", key, upload_headers(BODY) | {"content-length": str(len(BODY))})
        return self.keeps_nothing(key, send("PUT", url, upload_headers(BODY), OTHER))

    def upload_once(self):
        key = self.key("once")
        return self.bucket.put(key).ok and self.bucket.put(key).refused

    def upload_overlap(self):
        attempts = ROUNDS if self.reported["upload_overlap"] == "ok" else MAX_ROUNDS
        with ThreadPoolExecutor(ROUNDS) as pool:
            for _ in range(attempts // ROUNDS):
                if any(pool.map(lambda _: self.two_winners(), range(ROUNDS))):
                    return False
        return True

    def two_winners(self) -> bool:
        """Sends two overlapping PUTs with one URL. Returns whether both succeeded."""
        body = os.urandom(256 * 1024)
        headers = upload_headers(body)
        key = self.key("overlap")
        url = urllib.parse.urlsplit(self.bucket.sign("PUT", key, headers | {"content-length": str(len(body))}))
        lines = {"host": url.netloc, "content-length": str(len(body)), "connection": "close"} | headers
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connections = [socket.create_connection((url.hostname, url.port or 80), 60) for _ in range(2)]
        for connection in connections:
            connection.sendall(head.encode() + b"\r\n" + body[:-1000])
        time.sleep(0.1)
        for connection in connections:
            connection.sendall(body[-1000:])
        return all(final_status(connection) == 200 for connection in connections)

    def upload_body_cap(self):
        body = bytes(self.max_bytes)
        key, headers = self.key("cap"), upload_headers(body)
        return send("PUT", self.bucket.sign("PUT", key, headers | {"content-length": str(len(body))}), headers, body).ok

    def upload_form(self):
        return "form" not in self.outcome.unsupported

    # Rules for objects.

    def object_head(self):
        head = self.call("head_object", Key=self.stored())
        return head["ContentLength"] == len(BODY) and head["ContentType"] == TYPE and bool(head["ETag"])

    def object_head_checksum(self):
        return self.call("head_object", Key=self.stored(), ChecksumMode="ENABLED").get("ChecksumSHA256") == sha256(BODY)

    def object_missing(self):
        return self.refusal("head_object", Key=self.key("none")) == 404

    def refusal(self, operation: str, **members) -> int | None:
        """Returns the status with which a call is refused; None if it succeeds."""
        try:
            self.call(operation, **members)
        except ClientError as error:
            return status_of(error)
        return None

    def object_range(self):
        got = send("GET", self.bucket.sign("GET", self.stored()), {"range": "bytes=8-15"})
        return got.status == 206 and got.body == BODY[8:16]

    def object_overrides(self):
        wanted = {
            "Type": "image/webp",
            "Disposition": "attachment; filename=\"v_let.png\"; filename*=UTF-8''v%C3%A6let.png",
        }
        caching = "private, max-age=300, immutable"
        members = {f"ResponseContent{name}": value for name, value in wanted.items()} | {"ResponseCacheControl": caching}
        call = {"Bucket": self.bucket.name, "Key": self.stored()} | members
        got = send("GET", self.s3.generate_presigned_url("get_object", Params=call)).headers
        shown = all(got.get(f"content-{name.lower()}") == value for name, value in wanted.items())
        return shown and got.get("cache-control") == caching

    def object_anonymous(self):
        key, other = self.stored(), self.key("anonymous")
        listing = send("GET", f"{self.bucket.endpoint}/{self.bucket.name}/")
        written = send("PUT", self.bucket.url(other), {}, BODY)
        return send("GET", self.bucket.url(key)).refused and listing.refused and self.keeps_nothing(other, written)

    def object_copy(self):
        source, wrong = self.stored(), '"00000000000000000000000000000000"'
        copy = {"CopySource": {"Bucket": self.bucket.name, "Key": source}}
        etag = self.call("head_object", Key=source)["ETag"]
        self.call("copy_object", Key=self.key("copied"), CopySourceIfMatch=etag, **copy)
        return self.refusal("copy_object", Key=self.key("uncopied"), CopySourceIfMatch=wrong, **copy) == 412

    def versions(self, key: str) -> list[dict]:
        """Returns the versions of an object. Raises NotSupported if the store does not list versions."""
        try:
            listed = self.call("list_object_versions", Prefix=key)
        except ClientError as error:
            if status_of(error) in (405, 501):
                raise NotSupported from error
            raise
        # A store without this call may answer it with a list of objects.
        if self.is_plain_listing(key):
            raise NotSupported
        return listed.get("Versions", [])

    def is_plain_listing(self, key: str) -> bool:
        request = {"Bucket": self.bucket.name, "Prefix": key}
        got = send("GET", self.s3.generate_presigned_url("list_object_versions", Params=request))
        return got.ok and ElementTree.fromstring(got.body).tag.endswith("ListBucketResult")

    def object_versions(self):
        return len(self.versions(self.stored())) > 0

    def object_delete(self):
        key = self.stored()
        self.call("delete_object", Key=key)
        return self.bucket.read(key) is None

    def object_retained(self):
        """Returns whether no version is retained: all versions of an object can be deleted."""
        key = self.stored()
        for version in self.versions(key):
            self.call("delete_object", Key=key, VersionId=version["VersionId"])
        return self.versions(key) == []

    # Rules for multipart uploads.

    def multipart_upload(self):
        key = self.key("multipart")
        upload = self.bucket.begin(key)
        part = send(
            "PUT", self.bucket.sign("PUT", key, {"content-length": str(len(BODY))}, f"partNumber=1&uploadId={upload}"), body=BODY
        )
        listed = [found["Size"] for found in self.bucket.parts(key, upload)]
        self.bucket.complete(key, upload)
        whole = self.bucket.read(key)
        self.has_multipart = part.ok and listed == [len(BODY)] and whole is not None and whole["Bytes"] == BODY
        return self.has_multipart

    def begun(self, key: str, **members) -> str:
        """Opens a multipart upload. Raises NotSupported if multipart uploads do not work."""
        if not self.has_multipart:
            raise NotSupported
        return self.bucket.begin(key, **members)

    def multipart_complete_once(self):
        key = self.stored()
        upload = self.begun(key)
        self.call("upload_part", Key=key, UploadId=upload, PartNumber=1, Body=OTHER)
        try:
            self.bucket.complete(key, upload, IfNoneMatch="*")
            return False
        except ClientError as error:
            return 400 <= status_of(error) < 500
        finally:
            self.bucket.abort(key, upload)

    def checked_part(self, key: str, upload: str, body: bytes) -> Response:
        """Sends a body to the URL of a part that is signed with the checksum of BODY."""
        headers = {"x-amz-checksum-sha256": sha256(BODY)}
        return send("PUT", self.bucket.sign("PUT", key, headers, f"partNumber=1&uploadId={upload}"), headers, body)

    def multipart_part_checksum(self):
        key = self.key("part-checksum")
        upload = self.begun(key, ChecksumAlgorithm="SHA256")
        wrong = self.checked_part(key, upload, OTHER)
        kept = self.bucket.parts(key, upload)
        right = self.checked_part(key, upload, BODY)
        self.bucket.abort(key, upload)
        return not wrong.ok and not kept and right.ok

    def multipart_checksums_listed(self):
        key = self.key("part-listed")
        upload = self.begun(key, ChecksumAlgorithm="SHA256")
        self.checked_part(key, upload, BODY)
        listed = [part.get("ChecksumSHA256") for part in self.bucket.parts(key, upload)]
        self.bucket.abort(key, upload)
        return listed == [sha256(BODY)]

    def multipart_abort(self):
        key = self.key("abort")
        upload = self.begun(key)
        self.call("upload_part", Key=key, UploadId=upload, PartNumber=1, Body=BODY)
        self.call("abort_multipart_upload", Key=key, UploadId=upload)
        return self.refusal("list_parts", Key=key, UploadId=upload) == 404

    def multipart_part_cap(self):
        key, body = self.key("part-cap"), bytes(5 << 20)
        upload = self.begun(key)
        url = self.bucket.sign("PUT", key, {"content-length": str(len(body))}, f"partNumber=1&uploadId={upload}")
        response = send("PUT", url, body=body)
        self.bucket.abort(key, upload)
        return response.ok

    # Rules for the bucket's settings.

    def cors_origins(self):
        key, wanted = self.key("preflight"), ("content-type", "if-none-match", "x-amz-checksum-sha256")
        asks = {"access-control-request-method": "PUT", "access-control-request-headers": ",".join(wanted)}
        url = self.bucket.sign("PUT", key, upload_headers(BODY) | {"content-length": str(len(BODY))})
        got = send("OPTIONS", url, {"origin": self.origin} | asks)
        headers, methods = items(got, "access-control-allow-headers"), items(got, "access-control-allow-methods")
        is_allowed = got.headers.get("access-control-allow-origin") in ("*", self.origin)
        return got.ok and is_allowed and {"*", "put"} & methods != set() and ("*" in headers or headers >= set(wanted))

    def cors_etag(self):
        got = send("GET", self.bucket.sign("GET", self.stored()), {"origin": self.origin})
        return {"*", "etag"} & items(got, "access-control-expose-headers") != set()

    def rules(self) -> list[dict]:
        """Returns the lifecycle rules that are in effect."""
        found = self.setting("get_bucket_lifecycle_configuration") or {}
        return [rule for rule in found.get("Rules", []) if rule["Status"] == "Enabled"]

    def aborting_rules(self) -> list[dict]:
        return [rule for rule in self.rules() if "AbortIncompleteMultipartUpload" in rule]

    def bucket_abandoned_multiparts(self):
        covered = [prefix(rule) for rule in self.aborting_rules() if is_plain(rule)]
        return all(any(ours.startswith(start) for start in covered) for ours in MULTIPART_PREFIXES)

    def bucket_live_multiparts(self):
        early = [rule for rule in self.aborting_rules() if rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] < LIVE_DAYS]
        return not any(our_prefixes(rule) & set(MULTIPART_PREFIXES) for rule in early)

    def bucket_expiry_rules(self):
        expiring = [rule for rule in self.rules() if our_prefixes(rule) and {"Days", "Date"} & rule.get("Expiration", {}).keys()]
        # Objects under `in/` may expire once their upload is over.
        return all(our_prefixes(rule) == {"in/"} and rule["Expiration"].get("Days", 0) >= LIVE_DAYS for rule in expiring)

    def bucket_transition_rules(self):
        archives = ("GLACIER", "DEEP_ARCHIVE")
        ours = [rule for rule in self.rules() if our_prefixes(rule)]
        return not any(to.get("StorageClass") in archives for rule in ours for to in rule.get("Transitions", []))

    def bucket_default_retention(self):
        try:
            found = self.setting("get_object_lock_configuration") or {}
        except NotSupported:
            return True
        except ClientError as error:
            if status_of(error) == 400:
                return True  # The bucket has no Object Lock.
            raise
        return "DefaultRetention" not in found.get("ObjectLockConfiguration", {}).get("Rule", {})

    def bucket_access_block(self):
        found = (self.setting("get_public_access_block") or {}).get("PublicAccessBlockConfiguration", {})
        return all(found.get(flag) for flag in ("IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"))

    def bucket_notifications(self):
        return None  # Neither a queue nor a hook is configured.

    def check_cleanup(self):
        left = [key for key in self.bucket.keys() + self.bucket.open_uploads() if key.startswith("check/")]
        return left == []


def items(response: Response, name: str) -> set[str]:
    """Returns the items of a header that is a list."""
    return {item.strip().lower() for item in response.headers.get(name, "").split(",")}


def scope(rule: dict) -> dict:
    """Returns the conditions of a lifecycle rule's filter."""
    found = rule.get("Filter", {})
    return found | found.get("And", {})


def prefix(rule: dict) -> str:
    return scope(rule).get("Prefix", rule.get("Prefix", ""))


def our_prefixes(rule: dict) -> set[str]:
    """Returns the folders of the server that the rule applies to. The server's objects have no tags, so a rule for tagged objects
    applies to none."""
    if has_tags(rule):
        return set()
    return {ours for ours in OUR_PREFIXES if ours.startswith(prefix(rule)) or prefix(rule).startswith(ours)}


def has_tags(rule: dict) -> bool:
    return bool({"Tag", "Tags"} & scope(rule).keys())


def is_plain(rule: dict) -> bool:
    """Returns whether the rule is for objects of all tags and sizes."""
    return not has_tags(rule) and not {"ObjectSizeGreaterThan", "ObjectSizeLessThan"} & scope(rule).keys()


def final_status(connection: socket.socket) -> int:
    """Returns the status of the answer after `100 Continue`."""
    with connection, connection.makefile("rb") as lines:
        while True:
            status = int(lines.readline().split()[1])
            while lines.readline().strip():
                pass
            if status >= 200:
                return status
