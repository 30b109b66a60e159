"""Sends each kind of signed request with each deviation from its signature (docs/s3-compatibility.md), and reports the results."""

import dataclasses
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from botocore.exceptions import BotoCoreError, ClientError

from bucket import BODY, OTHER, TYPE, Bucket, Response, send, status_of, upload_headers

# Kinds of signed requests.
ALL_KINDS = ("PUT", "preview PUT", "part", "part of any length", "create", "complete", "form", "GET")
# Name of a request without a deviation.
NOTHING = "nothing"
# Deviations from the signature by their name in `valet check`: the rule that a store breaks by obeying it, and the kinds of request
# that are sent with it.
DEVIATIONS = {
    NOTHING: ("", ALL_KINDS),
    "signature": ("upload_signature", ALL_KINDS),
    "query": ("upload_signature", tuple(kind for kind in ALL_KINDS if kind != "form")),
    "expired": ("upload_expiry", ALL_KINDS),
    "length": ("upload_length", ("PUT", "preview PUT", "part")),
    "type": ("upload_type", ("PUT", "preview PUT", "form")),
    "copy source": ("upload_copy_source", ALL_KINDS[:-1]),
    "ACL": ("upload_acl", ALL_KINDS[:-1]),
    "grant": ("upload_acl", ("PUT", "preview PUT", "create", "form")),
    "metadata": ("upload_unsigned_headers", ("PUT", "create", "form")),
    "tags": ("upload_unsigned_headers", ("PUT", "create", "form")),
    "redirect": ("upload_unsigned_headers", ("PUT", "create", "form")),
    "SSE-C": ("upload_unsigned_headers", ("PUT", "part of any length", "create", "form")),
    "storage class": ("upload_unsigned_headers", ("PUT", "create", "form")),
}
# Time after which a URL with a lifetime of one second has expired, even if the clocks differ a little.
EXPIRY_SECONDS = 3
RULES = sorted({rule for rule, _ in DEVIATIONS.values() if rule})
# Header with which a part is copied, after an attempt without it: some stores require a range.
RANGE = {"x-amz-copy-source-range": f"bytes=0-{len(OTHER) - 1}"}
# Headers whose form field has another name.
FIELDS = {"x-amz-acl": "acl", "x-amz-tagging": "tagging"}
TAGS = "<Tagging><TagSet><Tag><Key>outside</Key><Value>yes</Value></Tag></TagSet></Tagging>"


@dataclasses.dataclass
class Outcome:
    """The reactions of a store to requests that deviate from their signature."""

    # (kind, deviation) of the requests whose deviation the store obeyed.
    obeyed: set[tuple[str, str]]
    # Kinds of request that the store refuses without any deviation, with the reason.
    unsupported: dict[str, str]
    # Whether every object is public, so that the effect of an ACL cannot be observed.
    is_open: bool

    def holds(self, rule: str) -> bool | None:
        """Returns whether the rule holds; None if it cannot be checked."""
        sent = {(kind, name) for name, (broken_rule, kinds) in DEVIATIONS.items() if broken_rule == rule for kind in kinds}
        if sent & self.obeyed:
            return False
        is_unobservable = rule == "upload_acl" and self.is_open
        return True if not is_unobservable and any(kind not in self.unsupported for kind, _ in sent) else None

    def obeyed_against(self, rule: str) -> set[tuple[str, str]]:
        """Returns the obeyed deviations of a rule."""
        return {(kind, name) for kind, name in self.obeyed if DEVIATIONS[name][0] == rule}


def reported_deviations(observation: str) -> set[tuple[str, str]]:
    """Returns the pairs of kind and deviation in the report of `valet check`."""
    kinds = "|".join(sorted(map(re.escape, ALL_KINDS), key=len, reverse=True))
    names = "|".join(map(re.escape, DEVIATIONS))
    return set(re.findall(f"(?:^|; )({kinds}), ({names}): ", observation))


