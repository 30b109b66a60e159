// What people read: sizes, times, and for every problem what happened and what to do.

const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

export function bytes(n) {
  const power = Math.min(units.length - 1, n < 1000 ? 0 : Math.floor(Math.log10(n) / 3));
  const value = n / 1000 ** power;
  if (power === 0) return count(n, "byte");
  return value.toLocaleString("en", { style: "unit", unit: units[power], maximumFractionDigits: value < 100 ? 1 : 0 });
}

export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export const day = (text) => new Date(text).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });

const BROWSERS = [[/Edg/, "Edge"], [/OPR/, "Opera"], [/Firefox|FxiOS/, "Firefox"], [/Chrom|CriOS/, "Chrome"], [/Safari/, "Safari"]];
const SYSTEMS = [[/iPhone|iPad/, "iOS"], [/Android/, "Android"], [/Windows/, "Windows"], [/CrOS/, "ChromeOS"], [/Mac OS/, "macOS"], [/Linux/, "Linux"]];

/** A client by what it called itself (`User-Agent`); those that are no browsers as they did. */
export function device(agent = "") {
  const named = (names) => names.find(([pattern]) => pattern.test(agent))?.[1];
  const browser = named(BROWSERS);
  if (!browser) return agent.slice(0, 60) || "Unnamed device";
  return [browser, named(SYSTEMS)].filter(Boolean).join(" on ");
}

const SENTENCES = {
  no_answer: "The server cannot be reached. Check the connection, then try again.",
  bad_answer: "Something between here and the server answered in its place. Try again later.",
  unavailable: "The server is busy. Try again in a moment.",
  timeout: "The server took too long. Try again: nothing is done twice.",
  rate_limited: "That was too often. Wait a little, then try again.",
  session_ended: "You have been signed out. Sign in again to go on.",
  token_invalid: "You have been signed out. Sign in again to go on.",
  invalid_credentials: "The email address or the password is wrong.",
  local_accounts_only: "This server lets people in through an identity provider alone; use the app that belongs to it.",
  email_taken: "There is an account with this address already. Sign in instead.",
  invalid_email: "That is not an email address that can receive mail.",
  storage_refused: "The storage refused the file. Try again; if it stays so, the storage is set up wrongly.",
  file_unreadable: "The file was changed, moved or deleted meanwhile. Choose it again.",
  type_not_allowed: "Files of this kind are not accepted. Choose a photo or a picture.",
  file_too_large: "The file is too large.",
  invalid_size: "The file is empty. Choose another.",
  invalid_file_name: "The file's name cannot be stored. Rename it, then choose it again.",
  quota_exceeded: "There is no room left. Delete some images, then try again.",
  too_many_pending: "Too many uploads are unfinished. Finish or discard some, then try again.",
  content_mismatch: "The file is damaged, or not the image its beginning promises. Check it, then choose it again.",
  object_mismatch: "What arrived is not the file that was sent. Try again.",
  object_missing: "The storage lost the file on the way. Try again.",
  upload_expired: "The upload took too long and has expired. Try again.",
  invalid_caption: "The caption is too long: at most 1000 characters.",
  not_found: "It is not there any more.",
};

/** One or two sentences for a person. */
export function explain(problem) {
  if (problem.code === "weak_password") return problem.detail;
  if (problem.code === "file_too_large" || problem.code === "type_not_allowed") {
    const rule = problem.errors?.[0]?.message ?? "";
    const plain = rule.replace(/image\/(\w+)/g, (_, kind) => kind.toUpperCase()).replace(/(\d+) bytes/, (_, n) => bytes(Number(n)));
    return SENTENCES[problem.code] + (plain && ` It ${plain}.`);
  }
  const sentence = SENTENCES[problem.code] ?? `Something went wrong (${problem.code}). Try again.`;
  return problem.requestId && !SENTENCES[problem.code] ? `${sentence} The fault's number: ${problem.requestId}.` : sentence;
}
