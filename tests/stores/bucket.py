"""Access to a bucket with another client: boto3 for calls, botocore's signatures and http.client for presigned requests."""

import base64
import dataclasses
import hashlib
import http.client
import urllib.parse
import uuid

import boto3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

TYPE = "image/png"
BODY = b"the bytes that were declared to the server......"
OTHER = b"other bytes, which belong to another user......."
assert len(BODY) == len(OTHER), "the bodies differ in their checksum only"


def sha256(data: bytes) -> str:
    """Returns the digest in the form of `x-amz-checksum-sha256`."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def status_of(error: ClientError) -> int:
    """Returns the HTTP status of a failed call."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


@dataclasses.dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        return 400 <= self.status < 500


def send(method: str, url: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Response:
    """Sends the request unchanged; adds the length of a body, also of an empty one if the method has a body."""
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=60)
    try:
        connection.putrequest(method, parts.path + (f"?{parts.query}" if parts.query else ""), skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if method in ("PUT", "POST"):
            connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        try:
            connection.send(body)
        except OSError:
            pass  # The store may refuse the request and close the connection before it has read the body.
        answer = connection.getresponse()
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


class Sealing(S3SigV4QueryAuth):
    """Signs headers without a value: `X-Amz-SignedHeaders` names them, and the canonical headers have no line for them."""

    def canonical_headers(self, headers_to_sign):
        lines = super().canonical_headers(headers_to_sign).split("\n")
        return "\n".join(line for line in lines if not line.endswith(":"))


class Bucket:
    """One bucket; `prefix` is a unique prefix for the keys of the checks."""

    def __init__(self, endpoint: str, access: str, secret: str, region: str, name: str):
        self.endpoint, self.region, self.name = endpoint.rstrip("/"), region, name
        self.credentials = Credentials(access, secret)
        self.prefix = f"outside/{uuid.uuid4()}/"
        self.s3 = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                retries={"max_attempts": 2},
                max_pool_connections=32,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def url(self, key: str) -> str:
        return f"{self.endpoint}/{self.name}/{urllib.parse.quote(key)}"

    def sign(self, method: str, key: str, headers: dict[str, str] | None = None, query: str = "", ttl: int = 300) -> str:
        """Presigns a request that must have these headers; `ttl` is in seconds."""
        url = self.url(key) + (f"?{query}" if query else "")
        request = AWSRequest(method=method, url=url, headers=dict(headers or {}))
        S3SigV4QueryAuth(self.credentials, "s3", self.region, expires=ttl).add_auth(request)
        return request.url

    def seal(self, method: str, key: str, headers: dict[str, str], forbidden: list[str]) -> str:
        """Presigns a request that must have these headers and must not have the sealed ones."""
        request = AWSRequest(method=method, url=self.url(key), headers=headers | dict.fromkeys(forbidden, ""))
        Sealing(self.credentials, "s3", self.region, expires=300).add_auth(request)
        return request.url

    def put(self, key: str, body: bytes = BODY) -> Response:
        """Uploads with a URL that signs the same headers as the server's."""
        headers = upload_headers(BODY)
        url = self.sign("PUT", key, headers | {"content-length": str(len(body))})
        return send("PUT", url, headers, body)

    def read(self, key: str) -> dict | None:
        """Returns the object at the key: GetObject's members and `Bytes`. None if it cannot be read."""
        try:
            found = self.s3.get_object(Bucket=self.name, Key=key)
            return found | {"Bytes": found["Body"].read()}
        except ClientError:
            return None

    def is_public(self, key: str) -> bool:
        """Returns whether the object can be read without a signature."""
        return send("GET", self.url(key)).ok

    def begin(self, key: str, **members) -> str:
        return self.s3.create_multipart_upload(Bucket=self.name, Key=key, **members)["UploadId"]

    def parts(self, key: str, upload: str) -> list[dict]:
        return self.s3.list_parts(Bucket=self.name, Key=key, UploadId=upload).get("Parts", [])

    def complete(self, key: str, upload: str, **members) -> None:
        """Completes the upload with the listed parts, if there are any."""
        names = ("PartNumber", "ETag", "ChecksumSHA256")
        parts = [{name: part[name] for name in names if part.get(name)} for part in self.parts(key, upload)]
        if parts:
            whole = {"Parts": parts}
            self.s3.complete_multipart_upload(Bucket=self.name, Key=key, UploadId=upload, MultipartUpload=whole, **members)

    def abort(self, key: str, upload: str) -> None:
        try:
            self.s3.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)
        except ClientError:
            pass  # The upload was completed before.

    def keys(self) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return sorted(found["Key"] for page in pages for found in page.get("Contents", []))

    def open_uploads(self) -> list[str]:
        """Returns the keys of open multipart uploads; none if the store does not list them."""
        try:
            return [upload["Key"] for upload in self.s3.list_multipart_uploads(Bucket=self.name).get("Uploads") or []]
        except ClientError as error:
            if status_of(error) in (404, 405, 501):
                return []
            raise

    def empty(self) -> None:
        """Removes all versions of all objects, and open uploads."""
        for upload in self.s3.list_multipart_uploads(Bucket=self.name).get("Uploads") or []:
            self.abort(upload["Key"], upload["UploadId"])
        try:
            pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.name)
            found = [item for page in pages for item in page.get("Versions", []) + page.get("DeleteMarkers", [])]
            for item in found:
                self.s3.delete_object(Bucket=self.name, Key=item["Key"], VersionId=item["VersionId"])
        except ClientError:
            pass  # This store has no versions.
        for key in self.keys():
            self.s3.delete_object(Bucket=self.name, Key=key)


def upload_headers(body: bytes) -> dict[str, str]:
    """Returns the headers of an upload of these bytes, except the length."""
    return {"content-type": TYPE, "if-none-match": "*", "x-amz-checksum-sha256": sha256(body)}