def probe_all(bucket: Bucket) -> Outcome:
    """Sends every request of the table, each for a separate object."""
    source = bucket.prefix + "source"
    bucket.s3.put_object(Bucket=bucket.name, Key=source, Body=OTHER, ContentType=TYPE)
    probes = [(kind, name) for name, (_, kinds) in DEVIATIONS.items() for kind in kinds]
    is_open = bucket.is_public(source)
    outcome = Outcome(set(), {}, is_open)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda probe: Trial(bucket, source, is_open, *probe).run(), probes))
    for (kind, name), obeyed in zip(probes, found, strict=True):
        if name == NOTHING and not obeyed:
            outcome.unsupported[kind] = "refused as it was signed"
        elif name != NOTHING and obeyed:
            outcome.obeyed.add((kind, name))
    return outcome


def added_headers(name: str, source: str) -> dict[str, str]:
    """Returns the headers of a deviation."""
    everyone = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
    sse = "x-amz-server-side-encryption-customer-"
    return {
        "type": {"content-type": "text/html"},
        "copy source": {"x-amz-copy-source": source},
        "ACL": {"x-amz-acl": "public-read"},
        "grant": {"x-amz-grant-read": everyone},
        "metadata": {"x-amz-meta-outside": "yes"},
        "tags": {"x-amz-tagging": "outside=yes"},
        "redirect": {"x-amz-website-redirect-location": "https://example.com/"},
        # 32 times the letter k, and the MD5 of that.
        "SSE-C": {
            f"{sse}algorithm": "AES256",
            f"{sse}key": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=",
            f"{sse}key-md5": "mT2HRsMGJ5IX5C+0rreZ8Q==",
        },
        "storage class": {"x-amz-storage-class": "GLACIER"},
    }.get(name, {})


