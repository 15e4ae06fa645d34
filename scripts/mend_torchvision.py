"""Let a CUDA build of torchvision import beside a CPU build of torch.

Package indexes that mirror PyPI hold torchvision's CUDA wheel only. Beside a CPU torch its compiled
operators cannot load, and `import torchvision` then fails on `torchvision::nms` where it registers
their shapes; timm, open_clip, transformers and vLLM fail with it. Nothing here uses those operators, so
it is enough to declare the names. A `.pth` file does that in every process of the environment, Ray's
workers and vLLM's engine too. `make env` runs this; it does nothing where torchvision already imports.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

HOOK = '''\
"""Declares torchvision's compiled operators before it is imported (see scripts/mend_torchvision.py)."""

import importlib.abc
import sys


class _Declare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for signature in (
            "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        ):
            library.define(signature)
        torch._torchvision_names = library  # the names live as long as the library object
        return None


sys.meta_path.insert(0, _Declare())
'''


def imports() -> bool:
    """Whether a fresh interpreter of this environment can import torchvision."""
    return subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode == 0


def main() -> int:
    if imports():
        return 0
    site = Path(sysconfig.get_paths()["purelib"])
    (site / "_torchvision_names.py").write_text(HOOK)
    (site / "_torchvision_names.pth").write_text("import _torchvision_names\n")
    if not imports():
        print("torchvision still does not import; see `python -c 'import torchvision'`", file=sys.stderr)
        return 1
    print("torchvision: a CUDA build beside CPU torch; its operator names are now declared at start-up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
