"""Models of the Hugging Face hub: from its local cache, or else asked for and downloaded."""

from pathlib import Path

from syncir_ray.errors import UserError
from syncir_ray.models.folders import FILES, fault, files

# A transformers, sentence-transformers or open_clip model has one of these beside its weights; timm's needs none.
BESIDE = {
    "modules.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "vocab.txt",
    "open_clip_config.json",
}  # fmt: skip
SECONDS = 5  # a hub that does not answer is told within seconds


def cached(model: str) -> Path | None:
    """The model's folder in the hub cache, if it is there and whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    name, _, revision = model.partition("@")
    try:
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(FILES), local_files_only=True)
        )
    except LocalEntryNotFoundError:
        return None
    except HFValidationError:
        raise UserError(f"{model}: neither a folder here nor a hub id (org/name or org/name@revision)") from None
    present = files(folder)
    # Other programs put a part into the cache too: a configuration alone, or weights without their tokenizer.
    whole = not fault(present, lambda name: (folder / name).read_bytes()) and (
        present.keys() & BESIDE or b'"architecture"' in (folder / "config.json").read_bytes()
    )
    return folder if whole else None


def asked(model: str) -> str:
    """The commit of a hub model that the hub says can be loaded."""
    from huggingface_hub import HfApi

    name, _, revision = model.partition("@")
    try:
        info = HfApi().model_info(name, revision=revision or None, timeout=SECONDS)
    except Exception as error:
        raise _refused(model, error) from None
    if amiss := fault((file.rfilename for file in info.siblings or ()), lambda _: b'{"weight_map": {}}'):
        raise UserError(f"{model}: the hub model {amiss}")
    return str(info.sha)


def downloaded(model: str) -> Path:
    """The model's folder in the hub cache, filled."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    asked(model)  # refuses pickles before anything is downloaded
    disable_progress_bars()
    name, _, revision = model.partition("@")
    try:
        # By its branch, not its commit: so the cache also learns which commit the branch is.
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=list(FILES)))
    except Exception as error:
        raise _refused(model, error) from None
    if amiss := fault(files(folder), lambda name: (folder / name).read_bytes()):
        raise UserError(f"{model}: the downloaded model {amiss}")
    return folder


def _refused(model: str, error: Exception) -> UserError:
    """The hub's refusal in one line."""
    from huggingface_hub import errors, get_token

    if isinstance(error, errors.GatedRepoError):
        return UserError(f"{model}: access must be granted on its hub page first; then set HF_TOKEN")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{model}: the hub model has no such revision")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(f"{model}: no such folder here, nor a model on the hub (a private one needs HF_TOKEN)")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return UserError(f"{model}: not in the hub cache, and HF_HUB_OFFLINE is set; name a local or s3:// folder")
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if token := get_token():  # which a server may repeat
        reason = reason.replace(token, "***")
    return UserError(f"{model}: hub unreachable ({reason}); name a local or an s3:// folder")
