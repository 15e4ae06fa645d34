"""The only door to disk and S3: whole objects in, whole objects out.

An address is a local path or `s3://bucket/key`. An object appears whole or not at all: locally it is written
beside its place and renamed, on S3 a put is atomic. Credentials, region and endpoint are what boto3 finds in
the environment (`AWS_ENDPOINT_URL` for other S3 servers); none of them is ever written anywhere.
"""

import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from syncir_ray.errors import UserError

T = TypeVar("T")

# One put takes up to 5 GB; the largest object that a run writes whole is far below. Above this, parts.
MULTIPART = 64 * 2**20
# botocore retries connecting and 5xx itself; a body cut in the middle is ours to ask for again.
BODY_TRIES = 5


@dataclass(frozen=True)
class Entry:
    """A file below a listed address: its name relative to that address, `/` between parts; bytes."""

    name: str
    size: int


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def join(uri: str, *parts: str) -> str:
    """`uri` followed by relative parts, `/` between them."""
    return "/".join([uri.rstrip("/"), *(p.strip("/") for p in parts)])


def absolute(uri: str) -> str:
    """A local path made absolute (workers have other working directories); S3 as it is, no `/` at its end."""
    return uri.rstrip("/") if is_s3(uri) else os.path.abspath(os.path.expanduser(uri))


def inside(name: str) -> bool:
    """Whether a relative name stays below the address it is joined to."""
    parts = re.split(r"[/\\]", name)
    return bool(name) and not os.path.isabs(name) and ".." not in parts and "\0" not in name


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise UserError(f"{uri}: an S3 address is s3://bucket/key")
    return bucket, key


@lru_cache(maxsize=1)
def _client() -> Any:
    import boto3
    from botocore.config import Config

    # connect 5 s: an endpoint that does not answer is told within seconds; read 60 s: a slow disk behind it.
    return boto3.client(
        "s3",
        config=Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"max_attempts": 6, "mode": "standard"},
            max_pool_connections=64,
        ),
    )


def _call(uri: str, ask: Callable[[], T]) -> T:
    """Run one S3 call; what the user can mend becomes one line, a missing object FileNotFoundError."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        return ask()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in ("404", "NoSuchKey", "NotFound"):
            raise FileNotFoundError(uri) from None
        if code == "NoSuchBucket":
            raise UserError(f"{uri}: there is no such bucket") from None
        if status in (401, 403):
            raise UserError(
                f"{uri}: S3 refused the key ({code}); see AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the policy"
            ) from None
        raise OSError(f"{uri}: S3 answered {code} ({status})") from None
    except NoCredentialsError:
        raise UserError(f"{uri}: no S3 credentials; set AWS_ACCESS_KEY_ID or an instance profile") from None
    except BotoCoreError as error:
        raise OSError(f"{uri}: S3 did not answer ({type(error).__name__})") from None


def read(uri: str, offset: int = 0, length: int | None = None) -> bytes:
    """The bytes of an object, or `length` of them from `offset`.

    Raises:
        FileNotFoundError: there is no such object.
        OSError: it could not be read, or ends before `offset + length`.
        UserError: S3 refused the key.
    """
    if not is_s3(uri):
        with open(uri, "rb") as file:
            file.seek(offset)
            data = file.read() if length is None else file.read(length)
    else:
        data = _read_s3(uri, offset, length)
    if length is not None and len(data) != length:
        raise OSError(f"{uri}: ends before byte {offset + length}")
    return data


def _read_s3(uri: str, offset: int, length: int | None) -> bytes:
    from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError

    if length == 0:
        return b""
    bucket, key = _split(uri)
    span = (
        {}
        if not offset and length is None
        else {"Range": f"bytes={offset}-" + ("" if length is None else str(offset + length - 1))}
    )
    for attempt in range(BODY_TRIES):
        try:
            return _call(uri, lambda: _client().get_object(Bucket=bucket, Key=key, **span))["Body"].read()
        except (HTTPClientError, IncompleteReadError, ResponseStreamingError):
            time.sleep(0.2 * 2**attempt)
    raise OSError(f"{uri}: the connection broke {BODY_TRIES} times while reading")


def write(uri: str, data: bytes) -> None:
    """Write an object whole, replacing what was there."""
    if is_s3(uri):
        bucket, key = _split(uri)
        if len(data) < MULTIPART:
            _call(uri, lambda: _client().put_object(Bucket=bucket, Key=key, Body=data))
        else:
            import io

            _call(uri, lambda: _client().upload_fileobj(io.BytesIO(data), bucket, key))
        return
    with _beside(uri) as temporary:
        temporary.write_bytes(data)
        os.replace(temporary, uri)


def create(uri: str, data: bytes) -> bool:
    """Write an object only if there is none; whether it was written. Of two writers one succeeds."""
    if is_s3(uri):
        from botocore.exceptions import ClientError

        bucket, key = _split(uri)

        def ask() -> bool:
            try:
                _client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (409, 412):
                    return False
                raise

        return _call(uri, ask)
    with _beside(uri) as temporary:
        temporary.write_bytes(data)
        try:
            os.link(temporary, uri)
            return True
        except FileExistsError:
            return False


class _beside:
    """A temporary file in the folder of `uri`, on its file system, gone at the end. Its name is hidden from
    listings, so that one left by a killed process is never read."""

    def __init__(self, uri: str) -> None:
        self.folder = os.path.dirname(uri)
        self.path = Path(self.folder, f".{uuid.uuid4().hex}.tmp")

    def __enter__(self) -> Path:
        os.makedirs(self.folder, exist_ok=True)
        return self.path

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)


def upload(path: Path, uri: str) -> None:
    """Copy a local file to an address, in parts where it is large."""
    if is_s3(uri):
        bucket, key = _split(uri)
        _call(uri, lambda: _client().upload_file(str(path), bucket, key))
        return
    with _beside(uri) as temporary:
        shutil.copyfile(path, temporary)
        os.replace(temporary, uri)


def download(uri: str, path: Path) -> None:
    """Copy an object to a local file, which appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
        temporary = Path(folder, "file")
        if is_s3(uri):
            bucket, key = _split(uri)
            _call(uri, lambda: _client().download_file(bucket, key, str(temporary)))
        else:
            shutil.copyfile(uri, temporary)
        os.replace(temporary, path)


