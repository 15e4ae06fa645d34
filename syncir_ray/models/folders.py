"""What a model folder is made of, wherever it lies: which files are read, what is amiss, a digest."""

import hashlib
import json
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path

# Weights, configurations, tokenizers and chat templates. `*` also spans `/`: sentence-transformers has folders.
FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
# What says which model it is: of transformers and timm, of sentence-transformers, of open_clip.
CONFIGURATIONS = {"config.json", "modules.json", "open_clip_config.json"}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5")
ENDS = 2**20  # bytes


def wanted(name: str) -> bool:
    """Whether a file of this name is read."""
    return any(fnmatch(name, pattern) for pattern in FILES)


def fault(names: Iterable[str], read: Callable[[str], bytes]) -> str | None:
    """What keeps a folder with these files from being a model, or None. `read` reads its small files."""
    present = set(names)
    if not any(fnmatch(name, "*.safetensors") for name in present):
        pickles = sorted(name for name in present if any(fnmatch(name, pattern) for pattern in PICKLES))
        if pickles:
            return (
                f"has {pickles[0]} but no *.safetensors, and pickles are never opened; convert it, or use a "
                "revision that has safetensors"
            )
        return "has no *.safetensors"
    if not present & CONFIGURATIONS:
        return "has no config.json"
    for name in sorted(present & CONFIGURATIONS):
        try:
            if own_code(json.loads(read(name))):
                return f"wants code to be run that its {name} names, and none is"
        except (ValueError, RecursionError):
            return f"has a broken {name}"
    for index in (name for name in present if name.endswith(".safetensors.index.json")):
        try:
            shards = {str(Path(index).parent / shard) for shard in json.loads(read(index))["weight_map"].values()}
        except (ValueError, LookupError, TypeError, AttributeError):
            return f"has a broken {index}"
        if missing := sorted(shards - present):
            return f"lacks {missing[0]}, which its {index} names"
    return None


def own_code(config: object) -> bool:
    """Whether a configuration asks a library to fetch and run code: open_clip hands `trust_remote_code` on to
    transformers, which takes an `attn_implementation` with a `/` from the hub where `kernels` is installed."""
    if isinstance(config, list):
        return any(own_code(value) for value in config)
    if not isinstance(config, dict):
        return False
    kernel = any("/" in str(config.get(key)) for key in ("attn_implementation", "_attn_implementation"))
    return kernel or bool(config.get("trust_remote_code")) or any(own_code(value) for value in config.values())


def files(folder: Path) -> dict[str, int]:
    """Relative name -> size of what is read of a local folder. Links are followed: a hub cache is all links."""
    found = (path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}
    return {name: size for name, size in sizes.items() if wanted(name) and not name.startswith(".")}


def content(path: Path) -> bytes:
    """The bytes of a file that its digest covers: all, but of safetensors (gigabytes) the two ends."""
    with path.open("rb") as file:
        if path.suffix != ".safetensors":
            return file.read()
        head = file.read(ENDS)
        file.seek(max(0, path.stat().st_size - ENDS))
        return head + file.read()


def digest(entries: Iterable[tuple[str, int, bytes]]) -> str:
    """`sha256:` of the sorted names, sizes and contents."""
    whole = hashlib.sha256()
    for name, size, content in sorted(entries):
        whole.update(f"{name}\0{size}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return f"sha256:{whole.hexdigest()}"
