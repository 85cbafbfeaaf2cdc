"""Which modules make each stage's numbers: a hash over their source decides, beside keys, about reruns."""

import hashlib
from pathlib import Path

LIBRARY = Path(__file__).parent.parent

SOURCES = frozenset({".py", ".j2", ".css", ".js"})
DECODER = ("archives", "images", "image_containers", "image_refusals")

# The modules that make each stage's numbers, relative to the library. They import nothing else of the library but the
# neutral errors, formats, store, config and memory (tests/contract/test_structure.py). `{kind}` and `{family}` are
# filled in.
STAGES: dict[str, tuple[str, ...]] = {
    "make_images": (
        *(*DECODER, "expectations", "content_hashes"),
        *("datasets/__init__", "datasets/hashing", "datasets/left_out", "datasets/{kind}"),
    ),
    "sample": (
        *(*DECODER, "expectations", "content_hashes"),
        *("datasets/__init__", "datasets/hashing", "datasets/left_out", "datasets/{kind}"),
        *("datasets/outside", "datasets/folder"),
    ),
    "shard": ("sharding", "expectations"),
    "embed": (*DECODER, "content_hashes", "preprocess", "embedding", "models/__init__", "models/{family}"),
    "index": ("index/building", "index/checks", "index/factories", "index/vectors"),
    "search": (
        "index/searching",
        "index/approximate",
        "index/checks",
        "index/exact",
        "index/factories",
        "index/loading",
        "index/pools",
        "index/vectors",
    ),
    "measure": ("metrics", "statistics", "evaluation", "agreement", "measurement"),
    "compare": ("metrics", "statistics", "evaluation", "agreement", "comparison"),
    "find_duplicates": ("duplicates",),
    "report": (*DECODER, "report"),
}

# What the numbers of a family, or the tables of a kind of data set, come from besides their own module.
SHARED: dict[str, tuple[str, ...]] = {
    "efficientnet_lite": ("models/torch_encoder", "models/trial"),
    "transformers": ("models/pretrained", "models/torch_encoder", "models/trial"),
    "blip2": ("models/pretrained", "models/torch_encoder", "models/trial"),
    "torchscript": ("models/torch_encoder", "models/trial"),
    "python": ("models/trial", "user_module"),
    "disc21": ("datasets/published",),
    "flickr30k": ("datasets/published",),
    "coco": ("datasets/published",),
}


def modules(stage: str, kind: str, family: str) -> tuple[str, ...]:
    """The modules that make a stage's numbers, for one kind of data set or one family of models."""
    named = tuple(module.format(kind=kind, family=family) for module in STAGES[stage])
    return named + SHARED.get({"embed": family, "sample": kind, "make_images": kind}.get(stage, ""), ())


def code_hash(*modules: str) -> str:
    """Hash the source of modules and packages of the library, named relative to it, such as ``models/pixels``."""
    digest = hashlib.sha256()
    for module in modules:
        path = LIBRARY / module
        for file in _sources(path) if path.is_dir() else [path.with_suffix(".py")]:
            digest.update(str(file.relative_to(LIBRARY)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _sources(package: Path) -> list[Path]:
    """A package's files, without what editors and Python leave there: hidden files, backups, caches."""
    return sorted(
        file
        for file in package.rglob("*")
        if file.suffix in SOURCES
        and not any(part.startswith((".", "__pycache__")) for part in file.relative_to(package).parts)
        and file.is_file()
    )
