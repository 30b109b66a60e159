"""Each kind of signed request with each deviation from what was signed (docs/s3-compatibility.md), and what came of it."""

import dataclasses
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from botocore.exceptions import BotoCoreError, ClientError

from bucket import BODY, OTHER, TYPE, Bucket, Response, send, status_of, upload_headers

ALL = ("PUT", "preview PUT", "part", "part of any length", "create", "complete", "form", "GET")
NOTHING = "nothing"
# The doctor's words for a deviation, the rule that it belongs to, and the kinds of request for which it can mean something.
TABLE = {
    NOTHING: ("", ALL),
    "signature": ("upload_signature", ALL),
    "query": ("upload_signature", tuple(kind for kind in ALL if kind != "form")),
    "expired": ("upload_expiry", ALL),
    "length": ("upload_length", ("PUT", "preview PUT", "part")),
    "type": ("upload_type", ("PUT", "preview PUT", "form")),
    "copy source": ("upload_copy_source", ALL[:-1]),
    "ACL": ("upload_acl", ALL[:-1]),
    "grant": ("upload_acl", ("PUT", "preview PUT", "create", "form")),
    "metadata": ("upload_unsigned_headers", ("PUT", "create", "form")),
    "tags": ("upload_unsigned_headers", ("PUT", "create", "form")),
    "redirect": ("upload_unsigned_headers", ("PUT", "create", "form")),
    "SSE-C": ("upload_unsigned_headers", ("PUT", "part of any length", "create", "form")),
    "storage class": ("upload_unsigned_headers", ("PUT", "create", "form")),
}
RULES = sorted({rule for rule, _ in TABLE.values() if rule})
# A part is copied with a range or without one: stores differ in what they take.
RANGE = {"x-amz-copy-source-range": f"bytes=0-{len(OTHER) - 1}"}
# What a form's field is called where it is not the header's name.
FIELDS = {"x-amz-acl": "acl", "x-amz-tagging": "tagging"}
TAGS = "<Tagging><TagSet><Tag><Key>outside</Key><Value>yes</Value></Tag></TagSet></Tagging>"


class Lacking(Exception):
    """The store refuses this kind of request as it was signed."""


@dataclasses.dataclass
class Outcome:
    """What a store does about requests that are not as they were signed."""

    # (kind, deviation) of the requests that it obeyed.
    obeyed: set[tuple[str, str]]
    lacking: dict[str, str]
    # Anyone may read every object: whether one was published cannot be seen.
    is_open: bool

    def holds(self, rule: str) -> bool | None:
        """Whether the rule holds; None where it cannot be asked."""
        asked = {(kind, name) for name, (of, kinds) in TABLE.items() if of == rule for kind in kinds}
        if asked & self.obeyed:
            return False
        is_moot = rule == "upload_acl" and self.is_open
        return True if not is_moot and any(kind not in self.lacking for kind, _ in asked) else None

    def of(self, rule: str) -> set[tuple[str, str]]:
        return {(kind, name) for kind, name in self.obeyed if TABLE[name][0] == rule}


def named(seen: str) -> set[tuple[str, str]]:
    """The pairs of kind and deviation in what the doctor says it has seen."""
    kinds = "|".join(sorted(map(re.escape, ALL), key=len, reverse=True))
    names = "|".join(map(re.escape, TABLE))
    return set(re.findall(f"(?:^|; )({kinds}), ({names}): ", seen))


def ask_all(bucket: Bucket) -> Outcome:
    """Asks every question of the table, each with an object of its own."""
    source = bucket.prefix + "source"
    bucket.s3.put_object(Bucket=bucket.name, Key=source, Body=OTHER, ContentType=TYPE)
    questions = [(kind, name) for name, (_, kinds) in TABLE.items() for kind in kinds]
    is_open = bucket.is_public(source)
    outcome = Outcome(set(), {}, is_open)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda question: Trial(bucket, source, is_open, *question).run(), questions))
    for (kind, name), obeyed in zip(questions, found, strict=True):
        if name == NOTHING and not obeyed:
            outcome.lacking[kind] = "refused as it was signed"
        elif name != NOTHING and obeyed:
            outcome.obeyed.add((kind, name))
    return outcome


