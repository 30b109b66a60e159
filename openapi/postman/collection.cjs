// Makes the Postman collection from the OpenAPI document:
//     .ci/postman update
// openapi-to-postmanv2 makes a request for every operation. This script adds the document's examples (the converter invents random
// values), signing in by collection variables, scripts that save ids and tokens for later requests, a first folder that goes from
// sign-up to deletion and asserts each step, and scripts in the other folders that create missing data of a request (an account, an
// image, a multipart upload). Each request works alone, and the collection runs as a whole.

const { readFileSync } = require("node:fs");
const { convertV2 } = require("openapi-to-postmanv2");

const document = JSON.parse(readFileSync(process.argv[2], "utf8"));

const variables = {
  baseUrl: "http://127.0.0.1:3000",
  email: "",
  password: "three small blue boats",
  newPassword: "seven green kites over the bay",
  token: "",
  refreshToken: "",
  sessionId: "",
  serviceKey: "",
  userId: "",
  imageId: "",
  uploadId: "",
  uppyToken: "",
  uppyKey: "",
  uppyUploadId: "",
  uppyPart: "",
  ticket: "",
  content: "",
  size: "",
  sha256: "",
};

/** Scripts that save values of a response for later requests. */
const savingScripts = {
  session: `const session = pm.response.json();
if (session.token) {
    pm.collectionVariables.set("token", session.token);
    pm.collectionVariables.set("refreshToken", session.refreshToken);
}`,
  upload: `const ticket = pm.response.json();
if (ticket.id) pm.collectionVariables.set("imageId", ticket.id);
if (ticket.upload) pm.collectionVariables.set("ticket", JSON.stringify(ticket.upload));`,
  multipart: `if (pm.response.json().id) pm.collectionVariables.set("uploadId", pm.response.json().id);`,
  sessions: `const other = (pm.response.json().sessions ?? []).find((session) => !session.current);
if (other) pm.collectionVariables.set("sessionId", other.id);`,
};
/** Script that runs after every request of an operation, in all folders. */
const scriptAfter = {
  sign_up: savingScripts.session,
  log_in: savingScripts.session,
  refresh_session: savingScripts.session,
  create_upload: savingScripts.upload,
  renew_upload: savingScripts.upload,
  create_multipart_upload: savingScripts.multipart,
  list_sessions: savingScripts.sessions,
  create_uppy_session: `pm.collectionVariables.set("uppyToken", pm.response.json().token);`,
};

/** Bodies of requests that differ from the document's examples. */
const bodies = {
  sign_up: { email: "{{email}}", password: "{{password}}" },
  log_in: { email: "{{email}}", password: "{{password}}" },
  refresh_session: { refreshToken: "{{refreshToken}}" },
  log_out: { refreshToken: "{{refreshToken}}" },
  delete_account: { password: "{{password}}" },
  change_password: { currentPassword: "{{password}}", newPassword: "{{newPassword}}" },
  create_upload: `{\n  "fileName": "pixel.gif",\n  "contentType": "image/gif",\n  "size": {{size}},\n  "sha256": "{{sha256}}",\n  "caption": "The sea"\n}`,
  sign_uppy_request: { method: "PUT", key: "beach.jpg", contentType: "image/jpeg", fileName: "beach.jpg", size: 2482113 },
  uppy_complete_multipart: { parts: [{ PartNumber: 1, ETag: "{{uppyPart}}" }] },
};
/** Variables of path parameters: for all operations, and for those whose `id` is not an image's. */
const parameters = { id: "{{imageId}}", user: "{{userId}}", image: "{{imageId}}", token: "{{uppyToken}}", uploadId: "{{uppyUploadId}}", partNumber: "1" };
const ids = {
  end_session: "{{sessionId}}",
  sign_parts: "{{uploadId}}",
  list_parts: "{{uploadId}}",
};
/** Query parameters to send. */
const queries = { key: "{{uppyKey}}", partNumbers: "1", filename: "beach.jpg", type: "image/jpeg" };

