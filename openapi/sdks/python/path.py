"""openapi-python-client: types with attrs, calls with httpx."""

import hashlib
import os
import uuid
from base64 import b64encode
from pathlib import Path

import httpx
from valet_client import AuthenticatedClient, Client
from valet_client.api.accounts import get_me, log_in, log_out, refresh_session, sign_up
from valet_client.api.batches import confirm_uploads, create_uploads, delete_images
from valet_client.api.gallery import delete_image, get_image, list_images, update_image
from valet_client.api.uploads import confirm_upload, create_upload
from valet_client.models import (
    AuthSession,
    BatchUpload,
    GalleryImage,
    ImageIds,
    ImagePage,
    ImageType,
    ImageUpdate,
    NewUpload,
    PresignedRequest,
    Problem,
    RefreshToken,
    SignInCredentials,
    UploadBatch,
    UploadTicket,
)
from valet_client.types import UNSET

url = os.environ["VALET_URL"]
picture = Path(os.environ["VALET_PICTURE"]).read_bytes()


def put(request: PresignedRequest, content: bytes) -> int:
    """Sends the bytes with the method and the headers of the ticket, and no others."""
    return httpx.request(request.method, request.url, headers=request.headers.to_dict(), content=content).status_code


def new_picture() -> tuple[bytes, dict]:
    """A picture that was never uploaded before: bytes after the end of an image are accepted."""
    content = picture + uuid.uuid4().bytes
    digest = b64encode(hashlib.sha256(content).digest()).decode()
    return content, {"file_name": "beach.png", "content_type": ImageType.PNG, "size": len(content), "sha256": digest}


# Accounts.
credentials = SignInCredentials(email=f"{uuid.uuid4()}@example.com", password=f"four words {uuid.uuid4()}")
anonymous = Client(url)
assert isinstance(sign_up.sync(client=anonymous, body=credentials), AuthSession)
session = log_in.sync(client=anonymous, body=credentials)
assert isinstance(session, AuthSession) and session.user.email == credentials.email
refreshed = refresh_session.sync(client=anonymous, body=RefreshToken(session.refresh_token))
assert isinstance(refreshed, AuthSession) and refreshed.refresh_token != session.refresh_token
client = AuthenticatedClient(url, refreshed.token)


# From a file to an image.
def upload() -> tuple[GalleryImage, bytes]:
    content, declared = new_picture()
    ticket = create_upload.sync(client=client, body=NewUpload(**declared, caption="The sea"), idempotency_key=str(uuid.uuid4()))
    assert isinstance(ticket, UploadTicket) and ticket.state == "pending" and ticket.upload, ticket
    assert [put(ticket.upload, content), put(ticket.upload, content)] == [200, 412]
    image = confirm_upload.sync(ticket.id, client=client)
    assert isinstance(image, GalleryImage), image
    return image, content


first, content = upload()
second, _ = upload()

# The gallery, by pages.
seen, cursor = [], UNSET
while True:
    page = list_images.sync(client=client, limit=1, cursor=cursor)
    assert isinstance(page, ImagePage), page
    seen += [image.id for image in page.images]
    if not page.next_cursor:
        break
    cursor = page.next_cursor
assert seen == [second.id, first.id], seen

# Many at once.
pictures = [new_picture(), new_picture()]
opened = create_uploads.sync(client=client, body=UploadBatch([BatchUpload(**declared) for _, declared in pictures]))
assert [result.status for result in opened.results] == [201, 201], opened
tickets = [result.ticket for result in opened.results]
assert [put(ticket.upload, content) for ticket, (content, _) in zip(tickets, pictures)] == [200, 200]
ids = ImageIds([ticket.id for ticket in tickets])
assert [result.image.id for result in confirm_uploads.sync(client=client, body=ids).results] == ids.ids
assert [result.status for result in delete_images.sync(client=client, body=ids).results] == [204, 204]

# One image.
read = get_image.sync(first.id, client=client)
assert isinstance(read, GalleryImage) and read.caption == "The sea" and read.created_at.tzinfo
assert httpx.get(read.url).content == content
assert update_image.sync(first.id, client=client, body=ImageUpdate("The harbour")).caption == "The harbour"
assert get_me.sync(client=client).usage.images == 2
assert delete_image.sync_detailed(first.id, client=client).status_code == 204

# Problems.
missing = get_image.sync(first.id, client=client)
assert isinstance(missing, Problem) and missing.code == "not_found", missing
wrong = log_in.sync(client=anonymous, body=SignInCredentials(credentials.email, "not the password"))
assert isinstance(wrong, Problem) and wrong.code == "invalid_credentials", wrong
large = create_upload.sync(client=client, body=NewUpload(**new_picture()[1] | {"size": 2**50}))
assert isinstance(large, Problem) and large.code == "file_too_large" and large.errors[0].field == "size", large

assert log_out.sync_detailed(client=anonymous, body=RefreshToken(refreshed.refresh_token)).status_code == 204
assert get_me.sync(client=client).code == "session_ended"
