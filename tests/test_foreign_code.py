"""No pickle is read and no code of a model is run, for every kind of model that either package loads; nor can a
manifest, a configuration or a run directory bring it about."""

import ast
import json
import os
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from hycir_train import encoders
from hycir_train.mapping import Mapping
from hycir_train.model import HyCIR
from syncir_ray import cli, record
from syncir_ray.errors import UserError
from syncir_ray.models import weights
from syncir_ray.models.backbone import Backbone
from syncir_ray.models.captioner import Captioner
from syncir_ray.models.device import Device
from syncir_ray.models.sentence import SentenceEncoder
from syncir_ray.models.writer_transformers import TransformersWriter
from tests import runs, small_encoders, small_models
from tests.hostile.watch import opened

ROOT = Path(__file__).parents[1]
PICKLES = (
    "pytorch_model.bin", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "open_clip_model.bin",
    "model.pt", "model.pth", "model.pkl", "model.ckpt", "checkpoint.pt", "training_args.bin", "optimizer.pt",
    "scheduler.pt", "rng_state.pth", "adapter_model.bin", "vocab.pkl", "a.joblib", "arrays.npy",
)  # fmt: skip
Loader = Callable[[Path], Any]


class Bomb:
    """Unpickled, it leaves a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def hycir(folder: Path) -> Path:
    """A trained model's folder beside its encoder's."""
    encoder = encoders.load(str(small_encoders.clip(folder.with_name("encoder"))), Device(1))
    name = str(folder.with_name("encoder"))
    HyCIR(encoder, Mapping(encoder.feature_width, encoder.token_width, 2), name, weights.check(name)).save(folder)
    return folder


MODELS: dict[str, tuple[Callable[[Path], Path], Loader]] = {
    "timm": (small_models.resnet, lambda f: Backbone(f, 1, 1)),
    "transformers": (lambda f: small_models.resnet(f, "transformers"), lambda f: Backbone(f, 1, 1)),
    "captioner": (small_models.blip, lambda f: Captioner(f, 1, 8, 1, 1)),
    "writer": (small_models.causal_lm, lambda f: TransformersWriter(f, 1, 4, 1)),
    "bert": (small_models.bert, lambda f: SentenceEncoder(f, 1, 1)),
    "sentence": (small_models.sentence_transformer, lambda f: SentenceEncoder(f, 1, 1)),
    "clip": (small_encoders.clip, lambda f: encoders.load(str(f), Device(1))),
    "clip-own-words": (lambda f: small_encoders.clip(f, "own"), lambda f: encoders.load(str(f), Device(1))),
    "blip": (small_encoders.blip, lambda f: encoders.load(str(f), Device(1))),
    "hycir": (hycir, lambda f: HyCIR.load(str(f))),
}


def plant(folder: Path, mark: Path) -> list[Path]:
    """Pickles in a model's folder and in all below it, but for modules of sentence-transformers without weights: a
    folder with a pickle there is refused."""
    places = [folder, *(path for path in folder.rglob("*") if path.is_dir() and "_Pool" not in path.name)]
    planted = [place / name for place in places if "_Norm" not in place.name for name in PICKLES]
    for path in planted:
        path.write_bytes(pickle.dumps(Bomb(mark)))
    return planted


def plant_code(folder: Path, mark: Path) -> None:
    """Code that the configurations in a model's folder name."""
    code = f"import os\nos.makedirs({str(mark)!r}, exist_ok=True)\nclass Own: pass\ndef generate(*a, **k): pass\n"
    for place in (folder, folder / "custom_generate"):
        place.mkdir(exist_ok=True)
        for name in ("own.py", "generate.py", "__init__.py"):
            (place / name).write_text(code)
    kinds = ("Config", "Model", "ModelForCausalLM", "ModelForImageTextToText", "ImageProcessor", "Processor")
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        for path in folder.rglob(name):
            own = {f"Auto{kind}": "own.Own" for kind in kinds} | {"AutoTokenizer": ["own.Own", "own.Own"]}
            path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": own}))


