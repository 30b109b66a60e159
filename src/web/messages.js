// Texts for users: sizes, times, and for every problem what happened and what to do.

const UNITS = ["KiB", "MiB", "GiB", "TiB"];

/** Returns a size in the units of limits and quotas: 1 KiB is 1024 bytes. */
export function bytes(n) {
  if (n < 1024) return count(n, "byte");
  let [value, unit] = [n / 1024, 0];
  for (; value >= 1023.5 && unit < UNITS.length - 1; unit += 1) value /= 1024;
  return `${value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 })} ${UNITS[unit]}`;
}

export const count = (n, singular, plural = `${singular}s`) => `${n.toLocaleString("en")} ${n === 1 ? singular : plural}`;

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export const day = (text) => new Date(text).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });

const BROWSERS = [[/Edg/, "Edge"], [/OPR/, "Opera"], [/Firefox|FxiOS/, "Firefox"], [/Chrom|CriOS/, "Chrome"], [/Safari/, "Safari"]];
const SYSTEMS = [[/iPhone|iPad/, "iOS"], [/Android/, "Android"], [/Windows/, "Windows"], [/CrOS/, "ChromeOS"], [/Mac OS/, "macOS"], [/Linux/, "Linux"]];

/** Returns browser and system of a `User-Agent`, or its beginning if it is not a browser's. */
export function device(agent = "") {
  const named = (names) => names.find(([pattern]) => pattern.test(agent))?.[1];
  const browser = named(BROWSERS);
  if (!browser) return agent.slice(0, 60) || "Unnamed device";
  return [browser, named(SYSTEMS)].filter(Boolean).join(" on ");
}

const MESSAGES = {
  no_answer: "The server cannot be reached. Check the connection, then try again.",
  storage_unreachable: "The storage cannot be reached from this browser. Check the connection, then try again.",
  bad_answer: "The server's answer could not be read. Try again later.",
  unavailable: "The server is busy. Try again in a moment.",
  timeout: "The server took too long. Try again: nothing is stored twice.",
  rate_limited: "Too many attempts. Wait a little, then try again.",
  session_ended: "You have been signed out. Sign in again to go on.",
  token_invalid: "You have been signed out. Sign in again to go on.",
  invalid_credentials: "The email address or the password is wrong.",
  local_accounts_only: "This server has no sign-in with a password. Use the app that belongs to it.",
  email_taken: "There is already an account with this address. Sign in instead.",
  invalid_email: "That is not an email address that can receive mail.",
  storage_refused: "The storage refused the file. Try again; if that does not help, the storage is not set up correctly.",
  file_unreadable: "The file was changed, moved or deleted during the upload. Choose it again.",
  type_not_allowed: "Files of this kind are not accepted. Choose a photo or a picture.",
  file_too_large: "The file is too large.",
  invalid_size: "The file is empty. Choose another.",
  invalid_file_name: "The file's name cannot be stored. Rename it, then choose it again.",
  quota_exceeded: "Your storage is full. Delete some images, then try again.",
  too_many_pending: "Too many uploads are unfinished. Finish or discard some, then try again.",
  content_mismatch: "The file is damaged or is not a valid image. Check it, then choose it again.",
  object_mismatch: "The storage received another file than the one that was sent. Try again.",
  object_missing: "The storage lost the file on the way. Try again.",
  upload_expired: "The upload took too long and has expired. Try again.",
  invalid_caption: "The caption is too long: at most 1000 characters.",
  not_found: "The image does not exist any more.",
};

/** Returns one or two sentences about a problem. */
export function explain(problem) {
  if (problem.code === "weak_password") return problem.detail;
  if (problem.code === "file_too_large" || problem.code === "type_not_allowed") {
    const rule = problem.errors?.[0]?.message ?? "";
    const plain = rule.replace(/image\/(\w+)/g, (_, kind) => kind.toUpperCase()).replace(/(\d+) bytes/, (_, n) => bytes(Number(n)));
    return MESSAGES[problem.code] + (plain && ` It ${plain}.`);
  }
  const sentence = MESSAGES[problem.code] ?? `Something went wrong (${problem.code}). Try again.`;
  return problem.requestId && !MESSAGES[problem.code] ? `${sentence} Reference: ${problem.requestId}.` : sentence;
}