def added_headers(name: str, source: str) -> dict[str, str]:
    """The headers by which a request deviates."""
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
        self.ttl = 1 if name == "expired" else 300
        self.key = self.new_key()

    def new_key(self) -> str:
        end = "-preview" if self.kind == "preview PUT" else ""
        return f"{self.bucket.prefix}{self.kind}-{self.name}-{uuid.uuid4().hex[:8]}{end}".replace(" ", "-")

    def run(self) -> bool:
        """Whether the store obeyed; of no deviation, whether it took the request."""
        asks = {
            "PUT": self.ask_put,
            "preview PUT": self.ask_put,
            "part": self.ask_part,
            "part of any length": self.ask_part,
            "create": self.ask_create,
            "complete": self.ask_complete,
            "form": self.ask_form,
            "GET": self.ask_get,
        }
        try:
            return asks[self.kind]()
        except Lacking:
            return False
        except ClientError as error:
            # The calls around the question: 4xx and 501 say that the store has no such requests.
            if 400 <= status_of(error) < 500 or status_of(error) == 501:
                return False
            raise

    def sign(self, method: str, headers: dict[str, str] | None = None, query: str = "") -> str:
        url = self.bucket.sign(method, self.key, headers, query, self.ttl)
        if self.name == "signature":
            url = url[:-1] + ("1" if url[-1] == "0" else "0")
        if self.name == "query":
            url += "&response-content-disposition=inline"
        if self.name == "expired":
            time.sleep(3)
        return url

    def judge(self, response: Response) -> bool:
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

    def ask_put(self) -> bool:
        # A longer body has another checksum: the length alone is tried without one.
        headers = {} if self.name == "length" else upload_headers(BODY)
        url = self.sign("PUT", headers | {"content-length": str(len(BODY))})
        return self.judge(send("PUT", url, headers | self.added, self.body))

    def ask_part(self) -> bool:
        is_any = self.kind == "part of any length"
        upload = self.bucket.begin(self.key)
        try:
            signed = {} if is_any else {"content-length": str(len(BODY))}
            url = self.sign("PUT", signed, f"partNumber=1&uploadId={upload}")
            is_copy = self.name == "copy source"
            response = send("PUT", url, self.added, b"" if is_any and is_copy else self.body)
            if is_copy and not response.ok:
                response = send("PUT", url, self.added | RANGE, self.body)
            self.bucket.complete(self.key, upload)
            return self.judge(response)
        finally:
            self.bucket.abort(self.key, upload)

    def ask_create(self) -> bool:
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

    def ask_complete(self) -> bool:
        upload = self.bucket.begin(self.key)
        try:
            call = {"Bucket": self.bucket.name, "Key": self.key, "UploadId": upload}
            etag = self.bucket.s3.upload_part(**call, PartNumber=1, Body=BODY)["ETag"]
            part = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
            body = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode()
            return self.judge(send("POST", self.sign("POST", query=f"uploadId={upload}"), self.added, body))
        finally:
            self.bucket.abort(self.key, upload)

    def ask_form(self) -> bool:
        """The deviation as a field of the form, then as a header of its request: stores obey the one or the other."""
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
            time.sleep(3)
        return send_form(form["url"], signed | fields, headers)

    def ask_get(self) -> bool:
        self.key = self.source
        response = send("GET", self.sign("GET", query="response-cache-control=private&response-content-type=image%2Fpng"))
        return response.ok


def send_form(url: str, fields: dict[str, str], headers: dict[str, str]) -> Response:
    """Sends a form with BODY, as browsers do."""
    edge = uuid.uuid4().hex
    lines = [f'--{edge}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    file = f'--{edge}\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\ncontent-type: {TYPE}\r\n\r\n'
    body = "".join([*lines, file]).encode() + BODY + f"\r\n--{edge}--\r\n".encode()
    return send("POST", url, headers | {"content-type": f"multipart/form-data; boundary={edge}"}, body)
