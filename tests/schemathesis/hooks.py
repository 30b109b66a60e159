"""Completes requests that are meant to be valid with values that no schema can express, and PUTs the announced bytes, so that calls
for stored images are covered too."""

import base64
import functools
import hashlib
import os
import re
import uuid
from pathlib import Path

import requests
import schemathesis
from schemathesis import GenerationMode

# Cursors of a page, which requests that follow links pass on: 24 bytes of position and 8 of checksum, in base64url.
CURSOR = re.compile("[0-9A-Za-z_-]{43}")
PICTURE = Path(os.environ["VALET_FIXTURES"], "palette.png").read_bytes()
# Bytes of the announced pictures, by their digest.
ANNOUNCED: dict[str, bytes] = {}


def is_meant_to_be_valid(case) -> bool:
    return case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE


def operation_id(case) -> str:
    return case.operation.definition.raw.get("operationId", "")


@schemathesis.hook
def map_case(context, case):
    if not is_meant_to_be_valid(case):
        return case
    # Uppy's calls have their token in the path.
    if "token" in (case.path_parameters or {}):
        case.path_parameters["token"] = uppy_token()
    # A cursor is opaque: the server rejects an invented one with 400 `invalid_cursor`.
    if "cursor" in (case.query or {}) and not CURSOR.fullmatch(str(case.query["cursor"])):
        del case.query["cursor"]
    # Each request gets its own key: keys that differ only in outer white space or quotes are the same key.
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if isinstance(case.body, dict):
        match operation_id(case):
            case "create_upload":
                announce(case.body)
            case "create_uploads":
                for item in case.body["items"]:
                    if "idempotencyKey" in item:
                        item["idempotencyKey"] = str(uuid.uuid4())
            case "sign_uppy_request":
                complete_s3_call(case.body)
            case "delete_account":
                # Only users of an identity provider have no password.
                case.body.setdefault("password", "not the password")
    return case


@functools.cache
def uppy_token() -> str:
    """Returns a token for the path of Uppy's calls, of a separate user."""
    url = os.environ["VALET_URL"]
    credentials = {"email": f"uppy-{uuid.uuid4().hex}@example.com", "password": f"four random words {uuid.uuid4().hex}"}
    session = requests.post(f"{url}/api/auth/signup", json=credentials, timeout=120).json()
    bearer = {"authorization": f"Bearer {session['token']}"}
    return requests.post(f"{url}/api/uppy/session", headers=bearer, timeout=120).json()["token"]


def announce(upload: dict) -> None:
    """Completes a declaration for a unique picture, whose bytes `after_call` sends: bytes after an image's end are legal."""
    content = PICTURE + uuid.uuid4().bytes
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    ANNOUNCED[digest] = content
    upload |= {"contentType": "image/png", "size": len(content), "sha256": digest}


def complete_s3_call(body: dict) -> None:
    """Makes the description of a call to S3 consistent: the PUT of a part has the upload's id and the part's number; other calls have no
    number, and GET and DELETE need the upload's id."""
    if body["method"] != "PUT" or "uploadId" not in body:
        body.pop("partNumber", None)
    elif "partNumber" not in body:
        body["partNumber"] = 1
    if body["method"] in ("GET", "DELETE"):
        body.setdefault("uploadId", str(uuid.uuid4()))


@schemathesis.hook
def after_call(context, case, response):
    if operation_id(case) != "create_upload" or response.status_code != 201:
        return
    put = response.json()["upload"]
    content = ANNOUNCED.get(put["headers"]["x-amz-checksum-sha256"])
    if content is not None:
        requests.put(put["url"], data=content, headers=put["headers"], timeout=120).raise_for_status()


@schemathesis.check
def an_item_is_refused(ctx, response, case):
    """In a batch each item has its own status: the answer is 200 even if an item is not acceptable."""
    if operation_id(case) == "create_uploads" and not is_meant_to_be_valid(case) and response.status_code == 200:
        assert any(result["status"] >= 400 for result in response.json()["results"]), "every item was accepted"