/** Data that must exist before a request of an operation. Other operations need only a session. */
const needs = {
  sign_up: ["stranger"],
  log_in: ["account"],
  get_liveness: [],
  get_readiness: [],
  end_session: ["session", "otherSession"],
  create_upload: ["session", "picture"],
  renew_upload: ["session", "upload"],
  confirm_upload: ["session", "bytes"],
  renew_uploads: ["session", "upload"],
  confirm_uploads: ["session", "bytes"],
  read_images: ["session", "image"],
  delete_images: ["session", "image"],
  get_image: ["session", "image"],
  update_image: ["session", "image"],
  delete_image: ["session", "image"],
  download_image: ["session", "image"],
  sign_parts: ["session", "multipart"],
  list_parts: ["session", "multipart"],
  delete_user_image: ["serviceKey", "appUser", "image"],
  uppy_form: ["session", "uppy"],
  uppy_create_multipart: ["session", "uppy"],
  uppy_list_parts: ["session", "uppy", "uppyMultipart"],
  uppy_abort_multipart: ["session", "uppy", "uppyMultipart"],
  uppy_sign_part: ["session", "uppy", "uppyMultipart"],
  uppy_sign_parts: ["session", "uppy", "uppyMultipart"],
  uppy_complete_multipart: ["session", "uppy", "uppyMultipart", "uppyPart"],
};
/** Variables that are invalid after an operation has succeeded. */
const ends = {
  log_out: ["token", "refreshToken", "uppyToken"],
  delete_account: ["token", "refreshToken", "uppyToken", "email", "imageId", "ticket", "uploadId", "uppyKey"],
  end_session: ["sessionId"],
  delete_image: ["imageId", "ticket"],
  delete_images: ["imageId", "ticket"],
  uppy_abort_multipart: ["uppyKey", "uppyPart"],
  uppy_complete_multipart: ["uppyKey", "uppyPart"],
};

const lines = (text) => text.split("\n");
const script = (listen, text) => ({ listen, script: { type: "text/javascript", exec: lines(text) } });
const json = (value) => ({ mode: "raw", raw: JSON.stringify(value, null, 2), options: { raw: { language: "json" } } });

/** Returns the operation of a converted request. */
function operationOf({ method, url }) {
  const path = `/${url.path.map((part) => part.replace(/^:(.*)$/, "{$1}")).join("/")}`;
  return document.paths[path][method.toLowerCase()];
}

/** Returns whether an app's backend calls the operation, with a service key. */
const isOfBackend = ({ security }) => security.some((scheme) => "serviceKey" in scheme);

/** Returns whether the response goes on for half an hour, for which a run of the collection would wait. */
const isStream = ({ responses }) => Boolean(responses[200]?.content?.["text/event-stream"]);

/** Returns the operation's id and the collection's request, made from a converted request and the document's examples. */
function describe(item) {
  const operation = operationOf(item.request);
  const id = operation.operationId;
  const { method, url, description } = item.request;
  const request = { method, description, url: { ...url, host: ["{{baseUrl}}"] }, header: [] };
  request.url.raw = `{{baseUrl}}/${url.path.join("/")}`;
  request.url.variable = url.variable?.map(({ key, description }) => ({ key, description, value: (key === "id" && ids[id]) || parameters[key] }));
  const queryParameter = (key, description) => (queries[key] ? { key, description, value: queries[key] } : { key, description, value: key === "limit" ? "50" : "", disabled: true });
  request.url.query = url.query?.map(({ key, description }) => queryParameter(key, description));
  for (const { name, in: place, description } of operation.parameters ?? []) {
    if (place === "header") request.header.push({ key: name, value: name === "Idempotency-Key" ? "{{$guid}}" : "", description, disabled: true });
  }
  if (operation.security.length === 0) request.auth = { type: "noauth" };
  if (isOfBackend(operation)) request.auth = { type: "bearer", bearer: [{ key: "token", value: "{{serviceKey}}", type: "string" }] };
  const example = operation.requestBody?.content["application/json"]?.example;
  if (example) {
    request.header.push({ key: "Content-Type", value: "application/json" });
    request.body = typeof bodies[id] === "string" ? { ...json({}), raw: bodies[id] } : json(bodies[id] ?? withIds(example));
  }
  const made = { name: item.name, request, response: answersOf(operation, request) };
  if (scriptAfter[id]) made.event = [script("test", `if (pm.response.code < 300) {\n${scriptAfter[id].replace(/^/gm, "    ")}\n}`)];
  return [id, made];
}

/** Returns an example in which the saved image replaces the ids, if it has any. */
const withIds = (example) => (example.ids ? { ids: ["{{imageId}}"] } : example);

/** Returns the document's examples of successful responses. */
function answersOf(operation, originalRequest) {
  return Object.entries(operation.responses)
    .filter(([status]) => status.startsWith("2"))
    .map(([status, { description, content }]) => {
      const example = content?.["application/json"]?.example;
      return {
        name: description.split("\n")[0],
        originalRequest,
        code: Number(status),
        header: example ? [{ key: "Content-Type", value: "application/json" }] : [],
        body: example ? JSON.stringify(example, null, 2) : "",
        _postman_previewlanguage: "json",
      };
    });
}

