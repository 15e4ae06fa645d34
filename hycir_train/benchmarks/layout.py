"""Annotation files: where they lie, and what they hold or why not."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from syncir_ray import storage
from syncir_ray.errors import UserError

T = TypeVar("T")


def home(annotations: str, repository: str, captions: str) -> str:
    """The folder of the official layout: `annotations`, or the folder in it named as the official repository.

    `captions` is a file of the layout by which the folder is known.

    Raises:
        UserError: it is neither.
    """
    root = storage.absolute(annotations)
    for folder in (root, storage.join(root, repository)):
        if storage.exists(storage.join(folder, captions)):
            return folder
    raise UserError(
        f"--annotations {annotations}: there is no {captions} and no {repository}/{captions}; "
        f"name the folder of the official {repository} repository, or the one it lies in"
    )


def parsed(uri: str, parse: Callable[[Any], T]) -> T:
    """`parse` of a JSON file.

    Raises:
        UserError: the file is not there, is not JSON, or is not of the form that `parse` takes.
    """
    try:
        return parse(json.loads(storage.read(uri)))
    except FileNotFoundError:
        raise UserError(f"{uri}: is not there; the official layout has it") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{uri}: not of the official form ({type(error).__name__}: {error})") from None


def known(option: str, value: str, values: Sequence[str], of: str) -> None:
    """Refuse a value that a benchmark does not have.

    Raises:
        UserError: it is none of `values`.
    """
    if value not in values:
        raise UserError(f"--{option} {value}: {of} has {', '.join(values)}")
