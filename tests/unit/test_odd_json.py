"""JSON as a disk, a download or another program may leave it: one sentence that names the file, wherever it is read."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lookalike.config import files as configuration
from lookalike.embed import checkpoints
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError
from lookalike.sample import coco, flickr30k, published
from lookalike.sample.left_out import LeftOut

ODD = {
    "empty": b"",
    "zeros": bytes(100),
    "cut short": b'{"source": "hub", "files": {',
    "not UTF-8": b'{"source": "J\xf6rg"}',
    "UTF-16": '{"source": "hub"}'.encode("utf-16"),
    "deep": b"[" * 100_000,
    "deep mappings": b'{"a":' * 100_000,
    "a number of many digits": b'{"source": ' + b"9" * 6_000 + b"}",
    "not a mapping": b"[1, 2]",
    "null": b"null",
}


def coco_in_a_zip(path: Path) -> Any:
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(coco.INSTANCES[0], path.read_bytes())
    return coco._labels(str(archive), LeftOut())


READERS: dict[str, Callable[[Path], Any]] = {
    "a run's own file": lambda path: store.read_json(path, Weights),
    "a checkpoint's settings": checkpoints.read_settings,
    "COCO's annotations": lambda path: coco._labels(str(path), LeftOut()),
    "COCO's annotations in a zip": coco_in_a_zip,
    "Flickr30k's captions": lambda path: list(flickr30k._from_json(str(path), published.read_text(str(path)))),
}


@pytest.mark.parametrize("content", ODD)
@pytest.mark.parametrize("reader", READERS)
def test_odd_json_is_one_sentence_that_names_the_file(tmp_path: Path, reader: str, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(ODD[content])
    with pytest.raises(LookalikeError, match=r"a\.(json|zip)") as raised:
        READERS[reader](path)
    assert len(str(raised.value).splitlines()) == 1
    assert not (content in ("not UTF-8", "UTF-16") and "another way" in str(raised.value))


@pytest.mark.parametrize("content", [name for name in ODD if name not in ("empty", "not a mapping", "null")])
def test_an_odd_configuration_in_json_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(ODD[content])
    with pytest.raises(LookalikeError, match=r"a\.json"):
        configuration.read(path)


def test_a_key_that_is_there_twice_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    store.write_json(Weights(source="hub", revision="abc", files={}), path)
    path.write_text(path.read_text().replace('"source": "hub"', '"source": "other",\n  "source": "hub"'))
    with pytest.raises(LookalikeError, match=r"a\.json: is damaged \(duplicate key 'source'\)"):
        store.read_json(path, Weights)