// A GIF of one pixel, all ASCII, so that the file fits into a variable; data after its end is accepted and makes its bytes new.
// To upload another file in Postman, choose it as the binary body of the PUT, and declare its length and digest when you open the
// upload.
const PICTURE = `const gif = "GIF89a\\x01\\x00\\x01\\x00\\x00\\x00\\x00\\x2c\\x00\\x00\\x00\\x00\\x01\\x00\\x01\\x00\\x00\\x02\\x02\\x4c\\x01\\x00\\x3b";
const content = gif + pm.variables.replaceIn("{{$guid}}");
const digest = require("crypto-js").SHA256(require("crypto-js").enc.Latin1.parse(content));
pm.collectionVariables.set("content", content);
pm.collectionVariables.set("size", content.length);
pm.collectionVariables.set("sha256", digest.toString(require("crypto-js").enc.Base64));`;

/** Returns the script that runs before each request of a folder and creates the missing data. */
const prepare = (needed) => `const needed = ${JSON.stringify(needed, null, 4)}[pm.info.requestName] ?? ["session"];
const variables = pm.collectionVariables;
const has = (name) => Boolean(variables.get(name));
// The operator creates service keys: valet key create.
if (needed.includes("serviceKey") && !has("serviceKey")) pm.execution.skipRequest();
const send = (request) => new Promise((done, fail) => pm.sendRequest(request, (error, answer) => {
    // 412: the bytes are there already.
    const isWell = !error && (answer.code < 300 || answer.code === 412);
    isWell ? done(answer) : fail(error ?? new Error("preparing: " + request.url + " was answered with " + answer.code + " " + answer.text()));
}));
const call = async (method, path, body) => {
    const header = { "Content-Type": "application/json" };
    if (has("token")) header.Authorization = "Bearer " + variables.get("token");
    const url = pm.variables.replaceIn("{{baseUrl}}") + path;
    return (await send({ method, url, header, body: body && { mode: "raw", raw: JSON.stringify(body) } })).json();
};
const enter = (session) => {
    variables.set("token", session.token);
    variables.set("refreshToken", session.refreshToken);
};
const stranger = () => variables.set("email", pm.variables.replaceIn("{{$guid}}@example.com"));
const credentials = () => ({ email: variables.get("email"), password: variables.get("password") });
const make = {
    stranger,
    serviceKey: () => {},
    appUser: async () => {
        const header = { "Content-Type": "application/json", Authorization: "Bearer " + variables.get("serviceKey") };
        const url = pm.variables.replaceIn("{{baseUrl}}") + "/api/admin/tokens";
        const body = { mode: "raw", raw: JSON.stringify({ subject: pm.variables.replaceIn("{{$guid}}") }) };
        const { token, user } = (await send({ method: "POST", url, header, body })).json();
        variables.set("userId", user.id);
        // An image of this user is created with this token.
        for (const name of ["imageId", "ticket"]) variables.set(name, "");
        variables.set("token", token);
    },
    account: async () => {
        if (has("email")) return;
        stranger();
        enter(await call("POST", "/api/auth/signup", credentials()));
    },
    session: async () => {
        await make.account();
        if (!has("token")) enter(await call("POST", "/api/auth/login", credentials()));
    },
    otherSession: async () => {
        if (has("sessionId")) return;
        await call("POST", "/api/auth/login", credentials());
        const { sessions } = await call("GET", "/api/auth/sessions");
        variables.set("sessionId", sessions.find((session) => !session.current).id);
    },
    picture: () => {
${PICTURE.replace(/^/gm, "        ")}
    },
    upload: async () => {
        if (has("imageId")) return;
        make.picture();
        const declared = { fileName: "pixel.gif", contentType: "image/gif", size: variables.get("size"), sha256: variables.get("sha256") };
        const ticket = await call("POST", "/api/images/upload", declared);
        variables.set("imageId", ticket.id);
        variables.set("ticket", JSON.stringify(ticket.upload));
    },
    bytes: async () => {
        await make.upload();
        if (!has("ticket")) return;
        const { method, url, headers } = JSON.parse(variables.get("ticket"));
        await send({ method, url, header: headers, body: { mode: "raw", raw: variables.get("content") } });
        variables.set("ticket", "");
    },
    image: async () => {
        await make.bytes();
        await call("POST", "/api/images/" + variables.get("imageId") + "/confirm");
    },
    multipart: async () => {
        if (has("uploadId")) return;
        variables.set("uploadId", (await call("POST", "/api/images/multipart", ${JSON.stringify(document.paths["/api/images/multipart"].post.requestBody.content["application/json"].example)})).id);
    },
    uppy: async () => {
        if (!has("uppyToken")) variables.set("uppyToken", (await call("POST", "/api/uppy/session")).token);
    },
    uppyMultipart: async () => {
        if (has("uppyKey")) return;
        make.picture();
        const upload = await call("POST", "/uppy/" + variables.get("uppyToken") + "/s3/multipart", {
            filename: "pixel.gif", type: "image/gif", metadata: { name: "pixel.gif", type: "image/gif", size: variables.get("size") },
        });
        variables.set("uppyKey", upload.key);
        variables.set("uppyUploadId", upload.uploadId);
    },
    uppyPart: async () => {
        if (has("uppyPart")) return;
        const upload = "/uppy/" + variables.get("uppyToken") + "/s3/multipart/" + variables.get("uppyUploadId");
        const { url } = await call("GET", upload + "/1?key=" + encodeURIComponent(variables.get("uppyKey")));
        const answer = await send({ method: "PUT", url, body: { mode: "raw", raw: variables.get("content") } });
        variables.set("uppyPart", answer.headers.get("ETag").replaceAll('"', ""));
    },
};
(async () => {
    for (const need of needed) await make[need]();
})().catch((error) => console.error(String(error)));`;

