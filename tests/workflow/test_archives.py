"""A data set whose images are in tar shards and zip archives, from the sample to a search."""

import io
import tarfile
from pathlib import Path

import pyarrow.parquet as pq

from conftest import made_image
from workflow.conftest import Tree, lookalike

CONFIG = {
    "run": ["packed"],
    "datasets": {
        "packed": {
            "kind": "folder",
            "root": "train",
            "queries": "queries",
            "truth": "truth.csv",
            "k": 5,
            "shards": {"references": 3},
        }
    },
    "experiments": {"packed": {"dataset": "packed", "models": ["pixels"]}},
}


def tar(path: Path, numbers: range, *, mode: int = tarfile.GNU_FORMAT, more: int = 0) -> None:
    """A shard as WebDataset has it: of each sample an image, a caption and a class."""
    with tarfile.open(path, "w", format=mode) as archive:
        for number in [*numbers, *([more] if more else [])]:
            data = io.BytesIO()
            made_image(number).save(data, "PNG")
            members = {"png": data.getvalue(), "txt": f"a dog number {number}".encode(), "cls": b"1"}
            for ending, content in members.items():
                member = tarfile.TarInfo(f"{number:06d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def test_tar_shards_are_sampled_embedded_and_searched_and_packing_them_again_embeds_nothing(tmp_path: Path) -> None:
    tree = Tree.new(tmp_path / "tree", CONFIG)
    (tree.folder / "train").mkdir()
    tar(tree.folder / "train/00000.tar", range(5))
    tar(tree.folder / "train/00001.tar", range(5, 9))
    (tree.folder / "queries").mkdir()
    tar(tree.folder / "queries/q.tar", range(3, 5))
    (tree.folder / "truth.csv").write_text("query_id,reference_id\nq.tar/000003.png,00000.tar/000003.png\n")
    assert len(tree.run("packed").of("embed")) == 4
    report = (tree.folder / "results/reports/packed/index.html").read_text()
    assert ".cls files" in report
    neighbors = pq.read_table(tree.folder / "results/packed/neighbors/pixels/flat.parquet").to_pylist()
    first = {row["query_id"]: row["reference_id"] for row in neighbors if row["rank"] == 1}
    assert first == {f"q.tar/00000{n}.png": f"00000.tar/00000{n}.png" for n in (3, 4)}

    metrics = (tree.folder / "results/packed/metrics/pixels/flat.json").read_text()
    assert "caption_agreement_at_5" in metrics, "captions beside images are the data set's captions"

    made_image(7).save(tree.folder / "photo.png")
    command = "search photo.png --experiment packed --model pixels --configfile mine.yaml -k 1 --sheet sheet.png"
    found = lookalike(*command.split(), folder=tree.folder, copy=tree.folder)
    assert "00001.tar!000007.png" in found.stdout
    assert (tree.folder / "sheet.png").exists()

    index = "results/packed/indexes/pixels/flat.faiss"
    tar(tree.folder / "train/00000.tar", range(4, -1, -1), mode=tarfile.PAX_FORMAT)
    assert tree.run(index, options=("--forcerun", "sample")).of("embed") == []
    tar(tree.folder / "train/00000.tar", range(5), more=50)
    assert len(tree.run(index, options=("--forcerun", "sample")).of("embed")) == 1
