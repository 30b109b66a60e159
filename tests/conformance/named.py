"""A pytest plugin that runs the tests of ceph/s3-tests that a list names (see .ci/conformance).

Below "[run]" the list has names of tests, which must pass. Below "[left out] REASON" it has names or shell patterns of tests that are
run and expected to fail; below "[not run] REASON" those of tests that are slow, or whose result does not depend on what they test.
Each test of the suite must match a line of the list, where the names below "[run]" are tried first, and each line must match a test.
"""

import fnmatch
import os

import pytest
from botocore.client import BaseClient

KINDS = ("[run]", "[left out]", "[not run]")


def read(path):
    """Returns the list's lines: kind, reason, name or pattern."""
    lines, kind, reason = [], None, ""
    with open(path, encoding="utf-8") as text:
        for line in (line.split("#")[0].strip() for line in text):
            if line.startswith("["):
                kind, _, reason = line.partition("] ")
                kind = kind.rstrip("]") + "]"
                assert kind in KINDS, line
            elif line:
                lines.append((kind, reason, line))
    return sorted(lines, key=lambda line: line[0] != "[run]")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    lines = read(os.environ["CONFORMANCE_LIST"])
    found, wrong, kept = set(), [], []
    for item in items:
        line = next((line for line in lines if item.name == line[2] or fnmatch.fnmatchcase(item.name, line[2])), None)
        if line is None:
            wrong.append(f"not in the list: {item.name}")
            continue
        found.add(line)
        kind, reason, _ = line
        if kind != "[not run]":
            kept.append(item)
        if kind == "[left out]":
            item.add_marker(pytest.mark.xfail(reason=reason))
    wrong += [f"no test is found by: {line[2]}" for line in lines if line not in found]
    if wrong:
        raise pytest.UsageError("\n".join(wrong))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_configure():
    # Some tests of signatures, forms and CORS request public buckets and objects, although they do not need them. The local S3
    # refuses such requests, so they are sent without the ACL.
    call = BaseClient._make_api_call

    def without_acl(client, operation, members):
        if operation in ("CreateBucket", "PutObject"):
            members = {name: value for name, value in members.items() if name != "ACL"}
        return call(client, operation, members)

    BaseClient._make_api_call = without_acl


def pytest_collection_finish():
    # The suite empties and removes all buckets of three users before and after each test. Here each test has its own names for its
    # buckets, which are removed with the server's folder.
    import s3tests.functional as suite

    suite.setup = suite.teardown = lambda: None
