"""A user's own encoder is called as documented, and its vectors record the code that made them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import REPOSITORY, made_image
from lookalike.config import user_module
from lookalike.embed import encoders
from lookalike.io import store
from lookalike.job.errors import LookalikeError
from lookalike.plan.plan import Plan

MODULE = """
import numpy as np

class Mean:
    dimension, device, overlaps, compute_dtype = 3, "CPU", False, "float32"

    def __init__(self, scale):
        self.scale, self.versions = scale, {"numpy": np.__version__}

    def prepare(self, image):
        return np.asarray(image.resize((4, 4)))

    def encode(self, batch):
        return self.scale * batch.mean((1, 2), np.float32)

def make(machine, scale=1.0):
    return Mean(scale)

def nothing(machine):
    return 3

value = 1
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module in the folder where the workflow is started; its name is unique, because imports are cached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"encoder_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    return name


def key(factory: str, **options: Any) -> str:
    return json.dumps({"family": "python", "factory": factory, "options": options})


def load(key: str) -> encoders.Encoder:
    entry = encoders.parse(key)
    return encoders.load(key, encoders.family(entry).fetch(entry), encoders.Machine())


def test_the_function_is_called_with_its_options(module: str) -> None:
    encoder = load(key(f"{module}:make", scale=2.0))
    vectors = encoder.encode(np.stack([encoder.prepare(made_image(1))]))
    np.testing.assert_allclose(vectors[0], 2 * np.asarray(made_image(1).resize((4, 4)), float).mean((0, 1)), rtol=1e-5)


def test_the_modules_hash_is_recorded_and_a_changed_module_is_rejected(module: str) -> None:
    entry = encoders.parse(key(f"{module}:make"))
    weights = encoders.family(entry).fetch(entry)
    file = Path(f"{module}.py").resolve()
    assert weights.files == {file.name: store.sha256_file(file)}
    file.write_text(MODULE + "# changed\n")
    with pytest.raises(LookalikeError, match=r"has changed since .* Run fetch_weights again"):
        encoders.load(key(f"{module}:make"), weights, encoders.Machine())


def test_editing_the_module_embeds_its_models_again_and_no_others(module: str) -> None:
    raw = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    raw["models"]["own"] = {"embed": json.loads(key(f"{module}:make"))}
    plan = Plan.of(raw)
    before = {model: plan.code("embed", model=model) for model in raw["models"]}
    fetched = plan.factory_hash("own")
    Path(f"{module}.py").write_text(MODULE + "# changed\n")
    assert plan.factory_hash("own") != fetched
    assert {model for model in before if plan.code("embed", model=model) != before[model]} == {"own"}


FILE_OPTIONS = {
    "a file": {"weights": "own.bin"},
    "a nested file": {"layers": [{"from": "own.bin"}]},
    "a folder": {"checkpoint": "own"},
}


@pytest.mark.parametrize("options", FILE_OPTIONS.values(), ids=FILE_OPTIONS)
def test_files_in_options_are_recorded_and_a_changed_file_is_rejected(
    options: dict[str, Any], module: str, tmp_path: Path
) -> None:
    Path(module + ".py").write_text(MODULE.replace("scale=1.0", "scale=1.0, **files"))
    (tmp_path / "own").mkdir()
    files = {"own.bin": tmp_path / "own.bin", "own/a.bin": tmp_path / "own/a.bin"}
    for file in files.values():
        file.write_bytes(b"weights")
    (tmp_path / "own/.a.bin.swp").write_bytes(b"an editor's")
    name = "own/a.bin" if "checkpoint" in options else "own.bin"
    model_key = key(f"{module}:make", size="16", mode="no such file", **options)
    entry = encoders.parse(model_key)
    weights = encoders.family(entry).fetch(entry)
    assert weights.files.keys() == {f"{module}.py", name}
    assert weights.files[name] == store.sha256_file(files[name])
    assert encoders.load(model_key, weights, encoders.Machine()).dimension == 3
    files[name].write_bytes(b"WEIGHTS")
    with pytest.raises(LookalikeError, match=rf"^{name}: has changed since .* Run fetch_weights again"):
        encoders.load(model_key, weights, encoders.Machine())
    files[name].unlink()
    with pytest.raises(LookalikeError, match=rf"^{name}: was removed since .* Run fetch_weights again"):
        encoders.load(model_key, weights, encoders.Machine())


@pytest.mark.parametrize("size", [100, user_module.WHOLE + 100])
def test_replacing_a_file_in_an_option_by_one_of_the_same_size_embeds_again(
    size: int, module: str, tmp_path: Path
) -> None:
    raw = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    raw["models"]["own"] = {"embed": json.loads(key(f"{module}:make", weights="own.bin"))}
    plan = Plan.of(raw)
    hashes = set()
    for contents in (np.zeros(size, np.uint8), np.ones(size, np.uint8)):
        contents.tofile(tmp_path / "own.bin")
        hashes.add((plan.factory_hash("own"), plan.code("embed", model="own")))
    (tmp_path / "own.bin").unlink()
    hashes.add((plan.factory_hash("own"), plan.code("embed", model="own")))
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("no_such_module:make", {}, r"no such module\. Put it in the folder where snakemake is started"),
        ("MODULE:mak", {}, r"has no function 'mak'"),
        ("MODULE:value", {}, r"has no function 'value'"),
        ("MODULE:make", {"scal": 1}, r"was called with machine and the entry's options \(scal\)"),
        ("MODULE:nothing", {}, r"is not an encoder: it has no dimension, device"),
    ],
)
def test_an_unusable_factory_is_reported_with_a_remedy(
    factory: str, options: dict[str, Any], message: str, module: str
) -> None:
    with pytest.raises(LookalikeError, match=message):
        load(key(factory.replace("MODULE", module), **options))


def test_a_failed_import_is_reported_with_its_cause(module: str) -> None:
    Path(f"{module}.py").write_text("import a_package_that_is_not_there")
    with pytest.raises(LookalikeError, match=r"cannot be imported: ModuleNotFoundError.*a_package_that_is_not_there"):
        load(key(f"{module}:make"))
