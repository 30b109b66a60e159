// An example of an app's backend: it signs the app's users in to Valet, and receives webhooks. docs/backend.md explains it.
//     npm install && VALET_URL=… VALET_KEY=vk_… VALET_WEBHOOK_SECRET=whsec_… PORT=8080 node backend.mjs
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const { VALET_URL, VALET_KEY, VALET_WEBHOOK_SECRET, PORT } = process.env;
const webhook = new Webhook(VALET_WEBHOOK_SECRET);
const images = new Map(); // Ready images by id. An app keeps them in its database,
const received = new Set(); // and the ids of messages in the same transaction.

// Stands for the app's own authentication: returns its id of the user who sends the request, or undefined.
const sessions = new Map([["session-of-ada", "ada"], ["session-of-eve", "eve"]]);
const userOf = (request) => sessions.get(request.headers["x-session"]);

// POST /valet-token: a token with which the user's client uploads to Valet.
async function createToken(request, respond) {
  const subject = userOf(request);
  if (!subject) return respond(401);
  const answer = await fetch(`${VALET_URL}/api/admin/tokens`, {
    method: "POST",
    headers: { authorization: `Bearer ${VALET_KEY}`, "content-type": "application/json" },
    body: JSON.stringify({ subject, expiresIn: 3600 }),
  });
  if (!answer.ok) return respond(503);
  const { token, expiresIn } = await answer.json();
  respond(200, { token, expiresIn });
}

// POST /hooks/valet: messages of Valet. Any 2xx ends their delivery; everything else repeats it later.
async function receive(request, respond) {
  let body = "";
  for await (const chunk of request.setEncoding("utf8")) if ((body += chunk).length > 65_536) return respond(413);
  let message;
  try {
    message = webhook.verify(body, request.headers);
  } catch {
    return respond(401);
  }
  if (!received.has(request.headers["webhook-id"])) {
    received.add(request.headers["webhook-id"]);
    if (message.type === "image.ready") images.set(message.data.id, message.data);
    if (message.type === "image.deleted") images.delete(message.data.id);
  }
  respond(204);
}

// GET /images: the user's images, as the app knows them.
async function list(request, respond) {
  const subject = userOf(request);
  respond(subject ? 200 : 401, [...images.values()].filter((image) => image.subject === subject));
}

const routes = { "POST /valet-token": createToken, "POST /hooks/valet": receive, "GET /images": list };
createServer((request, response) => {
  const respond = (status, json) => response.writeHead(status, { "content-type": "application/json" }).end(json && JSON.stringify(json));
  const handle = routes[`${request.method} ${request.url}`] ?? (async () => respond(404));
  handle(request, respond).catch(() => respond(500));
}).listen(PORT, "127.0.0.1");
