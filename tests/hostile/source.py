"""Three hostile sources (a folder, a local table, a table on S3), tried in one process with a Ray of its own."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import yaml

from scripts.peak_memory import Peaks
from syncir_ray import storage
from syncir_ray.run import Run
from tests import world
from tests.hostile import archives, images
from tests.hostile.watch import Tap

NAMES = (
    "..jpg", "a..b.jpg", "...jpg", "-rf.jpg", " .jpg", "new\nline.jpg", "tab\tand\r.jpg", "\x1b[2J\x1b[31mred.jpg",
    "\u202egpj.exe.jpg", "é日本🎈.jpg", "e\u0301.jpg", "..\\..\\up.jpg", "%2e%2e%2fup.jpg", "$(touch ran).jpg",
    "`touch ran`.jpg", "<img src=x onerror=alert(1)>.jpg", "[bold red]x.jpg", "{{7*7}}.jpg", "'\";--.jpg",
    "a&b=c?d#e.jpg", "x" * 251 + ".jpg", "UPPER.JPG", "two.jpg.png", "CON.jpg", "null\u2400.jpg",
)  # fmt: skip
HIDDEN = {name for name in NAMES if name.startswith(".")}


class Sources:
    """The sources, their runs, and what was seen while they were tried.

    Args:
        s3: a prefix; AWS_ENDPOINT_URL leads to it.
    """

    def __init__(self, folder: Path, s3: str) -> None:
        self.folder, self.s3 = folder, s3
        self.good = images.encoded(images.picture(random.Random(9)), "JPEG", comment=images.MARK.encode())
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.canary = self.outside / "canary.jpg"
        self.canary.write_bytes(self.good)
        self.http, self.tap = Tap(), Tap(os.environ["AWS_ENDPOINT_URL"])
        self.files = {
            name: images.planted(data, str(self.canary), self.http.url)
            for name, data in images.everything().items()
        }
        bad = [name for name in self.files if name.startswith(("cut", "noise", "polyglot", "size"))]
        self.some = [*bad[::9], "polyglot-jpeg-zip.jpg", "scans-some.jpg"]
        """Of them on S3: too few good ones for a group, which spares the later stages."""
        self.tars = archives.everything(str(self.canary))
        (self.outside / "x.tar").write_bytes(self.tars["within.tar"])
        self.rows: dict[str, int] = {}
        """Of each table."""
        self.images = {
            "folder": str(self._fill_folder(folder / "in")),
            "table": str(self._fill_table(folder / "table")),
            "s3": self._fill_s3(f"{s3}/in"),
        }
        self.runs = {
            "folder": Run(str(folder / "run-1")),
            "table": Run(str(folder / "run-2")),
            "s3": Run(f"{s3}/run"),
        }

    def _fill_folder(self, folder: Path) -> Path:
        world.images(folder)
        for name, data in {**self.files, **self.tars, **dict.fromkeys(NAMES, self.good)}.items():
            (folder / name).write_bytes(data)
        archives.holes(str(folder / "holes.tar"), 4 * 2**30)
        with (folder / "huge.jpg").open("wb") as file:
            file.write(self.good)
            file.truncate(700 * 2**20)
        os.mkfifo(folder / "pipe.jpg")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(
                f"/proc/self/fd/{(held := os.open(folder, os.O_RDONLY))}/socket.jpg"
            )  # the name must be short
            os.close(held)
        (folder / "folder.jpg").mkdir()
        self._link(folder)
        return folder

    def _link(self, folder: Path) -> None:
        for name, target in {
            "out.jpg": self.canary, "up.jpg": "../outside/canary.jpg", "folder": self.outside,
            "passwd.jpg": "/etc/passwd", "environ.jpg": "/proc/self/environ", "zero.jpg": "/dev/zero",
            "loop.jpg": "link-loop.jpg", "gone.jpg": "nowhere", "out.tar": self.outside / "x.tar",
            "chain.jpg": "link-out.jpg", "good.jpg": "image-000.jpg",
        }.items():  # fmt: skip
            (folder / f"link-{name}").symlink_to(target)

    def _fill_table(self, folder: Path) -> Path:
        folder.mkdir()
        shutil.copy(self.folder / "in" / "image-000.jpg", folder)
        self._link(folder)
        links = ("link-good.jpg", "link-out.jpg", "link-folder/canary.jpg", "link-zero.jpg", "link-environ.jpg")
        lines = [json.dumps({"uri": uri, "caption": "a dog"}) for uri in [*self.uris(), "image-000.jpg", *links]]
        lines += [
            '{"uri": "x.jpg", "caption": "' + images.MARK * 80_000 + '"}',
            images.MARK,
            "[" * 9000,
            '{"uri": 7}',
        ]
        (folder / "t.jsonl").write_text("\n".join(lines))
        self.rows["table"] = len(lines)
        return folder / "t.jsonl"

    def _fill_s3(self, prefix: str) -> str:
        for name in self.some:
            storage.write(f"{prefix}/{name}", self.files[name])
        for key in (f"{prefix}/new\nline é.jpg", f"{self.s3}/canary.jpg", f"{prefix}2/canary.jpg"):
            storage.write(key, self.good)
        uris = [*self.uris(), *self.some, "new\nline é.jpg", f"{prefix}/{self.some[0]}", f"{prefix}/none.jpg"]
        storage.write(
            f"{prefix}/t.jsonl", "\n".join(json.dumps({"uri": uri, "caption": "a cat"}) for uri in uris).encode()
        )
        self.rows["s3"] = len(uris)
        return f"{prefix}/t.jsonl"

    def uris(self) -> list[str]:
        """What a table may name and must not be read: files of this machine, other addresses, other objects."""
        canary, up = str(self.canary), "../" * 12 + str(self.canary)[1:]
        server, bare = self.http.url, self.http.url.removeprefix("http:")
        return [
            canary, up, f"a/{up}", f"file://{canary}", f"file:{canary}", f"FILE://a{canary}", f"//{canary}",
            "../outside/canary.jpg", "a/../../outside/canary.jpg", "./../outside/canary.jpg", "~/canary.jpg",
            "..\\outside\\canary.jpg", "%2e%2e/outside/canary.jpg", "image-000.jpg/../../outside/canary.jpg",
            f"{self.s3}/canary.jpg", f"{self.s3}/in2/canary.jpg", f"{self.s3}/in/../canary.jpg", "../canary.jpg",
            "s3://canary/canary.jpg", "s3:///canary/canary.jpg", "../in2/canary.jpg", "s3://",
            f"{server}/canary.jpg", f"{bare}/canary.jpg", f"{server}@127.0.0.1/x.jpg", f"ftp://127.0.0.1{canary}",
            f"a/|cat {canary}", f"| cat {canary}", f"zip://{canary}!x", f"tar://{canary}", "$HOME/canary.jpg",
            "data:image/png;base64,AAAA", "/proc/self/environ", "/dev/zero", "/dev/stdin", "-", "*", "?", ".",
            "..", "", " ", "\0.jpg", f"x\0{canary}", f"{canary}\n", "x" * 5000, "a/" * 3000, "\ud800", "https://[::1",
        ]  # fmt: skip

    def run(self, url: str, ray: Path) -> str:
        """Synthesize from all three, with query texts from `url` and Ray's files in `ray`; what is printed."""
        config = world.config(self.folder, world.models(self.folder / "models"), url)
        values = yaml.safe_load(config.read_text())
        for stage in ("features", "captions", "queries"):
            values[stage]["rows"] = 64
        values["features"]["pool"] = {"max": 1}  # a second actor would take longer to start than the first to end
        values["captions"]["source"] = "manifest"
        config.write_text(yaml.safe_dump(values))
        more = ["--config", str(config), "--max-seeds", "6"]
        commands = [
            ["synthesize", "--images", self.images[name], "--out", run.root, *more]
            for name, run in self.runs.items()
        ]
        process = subprocess.Popen(
            [sys.executable, "-c", world.COMMANDS, json.dumps(commands)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "AWS_ENDPOINT_URL": self.tap.url, "RAY_TMPDIR": str(ray)},
        )  # fmt: skip
        self.memory = Peaks(process.pid)
        try:
            return process.communicate(timeout=240)[0]
        finally:
            process.kill()
            self.memory.stop()
            self.http.close()
            self.tap.close()
