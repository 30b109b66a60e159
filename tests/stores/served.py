"""Checks the URLs that `valet serve` issues on the store: sends them with headers and bodies that they were not signed for."""

import json
import os
import re
import struct
import subprocess
import tempfile
import time
import urllib.parse
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Self

from bucket import Response, send, sha256
from deviations import added_headers

REFUSED = "not_supported_by_store"


def png() -> bytes:
    """Returns a small unique image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + os.urandom(24) for _ in range(8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Server:
    """Runs a `valet serve` for as long as the context lasts."""

    def __init__(self, valet: str, settings: dict[str, str]):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 (closed when the server has ended)
        settings = os.environ | settings | {"BIND": "127.0.0.1:0", "RATE_LIMIT": "off", "LOG_FORMAT": "text"}
        self.process = subprocess.Popen([valet, "serve"], env=settings, stdout=self.log, stderr=self.log)

    def __enter__(self) -> Self:
        for _ in range(1200):
            listening = re.search(r"listening.* address=(\S+)", Path(self.log.name).read_text())
            if listening and send("GET", f"http://{listening[1]}/readyz").ok:
                self.address = f"http://{listening[1]}"
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        output = Path(self.log.name).read_text()
        self.__exit__()
        raise SystemExit(f"valet serve does not start: {output[-2000:]}")

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()

    def call(self, method: str, path: str, token: str = "", body: dict | Callable[[], dict] | None = None) -> tuple[int, dict]:
        """Calls the API, up to ten times while the server answers that it is too busy. `body` may be a function, for each call."""
        headers = {"content-type": "application/json"} if body is not None else {}
        headers |= {"authorization": f"Bearer {token}"} if token else {}
        for repeats_left in reversed(range(10)):
            data = b"" if body is None else json.dumps(body() if callable(body) else body).encode()
            answer = send(method, self.address + path, headers, data)
            if answer.status not in (503, 504) or not repeats_left:
                break
            time.sleep(0.5)
        return answer.status, json.loads(answer.body or b"{}")

    def user(self) -> "User":
        # A sign-up without an answer may have used its address, so a repeat has another one.
        def account() -> dict:
            return {"email": f"{uuid.uuid4().hex}@example.com", "password": "seven green kites over the bay"}

        return User(self, self.call("POST", "/api/auth/signup", body=account)[1]["token"])


class User:
    """An account of the server, with its access token."""

    def __init__(self, server: Server, token: str):
        self.server, self.token = server, token

    def call(self, method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
        return self.server.call(method, path, self.token, body)

    def declare(self, data: bytes) -> tuple[int, dict]:
        declared = {"fileName": "a.png", "contentType": "image/png", "size": len(data), "sha256": sha256(data)}
        return self.call("POST", "/api/images/upload", declared)

    def upload(self, data: bytes) -> dict:
        """Uploads and confirms an image of these bytes."""
        ticket = self.declare(data)[1]
        put(ticket, data)
        status, image = self.confirm(ticket)
        if status != 200:
            raise SystemExit(f"an upload cannot be confirmed: HTTP {status} {image.get('code')}")
        return image

    def confirm(self, ticket: dict) -> tuple[int, dict]:
        return self.call("POST", f"/api/images/{ticket['id']}/confirm")

    def bytes_of(self, ticket: dict) -> bytes | None:
        """Returns the bytes at the image's URL; None while it is not ready."""
        status, image = self.call("GET", f"/api/images/{ticket['id']}")
        return send("GET", image["url"]).body if status == 200 and "url" in image else None


def put(ticket: dict, data: bytes, **changed: str) -> Response:
    """Sends the ticket's PUT with these headers added or replaced."""
    return send("PUT", ticket["upload"]["url"], ticket["upload"]["headers"] | changed, data)


def find_faults(server: Server, obeyed: set[tuple[str, str]], is_open: bool) -> list[str]:
    """Returns the faults of the URLs that the server issues on this store. `obeyed` are the deviations that the store obeys."""
    victim, attacker = server.user(), server.user()
    secret = png()
    status, answer = attacker.declare(png())
    if status != 201:
        # The server may refuse to issue a PUT only if the store obeys an unsigned header, and with this code.
        has_cause = any(kind in ("PUT", "preview PUT") and name in ("copy source", "ACL", "grant") for kind, name in obeyed)
        return [] if answer.get("code") == REFUSED and has_cause else [f"an upload is answered {status} {answer.get('code')}"]
    found = check_uploads_without_digest(attacker, any(name in ("copy source", "ACL", "grant") for _, name in obeyed))
    path = urllib.parse.unquote(urllib.parse.urlsplit(victim.upload(secret)["url"]).path)
    for name in ("copy source", "ACL", "grant"):
        found += check_deviation(attacker, name, path, is_open)
    return found + check_other_uploads(attacker) + check_replacement(attacker)


def check_uploads_without_digest(user: User, must_refuse: bool) -> list[str]:
    """Returns a fault unless uploads without a digest are refused exactly if the store obeys headers that copy or publish."""
    status, answer = user.call("POST", "/api/images/multipart", {"fileName": "a.png", "contentType": "image/png", "size": 6 << 20})
    if (status == 409 and answer.get("code") == REFUSED) == must_refuse and status in (201, 409):
        return []
    return [f"an upload in parts is answered {status} {answer.get('code', '')}"]


def check_deviation(user: User, name: str, path: str, is_open: bool) -> list[str]:
    """Returns the faults of a PUT with an unsigned header; `path` is that of another user's image in the store."""
    data = png()
    ticket = user.declare(data)[1]
    answers = [put(ticket, body, **added_headers(name, path)).status for body in (data, b"")]
    is_public = not is_open and send("GET", ticket["upload"]["url"].split("?")[0]).ok
    user.confirm(ticket)
    seen = user.bytes_of(ticket)
    found = [f"a PUT with an unsigned {name} ({answers}) publishes what it writes"] if is_public else []
    return found + (
        [f"a PUT with an unsigned {name} ({answers}) is confirmed with other bytes"] if seen not in (None, data) else []
    )


def check_other_uploads(user: User) -> list[str]:
    """Returns a fault for each upload of other bytes, of more bytes or of another type that is confirmed."""
    found = []
    for what, change, headers in (
        ("other bytes", lambda data: data[:-1] + b"\0", {}),
        ("more bytes", lambda data: data + b"\0", {}),
        ("another type", lambda data: data, {"content-type": "text/html"}),
    ):
        data = png()
        ticket = user.declare(data)[1]
        answer = put(ticket, change(data), **headers).status
        status, _ = user.confirm(ticket)
        found += [f"an upload of {what} (HTTP {answer}) is confirmed"] if status == 200 else []
    return found


def check_replacement(user: User) -> list[str]:
    """Returns a fault if the URL of an upload can change the confirmed image."""
    data = png()
    ticket = user.declare(data)[1]
    put(ticket, data)
    status, _ = user.confirm(ticket)
    answers = [put(ticket, body).status for body in (data, data[:-1] + b"\0", png())]
    return [] if status == 200 and user.bytes_of(ticket) == data else [f"a confirmed image is not what was confirmed ({answers})"]