/** Returns the script that runs after each request of a folder. */
const conclude = (ended) => `pm.test("it succeeds", () => pm.expect(pm.response.code).to.be.below(400));
const ended = ${JSON.stringify(ended, null, 4)}[pm.info.requestName] ?? [];
// A token that is refused is replaced before the next request.
const refused = pm.response.code === 401 ? ["token"] : [];
for (const name of pm.response.code < 300 ? ended : refused) pm.collectionVariables.set(name, "");
if (pm.info.requestName === "Change the password" && pm.response.code < 300) {
    const [was, is] = [pm.collectionVariables.get("password"), pm.collectionVariables.get("newPassword")];
    pm.collectionVariables.set("password", is);
    pm.collectionVariables.set("newPassword", was);
}`;

/** Returns the table by the names of requests, because scripts do not see operation ids. */
const byName = (table, requests) => Object.fromEntries(requests.filter(([id]) => table[id]).map(([id, { name }]) => [name, table[id]]));

const PUT = {
  request: {
    method: "PUT",
    description: "The bytes, straight to S3, with exactly the ticket's headers and without the access token.",
    auth: { type: "noauth" },
    header: [],
    url: "{{uploadUrl}}",
    body: { mode: "raw", raw: "{{content}}" },
  },
  event: [
    script(
      "prerequest",
      `const ticket = JSON.parse(pm.collectionVariables.get("ticket"));
pm.variables.set("uploadUrl", ticket.url);
for (const [key, value] of Object.entries(ticket.headers)) pm.request.headers.upsert({ key, value });`,
    ),
  ],
};
const GET = { request: { method: "GET", description: "The bytes, from S3.", auth: { type: "noauth" }, url: "{{imageUrl}}" } };

const status = (expected) => `pm.test("the answer is ${expected}", () => pm.response.to.have.status(${expected}));`;
const problem = (expected, code) =>
  `${status(expected)}\npm.test("the problem is ${code}", () => pm.expect(pm.response.json().code).to.equal("${code}"));`;

