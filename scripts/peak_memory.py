"""The peak memory of a process and of all that descend from it, watched from outside (Linux)."""

import os
import threading
from contextlib import suppress
from pathlib import Path


class Peaks(threading.Thread):
    """Looks at `pid` and its descendants every `seconds` until `stop`.

    `bytes` holds the peak resident memory (VmHWM) of each, by its id and command. What a process takes in its last
    `seconds` alone may be missed.
    """

    def __init__(self, pid: int, seconds: float = 0.2) -> None:
        super().__init__(daemon=True)
        self.pid, self.seconds = pid, seconds
        self.bytes: dict[tuple[int, str], int] = {}
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(self.seconds):
            for process in self._family():
                with suppress(OSError, KeyError):  # over by now
                    lines = Path(f"/proc/{process}/status").read_text().splitlines()
                    status = dict(line.split(":", 1) for line in lines)
                    command = (
                        Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                    )
                    key, peak = (process, command), int(status["VmHWM"].split()[0]) * 1024
                    self.bytes[key] = max(self.bytes.get(key, 0), peak)

    def _family(self) -> set[int]:
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):
                    stat = Path(f"/proc/{entry}/stat").read_text()
                    parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
        family = {self.pid}
        while more := {child for child, parent in parents.items() if parent in family} - family:
            family |= more
        return family

    def largest(self, command: str) -> int:
        """The largest peak, in bytes, of a process whose command begins so; 0 where there was none."""
        return max((peak for (_, name), peak in self.bytes.items() if name.startswith(command)), default=0)

    def stop(self) -> None:
        self._over.set()
        self.join(timeout=5)
