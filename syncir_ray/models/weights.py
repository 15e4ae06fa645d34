"""Where weights come from: a hub id, a local folder or an S3 folder, for every model alike.

A model is named in one of four ways:

    s3://bucket/prefix          a folder in object storage
    package:name/path           a folder inside an installed Python package, wherever each machine has it
    org/name, org/name@revision a model of the Hugging Face hub
    anything else               a local folder

`weights/resnet-50` has the form of a hub id too. A name is local when it starts with `/`, `./`, `../` or `~`,
when its first part is a folder here or is `weights`, or when it has not exactly one `/`.

Only safetensors and the plain text files beside them are read: no pickle is opened and no code is fetched.
"""

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.models import hub
from syncir_ray.models.folders import content, digest, fault, files, wanted

PACKAGE = "package:"


def is_local(model: str) -> bool:
    """Whether `model` names a local folder (existing or not), by the rules at the top of this module."""
    if storage.is_s3(model):
        return False
    if model.startswith(("/", "./", "../", "~", PACKAGE)):
        return True
    first, _, rest = model.partition("/")
    return first == "weights" or Path(first).is_dir() or not rest or "/" in rest.partition("@")[0]


def check(model: str) -> str:
    """Whether `model` can be had, found out in seconds: its revision, for the run record.

    The revision of a hub model is its commit (`fetch("org/name@commit")` then gives that one and no other).
    Of a local or S3 folder it is `sha256:` of a digest over the sorted names and sizes of its files; locally
    over their content too, of safetensors only the first and last MiB.

    Raises:
        UserError: there is no such model, it has no safetensors, or the hub or S3 does not answer.
    """
    if storage.is_s3(model):
        return digest((name, size, b"") for name, size in _listed(model).items())
    if is_local(model):
        folder = _folder(model)
        return digest((name, size, content(folder / name)) for name, size in files(folder).items())
    if cached := hub.cached(model):
        return cached.name
    return hub.asked(model)


def fetch(model: str) -> Path:
    """A local folder with the files of `model`, downloaded if need be.

    A hub model that is whole in the local cache is taken from there, without asking whether its branch has
    moved. An S3 folder is copied below SYNCIR_CACHE (default ~/.cache/syncir_ray) once per listing and
    machine; several processes may ask at once.

    Raises:
        UserError: as `check`.
    """
    if storage.is_s3(model):
        return _copied(model)
    if is_local(model):
        return _folder(model)
    return hub.cached(model) or hub.downloaded(model)


def pinned(model: str, revision: str) -> str:
    """The name by which any worker, wherever it runs, loads what `check` gave this revision of."""
    if model.startswith(PACKAGE):
        return model
    if storage.is_s3(model) or is_local(model):
        return storage.absolute(model)
    return f"{model.partition('@')[0]}@{revision}"


def _folder(model: str) -> Path:
    folder = _packaged(model) if model.startswith(PACKAGE) else Path(model).expanduser()
    if not folder.is_dir():
        first = model.partition("/")[0]
        mend = "'make weights' builds it" if first == "weights" else "a hub id is org/name or org/name@revision"
        raise UserError(f"{model}: no such folder; {mend}")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if amiss := fault(names, lambda name: (folder / name).read_bytes()):
        raise UserError(f"{model}: the folder {amiss}")
    return folder


def _packaged(model: str) -> Path:
    name, _, path = model.removeprefix(PACKAGE).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{model}: no package {name!r} is installed here")
    return Path(spec.submodule_search_locations[0], path)


def _listed(model: str) -> dict[str, int]:
    """Relative name -> size of what is read of an S3 folder."""
    try:
        sizes = {entry.name: entry.size for entry in storage.list_files(model) if storage.inside(entry.name)}
        if not sizes:
            raise UserError(f"{model}: there is nothing below this prefix")
        if amiss := fault(sizes, lambda name: storage.read(storage.join(model, name))):
            raise UserError(f"{model}: the prefix {amiss}")
    except OSError as error:
        raise UserError(f"{error}; check AWS_ENDPOINT_URL and AWS_REGION") from None
    return {name: size for name, size in sizes.items() if wanted(name)}


def _copied(model: str) -> Path:
    from filelock import FileLock

    sizes = _listed(model)
    key = digest((f"{model}/{name}", size, b"") for name, size in sizes.items()).removeprefix("sha256:")
    cache = Path(os.environ.get("SYNCIR_CACHE") or "~/.cache/syncir_ray").expanduser()
    folder = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    # The lock spares a machine's eight actors eight downloads; the rename is what makes the folder whole.
    with FileLock(cache / f"{key}.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as scratch:
                whole = Path(scratch, "model")
                for name in sizes:
                    storage.download(storage.join(model, name), whole / name)
                try:
                    whole.rename(folder)
                except OSError:  # a lock on a network disk may not hold: another's copy is as good
                    if not folder.is_dir():
                        raise
    return folder
