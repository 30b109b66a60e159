// Runs the verification code of docs/webhooks.md in each of its languages, on messages that the package of the standard signs.
// Arguments: the folder with the extracted code, and the languages to run.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { Webhook } from "standardwebhooks";

const [folder, ...languages] = process.argv.slice(2);
const commands = {
  javascript: ["node", [`${folder}/verify.mjs`]],
  python: [process.env.PYTHON, [`${folder}/verify.py`]],
  java: ["java", ["-cp", folder, "Verify"]],
  shell: ["bash", [`${folder}/verify.sh`]],
};

// Runs the code with a message on standard input and the headers as variables; returns whether it accepts the message.
function accepts(language, secret, { id, timestamp, signature, body }) {
  const [command, parameters] = commands[language];
  const env = { ...process.env, VALET_WEBHOOK_SECRET: secret, WEBHOOK_ID: id, WEBHOOK_TIMESTAMP: timestamp, WEBHOOK_SIGNATURE: signature };
  const { status, stderr, stdout } = spawnSync(command, parameters, { input: body, env, encoding: "utf8" });
  assert.ok(status === 0 || status === 1, `${language}: ${status} ${stdout} ${stderr}`);
  return status === 0;
}

const secret = `whsec_${randomBytes(32).toString("base64")}`;
const otherSecret = `whsec_${randomBytes(32).toString("base64")}`;
const at = new Date();
const sign = (key, id, when, body) => new Webhook(key).sign(id, when, body);
const good = { id: "0199-a", timestamp: `${Math.floor(at / 1000)}`, body: '{"type":"image.ready","data":{"fileName":"\u00e9 $a `b` \\\\"}}' };
good.signature = sign(secret, good.id, at, good.body);
const old = new Date(at - 600_000);
// Name, message, and whether it must be accepted.
const cases = [
  ["a message", good, true],
  ["a message during a rotation", { ...good, signature: `${sign(otherSecret, good.id, at, good.body)} ${good.signature}` }, true],
  ["another body", { ...good, body: `${good.body} ` }, false],
  ["another id", { ...good, id: "0199-b" }, false],
  ["another secret", { ...good, signature: sign(otherSecret, good.id, at, good.body) }, false],
  ["an old message", { ...good, timestamp: `${Math.floor(old / 1000)}`, signature: sign(secret, good.id, old, good.body) }, false],
  ["no signature", { ...good, signature: "" }, false],
  ["another version", { ...good, signature: good.signature.replace("v1,", "v2,") }, false],
];
for (const language of languages) {
  for (const [name, message, accepted] of cases) assert.equal(accepts(language, secret, message), accepted, `${language}: ${name}`);
  console.log(`${language}: ${cases.length} messages`);
}
