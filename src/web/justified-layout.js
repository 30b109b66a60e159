// The justified layout: distributes images over rows, and computes the height of each. Pure.

/** Smallest and largest ratio in the grid, which crops panoramas and strips. */
const [MIN_RATIO, MAX_RATIO] = [0.45, 3.2];

export const ratioOf = ({ width, height }) => Math.min(MAX_RATIO, Math.max(MIN_RATIO, width / height || 1));

/**
 * Returns rows `{ top, height, from, to, lefts, widths }` that fill `width`, each at most `target` high. The last row is not stretched;
 * while the list is incomplete it is left out, since further images would move it.
 */
export function justify(images, width, target, gap, complete = true) {
  const rows = [];
  let top = 0, from = 0, sum = 0;
  const close = (to, height) => {
    const lefts = [], widths = [];
    let left = 0;
    for (let i = from; i < to; i += 1) {
      const w = ratioOf(images[i]) * height;
      lefts.push(left);
      widths.push(w);
      left += w + gap;
    }
    rows.push({ top, height, from, to, lefts, widths });
    top += height + gap;
    [from, sum] = [to, 0];
  };
  for (let i = 0; i < images.length; i += 1) {
    sum += ratioOf(images[i]);
    const height = (width - gap * (i - from)) / sum;
    if (height <= target) close(i + 1, height);
  }
  if (from < images.length && complete) close(images.length, Math.min(target, (width - gap * (images.length - 1 - from)) / sum));
  return { rows, height: Math.max(0, top - gap) };
}

/** Returns the index of the last row that begins at or above `y`. */
export function rowAt(rows, y) {
  let [low, high] = [0, rows.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (rows[middle].top <= y) low = middle;
    else high = middle - 1;
  }
  return low;
}
