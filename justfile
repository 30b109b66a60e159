# Recipes for https://just.systems. Each is one command, so all of them can be run without `just`.

# Lists the recipes
default:
    @just --list

# Runs API, gallery page, S3 server and MongoDB on this machine
dev *OPTIONS:
    cargo run --locked -- dev {{ OPTIONS }}

# Runs all tests, or those whose names contain NAME
test NAME='':
    cargo test --locked {{ NAME }}

# Checks formatting, imports, wording, clippy, documentation and workflows
lint:
    .ci/fast lint

# Checks a change in at most five minutes: lints, unit tests, and the short integration tests on the local S3
fast:
    .ci/fast

# Checks everything that must hold before a merge, or the STEPS that `.ci/run --list` prints
ci *STEPS:
    .ci/run {{ STEPS }}

# Writes the OpenAPI document and the Postman collection
openapi:
    cargo run --locked -- openapi > openapi/openapi.json
    .ci/postman update

# Runs the benchmarks
bench *OPTIONS:
    cargo bench --locked {{ OPTIONS }}
