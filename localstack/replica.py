"""Makes a mongod the only member of its replica set and waits until it accepts writes: replica.py PORT PID"""

import os
import sys
import time

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

DEADLINE_SECONDS = 90
# Error code of MongoDB: the mongod has no replica set configuration yet.
NOT_YET_INITIALIZED = 94

port, pid = map(int, sys.argv[1:])
host = f"127.0.0.1:{port}"
client = MongoClient(host, directConnection=True, serverSelectionTimeoutMS=1000, socketTimeoutMS=10_000)
admin = client.admin


def settle():
    """Takes one step and returns whether mongod is the primary. Loading the configuration and the election take time."""
    hello = admin.command("hello")
    if hello.get("isWritablePrimary") and hello.get("me") == host:
        return True
    member = {"_id": 0, "host": host}
    try:
        config = admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:
            raise
        admin.command("replSetInitiate", {"_id": "valet", "members": [member]})
    else:
        # The configuration has the port of an earlier run.
        if [known["host"] for known in config["members"]] != [host]:
            moved = {**config, "version": config["version"] + 1, "members": [member]}
            admin.command("replSetReconfig", moved, force=True)
    return False


deadline = time.monotonic() + DEADLINE_SECONDS
reason = "no primary yet"
while time.monotonic() < deadline:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        sys.exit("mongod has ended")
    try:
        if settle():
            sys.exit()
    except PyMongoError as error:
        reason = str(error).splitlines()[0][:300]
    time.sleep(0.05)
sys.exit(f"mongod was not ready after {DEADLINE_SECONDS} s: {reason}")
