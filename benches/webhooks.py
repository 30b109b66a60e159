#!/usr/bin/env python3
"""Measures webhooks on this machine: the time from an acknowledged confirm to its message, and the time that events add to a confirm.

    cargo build --release && python3 benches/webhooks.py target/release/valet [CONFIRMS]

Starts `valet dev`, and with its settings two `valet serve` that differ in WEBHOOK_SECRET. Messages are measured one by one, while
nothing else happens. The cost is measured in rounds that alternate between the servers, with the same user and bucket."""

import base64
import hashlib
import http.client
import http.server
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

PNG = open(os.path.join(os.path.dirname(__file__), "../tests/fixtures/plain.png"), "rb").read()
# Pairs of rounds: one on each server.
ROUNDS = 10
# Times at which messages arrived, by type and image.
arrival_times = {}
arrived = threading.Condition()


class Receiver(http.server.BaseHTTPRequestHandler):
    """Receives messages, and records the times of their arrival."""

    def do_POST(self):
        at = time.perf_counter()
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with arrived:
            arrival_times[(message["type"], message["data"].get("id"))] = at
            arrived.notify_all()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Server:
    """A server, with one connection to it."""

    def __init__(self, url, token=None):
        self.address, self.token = urllib.parse.urlsplit(url).netloc, token
        self.connection = http.client.HTTPConnection(self.address, timeout=30)

    def post(self, path, body=None):
        headers = {"authorization": f"Bearer {self.token}"} | ({"content-type": "application/json"} if body else {})
        self.connection.request("POST", path, json.dumps(body) if body else None, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status < 300, (path, answer.status, text)
        return json.loads(text)

    def upload(self):
        """Uploads bytes without confirming them; returns the image's id."""
        content = PNG + os.urandom(16)
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        ticket = self.post("/api/images/upload", {"fileName": "a.png", "contentType": "image/png", "size": len(content), "sha256": digest})
        url = urllib.parse.urlsplit(ticket["upload"]["url"])
        store = http.client.HTTPConnection(url.netloc, timeout=30)
        store.request("PUT", f"{url.path}?{url.query}", content, ticket["upload"]["headers"])
        assert store.getresponse().status == 200
        return ticket["id"]

    def confirm(self, image):
        """Confirms an image. Returns the duration in seconds, and the time of the acknowledgement."""
        began = time.perf_counter()
        self.post(f"/api/images/{image}/confirm")
        ended = time.perf_counter()
        return ended - began, ended


def percentile(values, part):
    """Returns the value that this part of the values, from 0 to 1, does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def start(command, env, pattern):
    """Starts a process, and waits until its output matches the pattern; returns the process and the first group of the match."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if found := re.search(pattern, line):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, found[1]
    raise SystemExit(f"{command} ended before it was ready")


def main(valet, confirms):
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    processes = []
    with tempfile.TemporaryDirectory() as data:
        try:
            command = [valet, "dev", "--bind", "127.0.0.1:0", "--s3-bind", "127.0.0.1:0", "--data-dir", data]
            dev, url = start(command, os.environ, r"API +(http://[\d.:]+)/api")
            processes.append(dev)
            exported = open(f"{data}/environment").read()
            settings = dict(re.findall(r"^export (\w+)='(.*)'$", exported, re.M))
            env = {**os.environ, **settings, "BIND": "127.0.0.1:0", "LOG_FORMAT": "text", "RATE_LIMIT": "off"}
            run = lambda *arguments: subprocess.run([valet, *arguments], env=env, check=True, capture_output=True, text=True).stdout
            key = run("key", "create", "bench", "--scope", "tokens:create").strip()
            token = Server(url, key).post("/api/admin/tokens", {"subject": "bench"})["token"]

            def serve(settings):
                process, address = start([valet, "serve"], settings, r"listening.*?(\d+\.\d+\.\d+\.\d+:\d+)")
                processes.append(process)
                return Server(f"http://{address}", token)

            without_events = serve({name: value for name, value in env.items() if not name.startswith("WEBHOOK_")})
            with_events = serve(env)
            print_confirm_cost(without_events, with_events, confirms)
            endpoint = run("webhook", "add", f"http://127.0.0.1:{receiver.server_port}/", "--type", "image.ready").split()[0]
            time.sleep(1)
            print_latency(with_events, confirms)
            run("webhook", "disable", endpoint)
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGINT)
                process.wait()


def print_confirm_cost(without_events, with_events, confirms):
    """Prints the time of a confirm on a server that records no events, and on one that does."""
    times = {without_events: [], with_events: []}
    for _ in range(ROUNDS):
        for server in (without_events, with_events):
            images = [server.upload() for _ in range(confirms // ROUNDS)]
            times[server].append(statistics.median(server.confirm(image)[0] for image in images))
    plain_ms, events_ms = (statistics.median(times[server]) * 1000 for server in (without_events, with_events))
    ratios = [b / a - 1 for a, b in zip(times[without_events], times[with_events])]
    print(f"confirm without events {plain_ms:.2f} ms, with events {events_ms:.2f} ms, {len(ratios)} pairs of rounds:"
          f" {100 * statistics.median(ratios):+.1f} % (bound +5 %)")


def print_latency(server, confirms):
    """Prints the time from an acknowledged confirm to its message."""
    waits = []
    for _ in range(confirms):
        image = server.upload()
        _, acknowledged = server.confirm(image)
        with arrived:
            assert arrived.wait_for(lambda: ("image.ready", image) in arrival_times, 30), "no message within 30 s"
        waits.append(max(0.0, arrival_times[("image.ready", image)] - acknowledged))
    print(f"confirm to message, {confirms}: p50 {percentile(waits, 0.5) * 1000:.0f} ms, p99 {percentile(waits, 0.99) * 1000:.0f} ms (bound 300 ms)")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200)
