"""The proxy before a real S3 server: what misbehaves is met, and what is written and read through it is whole."""

import time

import pytest

from syncir_ray import storage
from tests import s3_server
from tests.faults import proxy


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    server = s3_server.Server(tmp_path_factory.mktemp("weed"))
    server.start()
    try:
        s3_server.client(server.environment).create_bucket(Bucket="test")
        with proxy.serving("127.0.0.1", server.address) as made, pytest.MonkeyPatch.context() as patch:
            for name, value in {**server.environment, "AWS_ENDPOINT_URL": made.url}.items():
                patch.setenv(name, value)
            yield made
    finally:
        server.kill()


@pytest.mark.parametrize("kind", ["slow down", "cut", "silent"])
def test_objects_are_whole_whatever_they_meet(before, kind):
    place, body = f"s3://test/{kind.replace(' ', '-')}", bytes(range(256)) * 400
    met = before.met[kind]
    before.trouble = proxy.Trouble(kind, time.monotonic() + 2, 0.3, silence=0.2)
    names = {f"{i:02}" for i in range(12)}
    with storage.patience():
        for name in names:
            storage.write(storage.join(place, name), body)
        assert storage.create(storage.join(place, "new"), b"mine")
        assert not storage.create(storage.join(place, "new"), b"another")
        assert {entry.name for entry in storage.list_files(place)} == names | {"new"}
        assert all(storage.read(storage.join(place, name)) == body for name in names)
        assert storage.read(storage.join(place, "00"), 100, 300) == body[100:400]
    assert before.met[kind] > met