class Trial:
    """One kind of request with one deviation."""

    def __init__(self, bucket: Bucket, source: str, is_open: bool, kind: str, name: str):
        self.bucket, self.source, self.is_open, self.kind, self.name = bucket, source, is_open, kind, name
        self.added = added_headers(name, f"{bucket.name}/{source}")
        self.body = BODY + OTHER if name == "length" else BODY
        self.ttl = 1 if name == "expired" else 300  # seconds
        self.key = self.new_key()

    def new_key(self) -> str:
        suffix = "-preview" if self.kind == "preview PUT" else ""
        return f"{self.bucket.prefix}{self.kind}-{self.name}-{uuid.uuid4().hex[:8]}{suffix}".replace(" ", "-")

    def run(self) -> bool:
        """Returns whether the store obeyed the deviation; without one, whether it accepted the request."""
        probe_by_kind = {
            "PUT": self.probe_put,
            "preview PUT": self.probe_put,
            "part": self.probe_part,
            "part of any length": self.probe_part,
            "create": self.probe_create,
            "complete": self.probe_complete,
            "form": self.probe_form,
            "GET": self.probe_get,
        }
        try:
            return probe_by_kind[self.kind]()
        except ClientError as error:
            # A call that prepares the probe failed: after 4xx and 501 the store does not support such requests.
            if 400 <= status_of(error) < 500 or status_of(error) == 501:
                return False
            raise

    def sign(self, method: str, headers: dict[str, str] | None = None, query: str = "") -> str:
        """Presigns a request, and changes its URL or waits until it has expired if that is the deviation."""
        url = self.bucket.sign(method, self.key, headers, query, self.ttl)
        if self.name == "signature":
            url = url[:-1] + ("1" if url[-1] == "0" else "0")
        if self.name == "query":
            url += "&response-content-disposition=inline"
        if self.name == "expired":
            time.sleep(EXPIRY_SECONDS)
        return url

    def judge(self, response: Response) -> bool:
        """Returns whether the store obeyed the deviation; without one, whether it stored the object."""
        found = self.bucket.read(self.key)
        match self.name:
            case "nothing":
                return response.ok and found is not None
            case "copy source":
                return found is not None and found["Bytes"] == OTHER
            case "ACL" | "grant":
                return not self.is_open and self.bucket.is_public(self.key)
            case "metadata":
                return found is not None and "outside" in found["Metadata"]
            case "tags":
                return found is not None and self.has_tags()
            case "redirect":
                return found is not None and "WebsiteRedirectLocation" in found
            case "SSE-C" | "storage class":
                return response.ok and found is None
            case _:
                return response.ok or found is not None

    def has_tags(self) -> bool:
        try:
            return bool(self.bucket.s3.get_object_tagging(Bucket=self.bucket.name, Key=self.key).get("TagSet"))
        except (ClientError, BotoCoreError):
            return False

    def probe_put(self) -> bool:
        # A longer body has another checksum, so the length alone is tested without a checksum.
        headers = {} if self.name == "length" else upload_headers(BODY)
        url = self.sign("PUT", headers | {"content-length": str(len(BODY))})
        return self.judge(send("PUT", url, headers | self.added, self.body))

    def probe_part(self) -> bool:
        has_any_length = self.kind == "part of any length"
        upload = self.bucket.begin(self.key)
        try:
            signed = {} if has_any_length else {"content-length": str(len(BODY))}
            url = self.sign("PUT", signed, f"partNumber=1&uploadId={upload}")
            is_copy = self.name == "copy source"
            response = send("PUT", url, self.added, b"" if has_any_length and is_copy else self.body)
            if is_copy and not response.ok:
                response = send("PUT", url, self.added | RANGE, self.body)
            self.bucket.complete(self.key, upload)
            return self.judge(response)
        finally:
            self.bucket.abort(self.key, upload)

    def probe_create(self) -> bool:
        response = send("POST", self.sign("POST", query="uploads="), self.added)
        opened = re.search(rb"<UploadId>([^<]+)</UploadId>", response.body)
        if not (response.ok and opened):
            return self.judge(response)
        upload = opened[1].decode()
        try:
            send("PUT", self.bucket.sign("PUT", self.key, query=f"partNumber=1&uploadId={upload}"), body=BODY)
            self.bucket.complete(self.key, upload)
            return self.judge(response)
        finally:
            self.bucket.abort(self.key, upload)

    def probe_complete(self) -> bool:
        upload = self.bucket.begin(self.key)
        try:
            call = {"Bucket": self.bucket.name, "Key": self.key, "UploadId": upload}
            etag = self.bucket.s3.upload_part(**call, PartNumber=1, Body=BODY)["ETag"]
            part = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
            body = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode()
            return self.judge(send("POST", self.sign("POST", query=f"uploadId={upload}"), self.added, body))
        finally:
            self.bucket.abort(self.key, upload)

    def probe_form(self) -> bool:
        """Sends the deviation as a field of the form, then as a header of its request: stores obey one or the other."""
        as_field = {}
        for name, value in self.added.items():
            as_field["Content-Type" if name == "content-type" else FIELDS.get(name, name)] = (
                TAGS if name == "x-amz-tagging" else value
            )
        if self.judge(self.send_form(as_field, {})):
            return True
        as_header = {name: value for name, value in self.added.items() if name.startswith("x-amz-")}
        if not as_header:
            return False
        self.key = self.new_key()
        return self.judge(self.send_form({}, as_header))

    def send_form(self, fields: dict[str, str], headers: dict[str, str]) -> Response:
        form = self.bucket.s3.generate_presigned_post(
            self.bucket.name,
            self.key,
            Fields={"Content-Type": TYPE, "success_action_status": "201"},
            Conditions=[{"Content-Type": TYPE}, {"success_action_status": "201"}, ["content-length-range", 1, len(BODY)]],
            ExpiresIn=self.ttl,
        )
        signed = form["fields"]
        if self.name == "signature":
            end = signed["x-amz-signature"][-1]
            signed["x-amz-signature"] = signed["x-amz-signature"][:-1] + ("1" if end == "0" else "0")
        if self.name == "expired":
            time.sleep(EXPIRY_SECONDS)
        return send_form(form["url"], signed | fields, headers)

    def probe_get(self) -> bool:
        self.key = self.source
        response = send("GET", self.sign("GET", query="response-cache-control=private&response-content-type=image%2Fpng"))
        return response.ok


def send_form(url: str, fields: dict[str, str], headers: dict[str, str]) -> Response:
    """Sends a form with BODY, as browsers do."""
    boundary = uuid.uuid4().hex
    lines = [f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    file = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\ncontent-type: {TYPE}\r\n\r\n'
    body = "".join([*lines, file]).encode() + BODY + f"\r\n--{boundary}--\r\n".encode()
    return send("POST", url, headers | {"content-type": f"multipart/form-data; boundary={boundary}"}, body)
