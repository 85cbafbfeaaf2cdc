"""What all tests share: images that they make."""

import gc
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Read when numpy or torch is imported: their threads sleep while they wait. By default they wait on a core that other
# workers of pytest need.
os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["OPENBLAS_THREAD_TIMEOUT"] = "4"

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[1]

with suppress(ImportError):  # a machine that only runs the tests of GPUs may lack it
    from hypothesis import settings

    settings.register_profile("however slow the machine is", deadline=None)
    settings.load_profile("however slow the machine is")


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run of pytest share."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the library remembers of files and runs is neither read from the user's folders nor left there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared_folder(tmp_path_factory) / "cache"))
        patch.delenv("LOOKALIKE_CACHE", raising=False)
        patch.setenv("LOOKALIKE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs of the workflow first: they take longest, and no worker should start one when the others have ended."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")


def pytest_collection_finish() -> None:
    _forget_imports()
    gc.set_threshold(*gc.get_threshold()[:2], 1000)


def pytest_runtest_logfinish() -> None:
    if len(sys.modules) > _forget_imports.of + 200:  # it has imported torch
        _forget_imports()


def pytest_unconfigure() -> None:
    gc.unfreeze()


def _forget_imports() -> None:
    """Look for garbage no longer among all that was imported, which takes a tenth of the tests' CPU time."""
    gc.collect()
    gc.freeze()
    _forget_imports.of = len(sys.modules)


_forget_imports.of = 0


def made_image(seed: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    """A colorful image (width, height) in which no two seeds look alike: blocks and a gradient."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    image = Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)
    ramp = np.linspace(0, 60, size[0])[None, :, None]
    return Image.fromarray(np.clip(np.asarray(image, float) + ramp, 0, 255).astype(np.uint8))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk on which no file can grow beyond ``size`` bytes: what more is written fails as on a full one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


ImageFolder = Callable[..., Path]


@pytest.fixture
def image_folder() -> ImageFolder:
    """Fill a folder with images named p0.png, p1.png, ..."""

    def make(folder: Path, count: int, first: int = 0) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            made_image(number).save(folder / f"p{number}.png")
        return folder

    return make
