import copy
import json
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY
from lookalike.config import loading
from lookalike.config.datasets import Folder
from lookalike.job.errors import ConfigError

CATALOGUE = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
RULES = frozenset({"sample"})


def edited(path: str, value: Any) -> dict[str, Any]:
    """The catalogue with one place set to a value."""
    raw = copy.deepcopy(CATALOGUE)
    *parents, last = path.split("/")
    place = raw
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return raw


def test_the_catalogue_is_valid() -> None:
    assert loading.load(REPOSITORY / "config.yaml", RULES).run == ("flickr30k", "coco", "disc21")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # keys of earlier versions
        (
            "datasets/photo-tiles/gallery",
            "x",
            "datasets.photo-tiles.gallery: is now called 'showcase'. Rename the key.",
        ),
        ("models/pixels/kind", "cnn", "models.pixels.kind: is now called 'architecture'. Rename the key."),
        ("indexes/flat/streamed", True, "indexes.flat.streamed: is now called 'scan'. Rename the key."),
        (
            "experiments/demo/indexes",
            ["streamed"],
            "experiments.demo.indexes: index 'streamed' is not defined. It is now called 'scan'.",
        ),
        # unknown keys, at every level
        ("modles", {}, "modles: unknown key. Did you mean 'models'?"),
        ("datasets/photo-tiles/tiel", 1, "datasets.photo-tiles.tiel: unknown key. Did you mean 'tile'?"),
        ("models/pixels/lable", "x", "models.pixels.lable: unknown key. Did you mean 'label'?"),
        ("models/pixels/embed/siz", 1, "models.pixels.embed.siz: unknown key. Did you mean 'size'?"),
        (
            "models/pixels/runtime",
            {"batchsize": 2},
            "models.pixels.runtime.batchsize: unknown key. Did you mean 'batch_size'?",
        ),
        ("indexes/flat/factor", 1, "indexes.flat.factor: unknown key. Did you mean 'factory'?"),
        ("experiments/demo/modles", [], "experiments.demo.modles: unknown key. Did you mean 'models'?"),
        (
            "datasets/photo-tiles-copies/shards",
            {"reference": 2},
            "datasets.photo-tiles-copies.shards.reference: unknown part. Did you mean 'references'?",
        ),
        (
            "models/pixels/embed/variant",
            "lite0",
            "models.pixels.embed.variant: unknown key. It belongs to family 'efficientnet_lite', and this entry's "
            "family is 'pixels'. Entries of a --configfile are merged over the catalogue's: to change the family, "
            "give the entry another name.",
        ),
        # wrong values
        (
            "models/pixels/embed/size",
            1,
            "models.pixels.embed.size: input should be greater than or equal to 2, found 1 "
            "(side of the thumbnail, in pixels).",
        ),
        (
            "models/pixels/embed/family",
            "pixel",
            "models.pixels.embed.family: unknown family 'pixel'. Did you mean 'pixels'?",
        ),
        (
            "models/pixels/embed",
            {},
            "models.pixels.embed.family: is missing. Known: blip2, color_histogram, efficientnet_lite, "
            "hash, onnx, pixels, python, torchscript, transformers.",
        ),
        (
            "models/clip-vit-b32/embed/pooling",
            "cls",
            "models.clip-vit-b32.embed: feature 'image_features' is already a single vector, but pooling is 'cls'. "
            "Remove pooling, or use the feature last_hidden_state.",
        ),
        (
            "models/dinov2-base/embed/pooling",
            "none",
            "models.dinov2-base.embed: feature 'last_hidden_state' has many vectors per image, which need pooling. "
            "Add pooling: cls, mean, mean_patches or gem.",
        ),
        (
            "datasets/mine",
            {"kind": "folder"},
            "datasets.mine.root: is missing. Add it; config.yaml explains every key.",
        ),
        (
            "datasets/photo-tiles-copies/operations",
            ["crop", "blurr"],
            "datasets.photo-tiles-copies.operations.1: input should be 'crop', 'blur', 'jpeg', 'rotate', 'color', "
            "'brightness', 'text', 'shapes', 'flip', 'pad', 'paste', 'grey', 'sticker', 'screenshot', 'perspective', "
            "'noise', 'pixelate', 'collage', 'webp', 'avif' or 'meme', found 'blurr' (alterations to choose from). "
            "Did you mean 'blur'?",
        ),
        (
            "datasets/photo-tiles-copies/operations",
            [],
            "datasets.photo-tiles-copies.operations: is empty. Add at least one.",
        ),
        ("run", "demo", "run: should be a list, such as [demo], found 'demo'."),
        (
            "models/pixels/label",
            "Color histogram",
            "experiments.demo.models: two models have the label 'Color histogram'. Give them different labels.",
        ),
        ("models", None, "models: has no value. Add one, or remove the line."),
        ("models", "x", "models: should be a mapping (key: value), found 'x'."),
        (
            "datasets/disc21/references",
            {"fist": 5},
            "datasets.disc21.references: unknown key 'fist'. Did you mean 'first'?",
        ),
        (
            "datasets/disc21/references",
            {"first": 5, "sample": 5},
            "datasets.disc21.references: 'first' and 'sample' exclude each other. Keep one of them; if the "
            "other comes from the catalogue's entry of this name, give yours another name.",
        ),
        (
            "datasets/disc21/references",
            {"first": 5, "seed": 1},
            "datasets.disc21.references: 'seed' belongs to 'sample'. Add 'sample: N', or remove 'seed'.",
        ),
        (
            "datasets/disc21/training",
            5000,
            "datasets.disc21.training: should be all, {first: N} or {sample: N, seed: S}, found 5000.",
        ),
        (
            "datasets/disc21/queries",
            "positive",
            "datasets.disc21.queries: input should be 'positives', 'all', 'development' or 'test', found 'positive' "
            "(queries to use; positives: development queries whose original is a reference). Did you mean 'positives'?",
        ),
        (
            "datasets/disc21/expect",
            {"query": 1448},
            "datasets.disc21.expect: unknown key 'query'. Did you mean 'queries'?",
        ),
        (
            "datasets/disc21/shards/training",
            2,
            "datasets.disc21.shards.training: unknown part. Known: queries, references.",
        ),
        (
            "datasets/flickr30k/sample",
            5,
            "datasets.flickr30k: a sample of 5 has no room for the 6 images that are always in it. Use a larger "
            "sample, or list fewer under 'always'.",
        ),
        # undefined names
        ("run", ["deno"], "run: experiment 'deno' is not defined. Did you mean 'demo'?"),
        (
            "experiments/demo/dataset",
            "photo-tile-copies",
            "experiments.demo.dataset: data set 'photo-tile-copies' is not defined. Did you mean 'photo-tiles-copies'?",
        ),
        (
            "experiments/demo/models",
            ["pixel"],
            "experiments.demo.models: model 'pixel' is not defined. Did you mean 'pixels'?",
        ),
        (
            "experiments/demo/indexes",
            ["hsnw"],
            "experiments.demo.indexes: index 'hsnw' is not defined. Did you mean 'hnsw'?",
        ),
        (
            "datasets/photo-tiles-copies/of",
            "photo-tile",
            "datasets.photo-tiles-copies.of: data set 'photo-tile' is not defined. Did you mean 'photo-tiles'?",
        ),
        (
            "experiments/demo/dataset",
            "photo-tiles",
            "experiments.demo.dataset: 'photo-tiles' has no queries. Add a data set {kind: copies, of: photo-tiles} "
            "and use that one (docs/copies.md).",
        ),
        (
            "experiments/demo/models",
            ["pixels", "pixels"],
            "experiments.demo.models: 'pixels' is listed more than once. List it once.",
        ),
        # names that are taken or invalid in paths
        (
            "experiments/sample",
            CATALOGUE["experiments"]["demo"],
            "experiments.sample: is already the name of a rule of the workflow. Choose another name, "
            "for example 'my-sample'.",
        ),
        (
            "datasets/logs",
            CATALOGUE["datasets"]["photo-tiles"],
            "datasets.logs: results/logs/ is reserved for the workflow. Choose another name, for example 'my-logs'.",
        ),
        (
            "indexes/flat.candidates_sn",
            {"factory": "Flat"},
            "indexes.flat.candidates_sn: its files would have the same names as other files of an index 'flat'. "
            "Choose a name that does not end in '.candidates_sn', for example 'flat-candidates_sn'.",
        ),
        (
            "models/a b",
            CATALOGUE["models"]["pixels"],
            "models.a b: names are parts of paths. "
            "Use letters, digits, '.', '_' and '-', and start with a letter or digit.",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_place_and_remedy(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loading.parse(edited(path, value), RULES)
    assert str(caught.value) == message


def test_all_mistakes_are_reported_at_once() -> None:
    raw = edited("models/pixels/embed/siz", 1)
    raw["runn"] = 1
    with pytest.raises(ConfigError) as caught:
        loading.parse(raw, RULES)
    assert str(caught.value).splitlines() == [
        "models.pixels.embed.siz: unknown key. Did you mean 'size'?",
        "runn: unknown key. Did you mean 'run'?",
    ]


def test_copies_of_copies_are_refused() -> None:
    raw = edited("datasets/again", {"kind": "copies", "of": "photo-tiles-copies"})
    with pytest.raises(ConfigError, match=r"datasets\.again\.of: 'photo-tiles-copies' consists of copies itself"):
        loading.parse(raw, RULES)


def test_a_missing_file_is_reported(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="this configuration file does not exist"):
        loading.load(tmp_path / "other.yaml")


def test_every_line_of_the_catalogue_survives_json() -> None:
    """Snakemake hands the configuration to jobs as JSON."""
    assert loading.parse(json.loads(json.dumps(CATALOGUE))) == loading.parse(CATALOGUE)


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    raw = edited("datasets/mine", {"kind": "folder", "root": "~/photos", "queries": "queries"})
    mine = loading.parse(raw).datasets["mine"]
    assert isinstance(mine, Folder)
    assert (mine.root, mine.queries, mine.truth) == ("/home/me/photos", "queries", None)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "indexes.mine: has neither factory nor scan. Add one, such as `factory: Flat` or `scan: true`."),
        ({"factory": "Flat", "scan": True}, "indexes.mine.factory: a scan searches the shards without a factory"),
        (
            {"factory": "Flt"},
            "indexes.mine.factory: 'Flt' in 'Flt' is not a valid step of a FAISS factory. Did you mean 'Flat'?",
        ),
        (
            {"factory": "PCA64,HSNW32"},
            "'HSNW32' in 'PCA64,HSNW32' is not a valid step of a FAISS factory. Did you mean 'H",
        ),
        ({"factory": "IVF256(HNSW32,Flat"}, "indexes.mine.factory: 'IVF256(HNSW32,Flat' has unbalanced parentheses"),
        (
            {"factory": "IVF16,Flat", "search": {"nprob": 4}},
            "indexes.mine.search.nprob: factory 'IVF16,Flat' has no such search parameter. Did you mean 'nprobe'?",
        ),
        (
            {"factory": "Flat", "search": {"nprobe": 4}},
            "factory 'Flat' has no search parameters. Remove `search`. Entries of a --configfile "
            "are merged over the catalogue's: if 'nprobe' comes from the catalogue's entry of this name, give yours",
        ),
        (
            {"factory": "HNSW32", "search": {"nprobe": 4}},
            "Known: efSearch, quantizer_efSearch. Entries of a --configfile are merged over the catalogue's: if",
        ),
        (
            {"factory": "Flat", "scan": True},
            "Remove one of them. Entries of a --configfile are merged over",
        ),
        ({"factory": "IVF4,Flat", "search": {"nprobe": 2.5}}, "search.nprobe: should be a whole number, found 2.5."),
        (
            {"factory": "IDMap,Flat"},
            "cannot build 'IDMap,Flat': an IndexIDMap stores its own ids, but Lookalike keeps",
        ),
        (
            {"factory": " HNSW32 "},
            "indexes.mine.factory: ' HNSW32 ' contains spaces, which FAISS does not accept. Write 'HNSW",
        ),
        ({"factory": "IVF16, Flat"}, "'IVF16, Flat' contains spaces, which FAISS does not accept. Write 'IVF16,Flat'."),
        ({"factory": "IMI2x4,Flat"}, "cannot build 'IMI2x4,Flat': MultiIndex not implemented for inner prod search."),
        ({"factory": "IVF2000000000,Flat"}, "2000000000 is too large for any parameter of an index."),
        ({"factory": "PQ16x99"}, "cannot build 'PQ16x99': nbits larger than 24 is not practical."),
        ({"factory": "HNSW32_PQ16"}, "cannot build 'HNSW32_PQ16': FAISS builds an IndexHNSWPQ that compares by L2"),
        ({"factory": "OPQ16,NSG32,PQ16"}, "FAISS builds an IndexNSGPQ that compares by L2 distance, not inner product"),
        ({"factory": "IVF16(HNSW32_PQ8),PQ16"}, "To combine a graph with codes, use HNSW32_SQ8 or IVF256_HNSW32,PQ16."),
        ({"scan": True, "search": {"nprobe": 4}}, "a scan has no search parameters. Remove `search`."),
        ({"factory": "HNSW16", "search": {"efSearch": 0}}, "indexes.mine.search.efSearch: should be above 0, found 0."),
        ({"factory": "Flat", "train": {"sampel": 3}}, "indexes.mine.train.sampel: unknown key. Did you mean 'sample'?"),
        (
            {"factory": "Flat", "runtime": {"gpu": 2}},
            "indexes.mine.runtime.gpu: input should be less than or equal to 1",
        ),
        (
            {"factory": "Flat", "normalise": {"first": 5}},
            "normalise: first (5) is after last (3). Swap them",
        ),
    ],
)
def test_a_mistake_in_an_index_is_reported_before_anything_runs(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loading.parse(edited("indexes/mine", entry), RULES)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "factory",
    [
        *("PCAW256,L2norm,Flat", "OPQ16_64,IVF1024(HNSW32),PQ16x4fs", "HNSW32_SQ8", "IVF64,PQ8,RFlat"),
        *("IVF64,SQ8,Refine(SQfp16)", "PRQ2x2x4", "PLSQ2x4x8", "RR256,RaBitQ", "PQ7", "IVF256_HNSW32,PQ16"),
    ],
)
def test_unusual_factories_are_accepted(factory: str) -> None:
    assert loading.parse(edited("indexes/mine", {"factory": factory}), RULES).indexes["mine"].factory == factory
