# shellcheck shell=bash
# Paths, a lock, and functions for processes and Docker; sourced by `up` and `down`.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=$here/.run

say() { echo "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# pid_of NAME: prints the pid of mongodb or localstack if `up` started it and it still runs. The system may have reused the pid, so
# the process must have the folder of `up` among its arguments.
pid_of() {
    local pid
    pid=$(cat "$run/$1.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    ps -ww -o args= -p "$pid" 2>/dev/null | grep -qF -- "$run/$1" || return 1
    echo "$pid"
}

# end NAME: stops mongodb or localstack, with SIGTERM, and with SIGKILL after 10 s; fails after 15 s.
end() {
    local pid
    if pid=$(pid_of "$1"); then
        kill -TERM "$pid" 2>/dev/null || true
        local tries=0
        while pid_of "$1" >/dev/null; do
            tries=$((tries + 1))
            [ "$tries" -ne 100 ] || kill -KILL "$pid" 2>/dev/null || true
            [ "$tries" -ne 150 ] || fail "$1 (pid $pid) does not end"
            sleep 0.1
        done
        say "$1 is down"
    fi
    rm -f "$run/$1.pid" "$run/$1.port"
}

# lock PATH: waits until no other `up` or `down` runs. Creating a symbolic link is atomic, and its target is the owner's pid.
lock() {
    local tries=0 owner
    while ! ln -s "$$" "$1" 2>/dev/null; do
        owner=$(readlink "$1") || owner=''
        if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then rm -f "$1"; fi
        tries=$((tries + 1))
        [ "$tries" -lt 3000 ] || fail "another run of this script holds $1"
        sleep 0.1
    done
}

# docker_answers: returns whether a Docker engine answers within 5 s: a Docker client that waits for its engine can take minutes.
docker_answers() {
    command -v docker >/dev/null && docker compose version >/dev/null 2>&1 </dev/null || return 1
    docker info >/dev/null 2>&1 </dev/null &
    local pid=$! tries=0
    while kill -0 "$pid" 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -ge 50 ]; then
            kill "$pid" 2>/dev/null || true
            return 1
        fi
        sleep 0.1
    done
    wait "$pid"
}

compose() { docker compose -f "$here/compose.yaml" "$@" </dev/null >&2; }