@pytest.mark.parametrize("kind", MODELS)
def test_pickles_beside_the_weights_are_not_opened(kind: str, tmp_path: Path) -> None:
    make, load = MODELS[kind]
    folder, mark = make(tmp_path / "model"), tmp_path / "ran"
    with opened(*plant(folder, mark)) as touched:
        weights.check(str(folder))
        load(weights.fetch(str(folder)))
    assert not touched and not mark.exists()


@pytest.mark.parametrize("kind", MODELS)
def test_code_beside_the_weights_is_not_run(kind: str, tmp_path: Path) -> None:
    make, load = MODELS[kind]
    folder, mark = make(tmp_path / "model"), tmp_path / "ran"
    plant_code(folder, mark)
    with pytest.raises(UserError, match="custom code") if kind == "sentence" else nullcontext():
        load(weights.fetch(str(folder)))
    assert not mark.exists()


@pytest.mark.parametrize("kind", MODELS)
def test_pickles_in_place_of_the_weights_are_refused(kind: str, tmp_path: Path) -> None:
    """Where a pickle has the name of the safetensors, and where these are gone."""
    make, load = MODELS[kind]
    folder, mark = make(tmp_path / "model"), tmp_path / "ran"
    plant(folder, mark)
    for path in folder.rglob("*.safetensors"):
        path.write_bytes(pickle.dumps(Bomb(mark)) + bytes(100))
    with pytest.raises(UserError):
        load(folder)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(UserError):
        load(folder)
    assert not mark.exists()


def test_neither_package_has_a_way_to_read_one() -> None:
    """No call of what unpickles or runs a model's code stands in their source."""
    never = {
        "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pandas.read_pickle",
        "torch.load", "torch.hub.load", "numpy.load", "np.load", "yaml.load", "yaml.unsafe_load",
        "yaml.full_load", "eval", "exec",
    }  # fmt: skip
    found = []
    for path in [*ROOT.glob("syncir_ray/**/*.py"), *ROOT.glob("hycir_train/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = {ast.unparse(node.func)} if isinstance(node, ast.Call) else set[str]()
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.keyword) and node.arg in (
                "trust_remote_code",
                "allow_pickle",
                "weights_only",
            ):
                names = (
                    set() if ast.unparse(node.value) == {"weights_only": "True"}.get(node.arg, "False") else never
                )
            found += [f"{path}:{node.lineno}" for name in names if name in never]
    assert not found


def test_a_configuration_cannot_ask_for_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "ran"
    for text, told in {
        "features: {trust_remote_code: true}": "no field 'features.trust_remote_code'",
        "trust_remote_code: true": "no field 'trust_remote_code'",
        f"features: !!python/object/apply:os.mkdir ['{mark}']": "could not determine a constructor",
    }.items():
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(SystemExit) as ended:
            cli.main(["synthesize", "--images", "x", "--out", "y", "--config", str(tmp_path / "c.yaml")])
        assert ended.value.code == 2 and told in capsys.readouterr().err
    for option in ("--trust-remote-code", "--features.trust-remote-code", "--features.trust_remote_code=True"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["synthesize", "--images", "x", "--out", "y", option])
        assert ended.value.code == 2
    assert not mark.exists()


def test_a_run_directory_cannot_ask_for_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its record names models whose code would run, and has the flag everywhere: what reads it neither loads them
    nor hands the flag on, and a run is continued with what the command names, or not at all."""
    run, mark = runs.finished(tmp_path), tmp_path / "ran"
    evil = small_models.bert(tmp_path / "evil")
    plant(evil, mark)
    plant_code(evil, mark)
    about = record.need(run)
    for stage, section in about["config"].items():
        section |= {"trust_remote_code": True}
        if "model" in section:
            section["model"] = str(evil)
        about["revisions"][stage] = weights.check(str(evil))
    about |= {"trust_remote_code": True, "kind": about.get("kind")}
    Path(run.at("run.json")).write_text(json.dumps(about))
    for command in (["status", run.root], ["report", run.root], ["export", run.root]):
        with pytest.raises(SystemExit) if command[0] == "status" else nullcontext():
            cli.main(command)
    with pytest.raises(SystemExit) as ended:
        cli.main(["synthesize", "--images", str(tmp_path / "images"), "--out", run.root, "--preset", "mini"])
    assert ended.value.code == 2 and "made with another configuration" in capsys.readouterr().err
    assert not mark.exists()
