"""S3 behind `storage`: one client a process, and what goes wrong told in one line.

Credentials, region and endpoint are what boto3 finds in the environment (`AWS_ENDPOINT_URL` for other S3
servers); none of them is ever written anywhere, error messages included.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache, wraps
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from syncir_ray.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

# One put takes up to 5 GB; nearly all that a run writes is far below. Above this, parts.
MULTIPART = 64 * 2**20
# botocore retries connecting and 5xx itself; a body cut in the middle, and a conditional put that met another,
# are ours to ask for again.
TRIES = 5
# The environment variable that says for how many seconds S3 may be away, beyond what botocore itself waits, before
# a call fails. Without it none: a command that begins says at once that nothing answers.
PATIENCE = "SYNCIR_S3_PATIENCE"
LONGEST_WAIT = 20.0  # seconds between two calls: what is back is found soon, and not by all processes at once
# What says that the key is wrong everywhere, not that it may not touch this one object.
BAD_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"}


class Unreachable(OSError):
    """S3 does not answer, or only by errors of its own: nothing is known of the object."""


class Denied(UserError):
    """S3 answers, but the key may not have this object."""


ENVIRONMENT = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
_making = threading.Lock()


@lru_cache(maxsize=1)
def _client(environment: tuple[str | None, ...]) -> Any:
    import boto3
    from botocore.config import Config

    # Four connects of 3 s (one lost SYN is sent again after 1 s) and the pauses between them are at most 19 s: an
    # endpoint that is down is told within seconds. Read 60 s: a slow disk behind it.
    config = Config(
        connect_timeout=3,
        read_timeout=60,
        retries={"total_max_attempts": 4, "mode": "standard"},
        max_pool_connections=64,
    )
    try:
        # boto3 itself knows AWS_DEFAULT_REGION only
        return boto3.session.Session(region_name=os.environ.get("AWS_REGION")).client("s3", config=config)
    except ValueError as error:  # an endpoint that is no address
        raise UserError(f"S3: {error}; see AWS_ENDPOINT_URL") from None


def client() -> Any:
    """The client of this process, made anew when the environment names another server or key; threads share it."""
    with _making:  # making one is not safe in threads, using it is
        return _client(tuple(os.environ.get(name) for name in ENVIRONMENT))


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an address; the key may be empty.

    Raises:
        UserError: there is no bucket.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise UserError(f"{uri}: an S3 address is s3://bucket/key")
    return bucket, key


def call(uri: str, ask: Callable[[], T]) -> T:
    """Run one S3 call.

    Raises:
        FileNotFoundError: there is no such object.
        Unreachable: S3 does not answer.
        Denied: the key may not have this object.
        UserError: there is no such bucket, the key is refused, or the request is one that S3 never takes.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
    from botocore.exceptions import ConnectionError as NoConnection

    try:
        return ask()
    except ClientError as error:
        raise _told(uri, error) from None
    except NoCredentialsError:
        raise UserError(f"{uri}: no S3 credentials; set AWS_ACCESS_KEY_ID or an instance profile") from None
    except (NoConnection, HTTPClientError, Boto3Error) as error:
        raise Unreachable(f"{uri}: S3 does not answer ({type(error).__name__}); see AWS_ENDPOINT_URL") from None
    except BotoCoreError as error:  # a profile that is not there, half a key, a bucket's name that cannot be
        raise UserError(f"{uri}: {' '.join(str(error).split())[:200]}") from None


