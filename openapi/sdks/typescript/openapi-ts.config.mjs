// `.js` in imports: node runs what tsc made of it, without a bundler.
export default {
  input: "openapi.json",
  output: { path: "client", importFileExtension: ".js" },
  logs: { level: "warn" },
};
