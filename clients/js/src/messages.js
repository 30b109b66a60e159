// Sentences for users about problems: the failure and the remedy. Apps in other languages have their own sentences by `code`.

const UNITS = ["KiB", "MiB", "GiB", "TiB"];

/** Returns a size in the units of limits and quotas: 1 KiB is 1024 bytes. */
export function bytes(n) {
  if (n < 1024) return count(n, "byte");
  let [value, unit] = [n / 1024, 0];
  for (; value >= 1023.5 && unit < UNITS.length - 1; unit += 1) value /= 1024;
  return `${value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 })} ${UNITS[unit]}`;
}

export const count = (n, singular, plural = `${singular}s`) => `${n.toLocaleString("en")} ${n === 1 ? singular : plural}`;

const MESSAGES = {
  no_answer: "The server cannot be reached. Check the connection, then try again.",
  storage_unreachable: "The storage cannot be reached from this browser. Check the connection, then try again.",
  bad_answer: "The server's answer could not be read. Try again later.",
  unavailable: "The server is busy. Try again in a moment.",
  timeout: "The server took too long. Try again: nothing is stored twice.",
  rate_limited: "Too many attempts. Wait a little, then try again.",
  session_ended: "You have been signed out. Sign in again to go on.",
  token_invalid: "You have been signed out. Sign in again to go on.",
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
  not_found: "The image does not exist any more.",
};

/** Returns one or two sentences about a problem. */
export function explain(problem) {
  if (problem.code === "file_too_large" || problem.code === "type_not_allowed") {
    const rule = problem.errors?.[0]?.message ?? "";
    const plain = rule.replace(/image\/(\w+)/g, (_, kind) => kind.toUpperCase()).replace(/(\d+) bytes/, (_, n) => bytes(Number(n)));
    return MESSAGES[problem.code] + (plain && ` It ${plain}.`);
  }
  const sentence = MESSAGES[problem.code] ?? `Something went wrong (${problem.code}). Try again.`;
  return problem.requestId && !MESSAGES[problem.code] ? `${sentence} Reference: ${problem.requestId}.` : sentence;
}
