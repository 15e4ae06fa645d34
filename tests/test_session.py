"""What a user's terminal is spared of Ray's own words, and where they are."""

import os
import subprocess
import sys

SCRIPT = """
import os, time
from pathlib import Path
import ray
from ray._private import utils, worker
from syncir_ray import session
from syncir_ray.config import Config, Manifest

session.start(Config(manifest=Manifest(images="x", root="x")))
os.write(2, b"core_worker.cc: from C++\\n")
gcs = worker.global_worker.gcs_client
utils.publish_error_to_driver("node_died", "a raylet died\\nlast words", gcs_client=gcs)
log, end = Path(worker._global_node.get_logs_dir_path(), "driver-native.log"), time.monotonic() + 20
while "last words" not in log.read_text() and time.monotonic() < end:
    time.sleep(0.1)
time.sleep(0.5)  # the line comes after
print("LOG", log.read_text())
"""


def test_rays_words_are_a_line_on_the_terminal_and_whole_in_its_log():
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"RAY_ADDRESS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    terminal, log = ended.stdout.split("LOG ")
    assert terminal == "ray       a raylet died\n" and not ended.stderr
    assert "from C++" in log and "a raylet died\nlast words" in log
