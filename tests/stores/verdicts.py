"""Compares the verdicts of `valet check --json` with the results of another client on the same store: every name of docs/check.md, in
buckets that are made for it, in several states; and checks the URLs that a server issues there.

    S3_ENDPOINT=… AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_REGION=… MONGODB_URI=… python verdicts.py VALET

VERDICTS_SHOW=1 prints every verdict, VERDICTS_STATES selects states (.ci/stores). Exits 1 at any difference."""

import json
import os
import subprocess
import sys
import time
import uuid

import pymongo
from botocore.exceptions import ClientError

import deviations
import states
from bucket import Bucket
from rule_checks import RuleChecks
from served import Server, find_faults

ORIGIN = "https://app.example"
MAX_BYTES = 8 << 20
# Whether a rule holds, by its verdict.
HOLDS = {"ok": True, "warning": False, "broken": False, "skipped": None}


class Store:
    """The store and the database that the environment names."""

    def __init__(self, valet: str):
        self.valet = valet
        self.mongodb = os.environ["MONGODB_URI"]
        self.region = os.environ.get("AWS_REGION", "us-east-1")

    def bucket(self) -> Bucket:
        """Returns a bucket with a new name, which does not exist yet."""
        name = f"valet-verdicts-{uuid.uuid4().hex[:12]}"
        keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        return Bucket(os.environ["S3_ENDPOINT"], *keys, self.region, name)

    def settings(self, bucket: Bucket, database: str) -> dict[str, str]:
        """Returns Valet's settings for this bucket and this database."""
        return {
            "S3_BUCKET": bucket.name,
            "S3_FORCE_PATH_STYLE": "true",
            "MONGODB_DATABASE": database,
            "CORS_ORIGINS": ORIGIN,
            "UPLOAD_MAX_BYTES": str(MAX_BYTES),
            "UPLOAD_TTL": "24h",
            "MULTIPART_TTL": "24h",
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "JWT_SECRET": os.environ.get("JWT_SECRET", uuid.uuid4().hex * 2),
        }

    def check(self, bucket: Bucket, database: str, *more: str) -> dict:
        """Returns the report of `valet check --json`."""
        command, settings = [self.valet, "check", "--json", *more], os.environ | self.settings(bucket, database)
        done = subprocess.run(command, check=False, env=settings, capture_output=True, text=True, timeout=900)
        report = json.loads(done.stdout)
        if (done.returncode == 0) != report["sound"]:
            raise SystemExit(f"valet check exits {done.returncode}, and reports sound: {report['sound']}\n{done.stderr}")
        return report

    def compare(self, name: str) -> list[str]:
        """Compares the verdicts in one state. Returns the differences."""
        state, title = states.ALL[name], name.replace("_", " ")
        bucket = self.bucket()
        database = pymongo.MongoClient(self.mongodb)[bucket.name]
        began = time.monotonic()
        try:
            if not state(bucket, database):
                print(f"{title}: this store does not support the state")
                return []
            if state in states.FIXED:
                self.check(bucket, database.name, "--fix")
            before = bucket.keys()
            report = self.check(bucket, database.name)
            changed_keys = set(bucket.keys()) ^ set(before)
            checks = RuleChecks(bucket, self.mongodb, database.name, ORIGIN, MAX_BYTES)
            found = find_differences(report, checks)
            if state in states.SERVED:
                with Server(self.valet, self.settings(bucket, database.name)) as server:
                    found += find_faults(server, checks.outcome.obeyed, checks.outcome.is_open)
            found += [f"the check left or removed keys in the bucket: {sorted(changed_keys)}"] if changed_keys else []
            counts = ", ".join(f"{count} {word}" for word, count in report["counts"].items())
            print(f"{title}: {counts}; {len(found)} differences, {time.monotonic() - began:.0f} s")
            return [f"{title}: {difference}" for difference in found]
        finally:
            database.client.drop_database(database.name)
            remove(bucket)


def find_differences(report: dict, checks: RuleChecks) -> list[str]:
    """Returns the differences between the report of `valet check` and the results of the checks."""
    verdicts = {finding["name"]: finding["verdict"] for finding in report["findings"]}
    seen = checks.check_all(list(verdicts), verdicts)
    differences = []
    for finding in report["findings"]:
        name, verdict, details = finding["name"], finding["verdict"], finding["details"]
        if os.environ.get("VERDICTS_SHOW"):
            print(f"  {name:30} {verdict:8} {seen[name]!s:6} {details.get('seen', details.get('reason', ''))}")
        if HOLDS[verdict] is not seen[name]:
            differences.append(f"{name}: {verdict}, but {seen[name]} by another client: {finding['sentence']}")
        elif name in deviations.RULES and seen[name] is False:
            # The accepted requests are compared too: a fault of one kind of request must not hide that of another.
            unconfirmed = deviations.reported_deviations(details["seen"]) ^ checks.outcome.obeyed_against(name)
            differences += [f"{name}: {kind}, {deviation}: seen by one side only" for kind, deviation in sorted(unconfirmed)]
    return differences


def remove(bucket: Bucket) -> None:
    """Deletes the bucket and its objects."""
    try:
        bucket.empty()
        bucket.s3.delete_bucket(Bucket=bucket.name)
    except ClientError as error:
        print(f"  {bucket.name} is left: {error}")


def documented_names(path: str) -> list[str]:
    """Returns the names of the table in docs/check.md."""
    with open(path) as text:
        lines = text.read().split("| name | question |")[1].splitlines()[2:]
    return [line.split("`")[1] for line in lines if line.startswith("| `")]


def main(valet: str) -> None:
    store = Store(valet)
    names = documented_names(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/check.md"))
    unchecked = [name for name in names if name not in deviations.RULES and not hasattr(RuleChecks, name)]
    if unchecked:
        raise SystemExit(f"no check by another client for {', '.join(unchecked)}")
    wanted = os.environ.get("VERDICTS_STATES", " ".join(states.ALL)).split()
    differences = [difference for name in wanted for difference in store.compare(name)]
    print("\n".join(differences) or "every verdict is confirmed")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main(sys.argv[1])
