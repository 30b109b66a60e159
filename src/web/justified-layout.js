// The justified layout: distributes images over rows, and computes the height of each, in pixels. Pure.

/** Smallest and largest ratio in the grid, which crops panoramas and strips. */
const [MIN_RATIO, MAX_RATIO] = [0.45, 3.2];

/** Height of a month's heading. */
export const HEADING = 44;

/** Returns the shown ratio of width to height. */
export const ratioOf = ({ width, height }) => Math.min(MAX_RATIO, Math.max(MIN_RATIO, width / height || 1));

/**
 * Returns rows `{ top, height, from, to, lefts, widths, head }` that fill `width`, each at most `maxHeight` high. A month begins with a
 * row, `head`, with room for a heading above it. Its last row is not stretched. The last row of an incomplete list is left out, since
 * further images would move it.
 */
export function justify(images, { width, maxHeight, gap, complete = true }) {
  const rows = [];
  let top = 0, from = 0, sum = 0, head;
  const close = (to, height) => {
    const lefts = [], widths = [];
    let left = 0;
    for (let i = from; i < to; i += 1) {
      const w = ratioOf(images[i]) * height;
      lefts.push(left);
      widths.push(w);
      left += w + gap;
    }
    const row = { top, height, from, to, lefts, widths };
    const { month } = images[from];
    if (month) {
      if (head?.month !== month) {
        head = Object.assign(row, { month });
        row.top = top += HEADING;
      }
      row.head = head;
    }
    rows.push(row);
    top += height + gap;
    [from, sum] = [to, 0];
  };
  const closeShort = (to) => close(to, Math.min(maxHeight, (width - gap * (to - 1 - from)) / sum));
  for (let i = 0; i < images.length; i += 1) {
    if (from < i && images[i].month !== images[from].month) closeShort(i);
    sum += ratioOf(images[i]);
    const height = (width - gap * (i - from)) / sum;
    if (height <= maxHeight) close(i + 1, height);
  }
  if (from < images.length && complete) closeShort(images.length);
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
