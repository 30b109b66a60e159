# An example of an app's backend: it signs the app's users in to Valet, and receives webhooks. docs/backend.md explains it.
#     pip install -r requirements.txt && VALET_URL=… VALET_KEY=vk_… VALET_WEBHOOK_SECRET=whsec_… PORT=8080 python backend.py
import json, os, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["VALET_WEBHOOK_SECRET"])
images = {}  # Ready images by id. An app keeps them in its database,
received = set()  # and the ids of messages in the same transaction.
SESSIONS = {"session-of-ada": "ada", "session-of-eve": "eve"}  # Stands for the app's own authentication.


class Backend(BaseHTTPRequestHandler):
    def user(self):
        return SESSIONS.get(self.headers["x-session"])

    def respond(self, status, value=None):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        if self.path == "/valet-token":  # A token with which the user's client uploads to Valet.
            if not self.user():
                return self.respond(401)
            request = urllib.request.Request(os.environ["VALET_URL"] + "/api/admin/tokens", method="POST")
            request.add_header("authorization", "Bearer " + os.environ["VALET_KEY"])
            request.add_header("content-type", "application/json")
            try:
                with urllib.request.urlopen(request, json.dumps({"subject": self.user(), "expiresIn": 3600}).encode(), 10) as answer:
                    session = json.load(answer)
            except urllib.error.URLError:
                return self.respond(503)
            return self.respond(200, {"token": session["token"], "expiresIn": session["expiresIn"]})
        if self.path == "/hooks/valet":  # Messages of Valet. Any 2xx ends their delivery; everything else repeats it later.
            body = self.rfile.read(min(int(self.headers["content-length"] or 0), 65_536))
            try:
                message = webhook.verify(body, dict(self.headers))
            except (WebhookVerificationError, ValueError):
                return self.respond(401)
            if self.headers["webhook-id"] not in received:
                received.add(self.headers["webhook-id"])
                if message["type"] == "image.ready":
                    images[message["data"]["id"]] = message["data"]
                if message["type"] == "image.deleted":
                    images.pop(message["data"]["id"], None)
            return self.respond(204)
        return self.respond(404)

    def do_GET(self):  # GET /images: the user's images, as the app knows them.
        if self.path != "/images" or not self.user():
            return self.respond(401 if self.path == "/images" else 404)
        return self.respond(200, [image for image in images.values() if image.get("subject") == self.user()])


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Backend).serve_forever()
