"""Runs LocalStack's S3 and SQS without Docker, on the loopback interface alone: localstack.py FOLDER PORT"""

import os
import shutil
import sys
import tempfile

folder, port = sys.argv[1:]
sys.argv[1:] = []

os.environ.update(
    SERVICES="s3,sqs",
    EAGER_SERVICE_LOADING="1",
    STRICT_SERVICE_LOADING="1",
    # Otherwise LocalStack accepts every signature.
    S3_SKIP_SIGNATURE_VALIDATION="0",
    GATEWAY_LISTEN=f"127.0.0.1:{port}",
    LOCALSTACK_HOST=f"127.0.0.1:{port}",
    # The alternative, hypercorn, has stored truncated bodies with 200.
    GATEWAY_SERVER="twisted",
    DISABLE_EVENTS="1",
    SKIP_SSL_CERT_DOWNLOAD="1",
    DNS_ADDRESS="0",
    PERSISTENCE="0",
    FILESYSTEM_ROOT=folder,
    XDG_CACHE_HOME=os.path.join(folder, "cache"),
    # In a container LocalStack would use the system's folders as its own.
    OVERRIDE_IN_DOCKER="0",
)

# LocalStack keeps no objects between runs, so the files of earlier runs are deleted. The folder then contains the hook only.
shutil.rmtree(folder, ignore_errors=True)
hooks = os.path.join(folder, "etc/localstack/init/ready.d")
os.makedirs(hooks)
tempfile.tempdir = os.path.join(folder, "tmp")
os.makedirs(tempfile.tempdir)
shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), "bucket.py"), hooks)

from twisted.internet import endpoints  # noqa: E402


class Loopback(endpoints.TCP4ServerEndpoint):
    """Endpoint on the loopback interface. LocalStack passes only the port, and would listen on every interface."""

    def __init__(self, reactor, port, backlog=50, interface="127.0.0.1"):
        super().__init__(reactor, port, backlog, interface)


endpoints.TCP4ServerEndpoint = Loopback

# Python puts this file's folder first on the path, and this file has the name of the package.
sys.path.pop(0)

from localstack.runtime.main import main  # noqa: E402

main()
