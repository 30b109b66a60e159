// `.js` in imports: node runs the output of tsc without a bundler.
export default {
  input: "openapi.json",
  output: { path: "client", importFileExtension: ".js" },
  logs: { level: "warn" },
};