def _told(uri: str, error: Any) -> Exception:
    """What S3 answered, as one of the errors of `call`."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    if code == "NoSuchBucket":
        return UserError(f"{uri}: there is no such bucket")
    if code in ("404", "NoSuchKey", "NotFound"):
        return FileNotFoundError(f"{uri}: no such object")
    if status in (401, 403) or code in BAD_KEY:
        kind = UserError if code in BAD_KEY else Denied
        return kind(
            f"{uri}: S3 refused the key ({code}); see AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the policy"
        )
    if status >= 500 or status == 429 or code == "RequestTimeout":
        return Unreachable(f"{uri}: S3 answered {code} ({status})")
    return UserError(f"{uri}: S3 answered {code} ({status}); see AWS_REGION and AWS_ENDPOINT_URL")


def patient(asks: Callable[P, T]) -> Callable[P, T]:
    """Ask for the whole of it again while S3 is away and the environment has patience. All that is asked for may
    be done twice."""

    @wraps(asks)
    def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        end, wait = time.monotonic() + float(os.environ.get(PATIENCE) or 0), 1.0
        while True:
            try:
                return asks(*args, **kwargs)
            except Unreachable:
                if time.monotonic() + wait > end:
                    raise
            time.sleep(wait * random.uniform(1, 1.25))
            wait = min(2 * wait, LONGEST_WAIT)

    return asked


@patient
def read(uri: str, offset: int, length: int | None) -> bytes:
    """The bytes from `offset` on, at most `length` of them; none past the end."""
    from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

    if length == 0:
        return b""
    bucket, key = split(uri)
    span = {}
    if offset or length is not None:
        span = {"Range": f"bytes={offset}-" + ("" if length is None else str(offset + length - 1))}

    def ask() -> Any:
        try:
            return client().get_object(Bucket=bucket, Key=key, **span)["Body"]
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:  # nothing is there
                return BytesIO()
            raise

    for attempt in range(TRIES):
        body = call(uri, ask)
        try:
            return body.read()
        except (HTTPClientError, IncompleteReadError):
            time.sleep(0.2 * 2**attempt)
    raise Unreachable(f"{uri}: the connection broke {TRIES} times while reading")


@patient
def write(uri: str, data: bytes) -> None:
    bucket, key = split(uri)
    if len(data) < MULTIPART:
        call(uri, lambda: client().put_object(Bucket=bucket, Key=key, Body=data))
    else:
        call(uri, lambda: client().upload_fileobj(BytesIO(data), bucket, key))


@patient
def create(uri: str, data: bytes) -> bool:
    """A put on the condition that there is none; whether what is there is ours."""
    from botocore.exceptions import ClientError

    bucket, key = split(uri)

    def ask() -> bool:
        for attempt in range(TRIES):
            try:
                client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status == 412:
                    return False
                if status != 409:  # it met another put or delete: not decided, ask again
                    raise
                time.sleep(0.1 * 2**attempt)
        return False

    if call(uri, ask):
        return True
    try:  # the client repeats a put whose answer got lost: the object in the way may be our own
        return read(uri, 0, None) == data
    except FileNotFoundError:
        return False


@patient
def upload(path: Path, uri: str) -> None:
    bucket, key = split(uri)
    with path.open("rb") as file:  # not upload_file: its errors hide what S3 answered
        call(uri, lambda: client().upload_fileobj(file, bucket, key))


@patient
def download(uri: str, path: Path) -> None:
    bucket, key = split(uri)
    call(uri, lambda: client().download_file(bucket, key, str(path)))


@patient
def size(uri: str) -> int:
    bucket, key = split(uri)
    return call(uri, lambda: client().head_object(Bucket=bucket, Key=key))["ContentLength"]


@patient
def age(uri: str) -> float:
    """Seconds since an object was written, by the server's clock."""
    bucket, key = split(uri)
    answer = call(uri, lambda: client().head_object(Bucket=bucket, Key=key))
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date) if date else datetime.now(UTC)
    return (now - answer["LastModified"]).total_seconds()


def list_objects(uri: str) -> Iterator[tuple[str, int]]:
    """Every object below a prefix: its name relative to it, its bytes; not the markers of empty folders."""
    bucket, key = split(uri)
    prefix = key.rstrip("/") + "/" if key.rstrip("/") else ""
    after: dict[str, str] = {}
    while True:
        page = _page(uri, bucket, prefix, after)
        for item in page.get("Contents", []):
            name = item["Key"][len(prefix) :]
            if name and not name.endswith("/"):
                yield name, item["Size"]
        if not page.get("IsTruncated"):
            return
        after = {"ContinuationToken": page["NextContinuationToken"]}


@patient
def _page(uri: str, bucket: str, prefix: str, after: dict[str, str]) -> dict[str, Any]:
    return call(uri, lambda: client().list_objects_v2(Bucket=bucket, Prefix=prefix, **after))


@patient
def delete(uri: str) -> None:
    bucket, key = split(uri)
    call(uri, lambda: client().delete_object(Bucket=bucket, Key=key))
