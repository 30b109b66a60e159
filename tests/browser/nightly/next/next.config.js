// The folder is a whole app: without a root, Next.js looks for lock files above it.
const root = import.meta.dirname ?? new URL(".", import.meta.url).pathname;

export default { distDir: process.env.NEXT_DIST ?? ".next", turbopack: { root }, outputFileTracingRoot: root };
