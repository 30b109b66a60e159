# shellcheck shell=bash
# Functions shared by the scripts of .ci: installing tools, finding ports, and running a `valet dev`. Sourced from the repository's
# root. Sets `tools`, the folder of installed tools, and `work`, a temporary folder that is removed at the end, with the server's
# log (`log`) and data (`data`).

# skip_or_fail WHAT: skips the script because something is not available; fails if CI is set.
skip_or_fail() {
    echo "skipped: ${0##*/} needs $1" >&2
    [ -z "${CI:-}" ] || exit 1
    exit 0
}

# install_packages NAME...: installs Debian packages with apt-get; false if that fails.
install_packages() {
    local as_root=''
    dpkg --status "$@" >/dev/null 2>&1 && return
    command -v apt-get >/dev/null || return
    [ "$(id -u)" -eq 0 ] || as_root='sudo -n'
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "$@" >&2 || { $as_root apt-get update --quiet >&2 &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "$@" >&2; }
}

# python_tools REQUIREMENTS: prints the path of a virtual environment with these packages, kept in the cache under the list's hash.
python_tools() {
    local venv
    venv=$tools/python-$(cksum <"$1" | cut -d ' ' -f 1)
    if [ ! -e "$venv/complete" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv" >&2
        "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --requirement "$1" >&2 || return
        touch "$venv/complete"
    fi
    echo "$venv"
}

# node_tools FOLDER: prints the path of a node_modules with the packages of the folder's lock file, kept under the lock file's hash.
node_tools() {
    local home
    home=$tools/node-$(cksum <"$1/package-lock.json" | cut -d ' ' -f 1)
    if [ ! -e "$home/complete" ]; then
        rm -rf "$home"
        mkdir -p "$home"
        cp "$1/package.json" "$1/package-lock.json" "$1/.npmrc" "$home/"
        (cd "$home" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || return
        touch "$home/complete"
    fi
    echo "$home/node_modules"
}

# find_chromium: prints the path of Chromium, which it installs with apt-get if it is missing; CHROMIUM names another one.
find_chromium() {
    local chromium
    chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
    [ -n "$chromium" ] || { install_packages chromium && chromium=$(command -v chromium); } || return
    echo "$chromium"
}

# Folders of tests/browser that have packages of their own.
workspaces=(bundlers react-18 react-19 uppy-5 uppy-6)

# browser_tools: prints a folder with the packages of tests/browser and of its workspaces, kept under the lock file's hash.
browser_tools() {
    local home workspace
    home=$tools/browser-$(cksum <tests/browser/package-lock.json | cut -d ' ' -f 1)
    if [ ! -e "$home/complete" ]; then
        rm -rf "$home"
        mkdir -p "$home"
        cp tests/browser/package.json tests/browser/package-lock.json tests/browser/.npmrc "$home/"
        for workspace in "${workspaces[@]}"; do
            mkdir "$home/$workspace"
            cp "tests/browser/$workspace/package.json" "$home/$workspace/"
        done
        (cd "$home" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || return
        touch "$home/complete"
    fi
    echo "$home"
}

# free_port: prints a port that no program listens on. It is below the ports of outgoing connections (from 32768 on), so that none of
# them takes it before it is used.
free_port() {
    python3 -c '
import random, socket
while True:
    port = random.randrange(20000, 32768)
    try:
        socket.socket().bind(("127.0.0.1", port))
    except OSError:
        continue
    print(port)
    break
'
}

# valet_binary: prints the path of the program: VALET_BINARY if that is set, such as an optimised build, else a debug build of this tree.
valet_binary() {
    [ -n "${VALET_BINARY:-}" ] || cargo build --quiet --locked || return
    realpath "${VALET_BINARY:-${CARGO_TARGET_DIR:-target}/debug/valet}"
}

# wait_until_ready PID URL LOG: waits for the server with this process id; prints its log and fails if it ends, or after two minutes.
wait_until_ready() {
    for _ in $(seq 600); do
        kill -0 "$1" 2>/dev/null || { cat "$3" >&2 && echo 'the server ended before it was ready' >&2 && exit 1; }
        ! curl -fs -o "$work/ready" "$2/readyz" 2>/dev/null || return 0
        sleep 0.2
    done
    cat "$3" >&2
    echo 'the server was not ready within two minutes' >&2
    exit 1
}

# serve [NAME=VALUE...]: starts `valet dev` with these settings and sets VALET_URL to its address.
serve() {
    local port valet
    port=$(free_port)
    valet=$(valet_binary)
    env "$@" "$valet" dev --bind "127.0.0.1:$port" --s3-bind "127.0.0.1:$(free_port)" \
        --data-dir "$work/data" >"$work/log" 2>&1 &
    server=$!
    wait_until_ready "$server" "http://127.0.0.1:$port" "$work/log"
    export VALET_URL=http://127.0.0.1:$port
}

# finish: stops the processes, prints the last warnings of a failed run, and removes the temporary files.
finish() {
    local code=$?
    trap - EXIT
    if [ "$code" -ne 0 ] && [ -s "$work/log" ]; then
        grep -E 'WARN|ERROR|panicked' "$work/log" | tail -n 20 >&2 || true
    fi
    local pid
    for pid in $second_process $server; do
        if kill -TERM "$pid" 2>/dev/null; then
            # A process that does not end within a minute is killed.
            (for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null && sleep 0.2 || exit 0; done; kill -KILL "$pid") >/dev/null 2>&1 &
            wait "$pid" || true
        fi
    done
    rm -rf "$work"
    exit "$code"
}

tools=${XDG_CACHE_HOME:-$HOME/.cache}/valet/tools
mkdir -p "$tools"
work=$(mktemp -d)
server=''
# Id of a second process that `finish` stops, if the script starts one.
second_process=''
trap finish EXIT
