"""Opening a local model folder with transformers: quietly, from safetensors, and whole or not at all."""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers.utils import logging

from syncir_ray.errors import UserError


def quiet() -> None:
    """No progress bars and no advice: several actors share one terminal."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def pretrained(kind: Any, folder: Path, optional: str = "-") -> tuple[Any, bool]:
    """A model of class `kind` in float32 on the CPU, and whether the folder has weights named `optional`*.

    transformers fills weights that a folder lacks with random numbers and goes on; here that is an error, but
    for those named `optional`*, which the caller promises not to use then.

    Raises:
        UserError: the folder does not load as `kind`, or lacks weights.
    """
    quiet()
    try:
        model, info = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: does not load as {kind.__name__}: {first_line(error)}") from error
    missing = sorted(info["missing_keys"])
    needed = [key for key in missing if not key.startswith(optional)]
    if needed:
        name = type(model).__name__
        raise UserError(f"{folder}: not the weights of a {name}: lacks {needed[0]} ({len(needed)} in all)")
    return model, len(needed) == len(missing)


def tokenizer(folder: Path) -> Any:
    """The folder's tokenizer.

    Raises:
        UserError: it has none that loads.
    """
    quiet()
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: its tokenizer does not load: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error that says anything, for a message of one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