/** Steps: name, operation or request, and the body, the script before and the assertions after if they differ from the default. */
const PATH = [
  ["Sign up", "sign_up", { before: `pm.collectionVariables.set("email", pm.variables.replaceIn("{{$guid}}@example.com"));`, after: status(201) }],
  ["Sign in", "log_in", { after: status(200) }],
  ["Sign in with a wrong password", "log_in", { body: { email: "{{email}}", password: "not the password" }, after: problem(401, "invalid_credentials") }],
  ["Refresh", "refresh_session", { after: status(200) }],
  [
    "Open an upload",
    "create_upload",
    {
      before: PICTURE,
      after: `${status(201)}\npm.test("it is open", () => pm.expect(pm.response.json().state).to.equal("pending"));`,
    },
  ],
  ["PUT the bytes", PUT, { after: status(200) }],
  ["PUT the bytes again: refused, they are there", PUT, { after: status(412) }],
  ["Confirm", "confirm_upload", { after: `${status(200)}\npm.test("it is a GIF of one pixel", () => pm.expect(pm.response.json()).to.include({ width: 1, height: 1, contentType: "image/gif" }));` }],
  ["Confirm again: the same answer", "confirm_upload", { after: status(200) }],
  ["The gallery", "list_images", { after: `${status(200)}\npm.test("it has the image", () => pm.expect(pm.response.json().images.map(({ id }) => id)).to.eql([pm.collectionVariables.get("imageId")]));` }],
  ["Get the image", "get_image", { after: `${status(200)}\npm.variables.set("imageUrl", pm.response.json().url);` }],
  ["Get the bytes", GET, { after: `${status(200)}\npm.test("they are the uploaded ones", () => pm.expect(pm.response.text()).to.equal(pm.collectionVariables.get("content")));` }],
  ["Change its caption", "update_image", { body: { caption: "The harbour" }, after: `${status(200)}\npm.test("it is changed", () => pm.expect(pm.response.json().caption).to.equal("The harbour"));` }],
  ["Get a download URL", "download_image", { after: status(200) }],
  ["Get the signed-in user", "get_me", { after: `${status(200)}\npm.test("one image", () => pm.expect(pm.response.json().usage).to.include({ images: 1, pending: 0 }));` }],
  ["Open an upload of a file that is too large", "create_upload", { body: { fileName: "big.gif", contentType: "image/gif", size: 2 ** 50, sha256: "r9PVvUP6NGm6W8Mw5fWJ5F0q6ItZu4Qn4mlR4l8vZf4=" }, after: problem(422, "file_too_large") }],
  ["Open a multipart upload", "create_multipart_upload", { after: status(201) }],
  ["Get URLs for its parts", "sign_parts", { after: status(200) }],
  ["List the parts that have arrived: none", "list_parts", { after: `${status(200)}\npm.test("none", () => pm.expect(pm.response.json().parts).to.eql([]));` }],
  ["Read many images", "read_images", { after: `${status(200)}\npm.test("it is there", () => pm.expect(pm.response.json().results[0].status).to.equal(200));` }],
  ["Delete the image", "delete_image", { after: status(204) }],
  ["Get the deleted image: not found", "get_image", { after: problem(404, "not_found") }],
  ["List sessions", "list_sessions", { after: `${status(200)}\npm.test("those of sign-up and sign-in", () => pm.expect(pm.response.json().sessions).to.have.lengthOf(2));` }],
  ["End the other session", "end_session", { after: status(204) }],
  ["Sign out", "log_out", { after: status(204) }],
  ["Use the ended session's token: refused", "get_me", { after: `${problem(401, "session_ended")}\nfor (const name of ["token", "refreshToken", "sessionId", "imageId", "uploadId", "ticket", "email"]) pm.collectionVariables.set(name, "");` }],
];

/** Returns the request of a step of PATH; `items` are the requests by operation id. */
function step([name, operationOrRequest, { body, before, after }], items) {
  const { request, event = [] } = typeof operationOrRequest === "string" ? items.get(operationOrRequest) : operationOrRequest;
  if (!request) throw new Error(`no operation ${operationOrRequest}`);
  const made = { name, request: structuredClone(request), event: [...event, script("test", after)] };
  if (before) made.event.unshift(script("prerequest", before));
  if (body) made.request.body = typeof body === "string" ? { ...json({}), raw: body } : json(body);
  return made;
}

convertV2({ type: "json", data: document }, { folderStrategy: "Tags" }, (error, { result, reason, output } = {}) => {
  if (error || !result) throw error ?? new Error(reason);
  const items = new Map();
  const folders = output[0].data.item.map(({ name, item: all }) => {
    const item = all.filter((one) => !isStream(operationOf(one.request)));
    const made = item.map(describe);
    for (const one of item) {
      const operation = operationOf(one.request);
      if (!isOfBackend(operation)) continue;
      needs[operation.operationId] ??= ["serviceKey", "appUser"];
      ends[operation.operationId] = ["token", "refreshToken", "imageId", "ticket"];
    }
    made.forEach(([id, request]) => items.set(id, request));
    const { description } = document.tags.find((tag) => tag.name === name);
    const event = [script("prerequest", prepare(byName(needs, made))), script("test", conclude(byName(ends, made)))];
    return { name, description, event, item: made.map(([, request]) => request) };
  });
  const path = {
    name: "The whole path",
    description: "From signing up to signing out, in order and with tests: run the folder.",
    item: PATH.map((one) => step(one, items)),
  };
  const collection = {
    info: {
      name: document.info.title,
      description: document.info.description,
      schema: "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
    },
    auth: { type: "bearer", bearer: [{ key: "token", value: "{{token}}", type: "string" }] },
    variable: Object.entries(variables).map(([key, value]) => ({ key, value })),
    item: [path, ...folders],
  };
  process.stdout.write(`${JSON.stringify(collection, null, 2)}\n`);
});