def exists(uri: str) -> bool:
    """Whether there is an object at `uri`."""
    if not is_s3(uri):
        return os.path.isfile(uri)
    try:
        size(uri)
        return True
    except FileNotFoundError:
        return False


def size(uri: str) -> int:
    """Bytes of an object.

    Raises:
        FileNotFoundError: there is no such object.
    """
    if not is_s3(uri):
        return os.path.getsize(uri)
    bucket, key = _split(uri)
    return _call(uri, lambda: _client().head_object(Bucket=bucket, Key=key))["ContentLength"]


def contains(root: str, uri: str) -> bool:
    """Whether the object at `uri`, links followed, lies below `root`."""
    if is_s3(root):
        return uri.startswith(root.rstrip("/") + "/")
    return os.path.realpath(uri).startswith(os.path.realpath(root).rstrip(os.sep) + os.sep)


def list_files(uri: str) -> Iterator[Entry]:
    """Every file below a folder or prefix, in no order; hidden files and links that lead out are left out.

    Raises:
        UserError: S3 refused the key, or there is no such bucket.
    """
    if is_s3(uri):
        bucket, key = _split(uri)
        prefix = key.rstrip("/") + "/" if key.rstrip("/") else ""
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        turn = iter(pages)
        while page := _call(uri, lambda: next(turn, None)):
            for item in page.get("Contents", []):
                name = item["Key"][len(prefix) :]
                if name and not name.endswith("/"):
                    yield Entry(name, item["Size"])
        return
    for folder, folders, names in os.walk(uri):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in names:
            path = os.path.join(folder, name)
            if name.startswith(".") or not os.path.isfile(path):
                continue
            if os.path.islink(path) and not contains(uri, path):
                continue
            yield Entry(os.path.relpath(path, uri).replace(os.sep, "/"), os.path.getsize(path))


def delete(uri: str) -> None:
    """Remove one object; none is no error."""
    if is_s3(uri):
        bucket, key = _split(uri)
        _call(uri, lambda: _client().delete_object(Bucket=bucket, Key=key))
    else:
        Path(uri).unlink(missing_ok=True)
