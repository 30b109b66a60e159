// Texts for users: sizes, times, devices, and for every problem the failure and the remedy.

import { bytes, count, explain as explainUpload } from "./valet-upload/messages.js";

export { bytes, count };

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export const day = (text, timeZone) => new Date(text).toLocaleString("en", { dateStyle: "medium", timeStyle: "short", timeZone });

/** Returns the name of a month such as "2026-11". */
export const monthName = (month) => new Date(month).toLocaleString("en", { month: "long", year: "numeric", timeZone: "UTC" });

/** Returns the local time at which an image was taken, with its offset from UTC if the image has one. */
export function timeTaken(text) {
  const offset = text.slice(19);
  return `${day(`${text.slice(0, 19)}Z`, "UTC")} ${offset ? `UTC${offset.replace("Z", "")}` : "local time"}`;
}

const BROWSERS = [[/Edg/, "Edge"], [/OPR/, "Opera"], [/Firefox|FxiOS/, "Firefox"], [/Chrom|CriOS/, "Chrome"], [/Safari/, "Safari"]];
const SYSTEMS = [[/iPhone|iPad/, "iOS"], [/Android/, "Android"], [/Windows/, "Windows"], [/CrOS/, "ChromeOS"], [/Mac OS/, "macOS"], [/Linux/, "Linux"]];

/** Returns browser and system of a `User-Agent`, or its first 60 characters if it is not a browser's. */
export function device(agent = "") {
  const named = (names) => names.find(([pattern]) => pattern.test(agent))?.[1];
  const browser = named(BROWSERS);
  if (!browser) return agent.slice(0, 60) || "Unnamed device";
  return [browser, named(SYSTEMS)].filter(Boolean).join(" on ");
}

const MESSAGES = {
  invalid_credentials: "The email address or the password is wrong.",
  local_accounts_only: "This server has no sign-in with a password. Use the app that belongs to it.",
  email_taken: "There is already an account with this address. Sign in instead.",
  invalid_email: "That is not an email address that can receive mail.",
  invalid_caption: "The caption is too long: at most 1000 characters.",
};

/** Rejections of undamaged images, by words of `detail`. */
const REFUSALS = [
  ["too many pixels", "The image has too many pixels. Scale it down, then choose it again."],
  ["too deep in the file", "The file has too much data before its picture. Save it without metadata, then choose it again."],
];

/** Returns one or two sentences about a problem. */
export function explain(problem) {
  const { code, detail = "" } = problem;
  if (code === "weak_password") return detail;
  const refusal = code === "content_mismatch" && REFUSALS.find(([words]) => detail.includes(words));
  return refusal ? refusal[1] : MESSAGES[code] ?? explainUpload(problem);
}
