"""Who reads what: files, addresses and memory, watched from outside of the processes that are tried."""

import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

IN_ACCESS, IN_OPEN = 1, 0x20
IN_NONBLOCK = os.O_NONBLOCK


@contextmanager
def opened(*paths: Path) -> Iterator[list[Path]]:
    """The files of `paths` that any process of the machine opens or reads meanwhile; filled in at the end."""
    libc, found = ctypes.CDLL(None, use_errno=True), list[Path]()
    watch = libc.inotify_init1(IN_NONBLOCK)
    assert watch >= 0, os.strerror(ctypes.get_errno())
    try:
        names = {libc.inotify_add_watch(watch, os.fsencode(p), IN_ACCESS | IN_OPEN): p for p in paths}
        assert min(names) > 0, os.strerror(ctypes.get_errno())
        yield found
        with suppress(BlockingIOError):  # nothing has happened
            events = os.read(watch, 2**16)
            while events:  # watch, mask, cookie, length of a name that files do not have: four bytes each
                found.append(names[int.from_bytes(events[:4], "little")])
                events = events[16 + int.from_bytes(events[12:16], "little") :]
    finally:
        os.close(watch)


class Tap:
    """A port of this machine that passes everything on to `target`, and keeps the first line of each request.
    Without a target it hangs up."""

    def __init__(self, target: str | None = None) -> None:
        self.lines: list[str] = []
        self._target = urlsplit(target) if target else None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                there, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(there,), daemon=True).start()

    def _serve(self, there: socket.socket) -> None:
        with suppress(OSError), there:
            if self._target is None:
                self._note(there.recv(2**16))
                return
            with socket.create_connection((self._target.hostname or "", self._target.port or 80)) as here:
                threading.Thread(target=self._back, args=(here, there), daemon=True).start()
                while data := there.recv(2**16):
                    self._note(data)
                    here.sendall(data)

    @staticmethod
    def _back(here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(2**16):
                there.sendall(data)

    def _note(self, data: bytes) -> None:
        verb = data.split(b" ", 1)[0]
        if verb in (b"GET", b"HEAD", b"PUT", b"POST", b"DELETE") or self._target is None:
            self.lines.append(data.split(b"\r\n", 1)[0].decode("latin-1"))

    def close(self) -> None:
        self._socket.close()
