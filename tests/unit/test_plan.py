import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import published
from conftest import REPOSITORY
from lookalike.job.errors import ConfigError
from lookalike.plan import plan, start
from lookalike.plan.plan import Plan

CATALOGUE = yaml.safe_load((REPOSITORY / "config.yaml").read_text())


def changed(model: str, **sections: Any) -> Plan:
    raw = copy.deepcopy(CATALOGUE)
    for section, value in sections.items():
        raw["models"][model][section] = value
    return Plan.of(raw)


def test_key_order_and_defaults_spelled_out_do_not_change_a_key() -> None:
    spelled = {"resize": "squash", "stored_dtype": "float32", "variant": "lite0", "family": "efficientnet_lite"}
    expected = Plan.of(CATALOGUE).embedding_key("efficientnet-lite0")
    assert changed("efficientnet-lite0", embed=spelled).embedding_key("efficientnet-lite0") == expected
    assert expected == '{"family": "efficientnet_lite", "variant": "lite0"}'


def test_what_changes_vectors_changes_the_key_and_what_does_not_does_not() -> None:
    before = Plan.of(CATALOGUE).embedding_key("pixels")
    assert changed("pixels", embed={"family": "pixels", "size": 8}).embedding_key("pixels") != before
    assert changed("pixels", runtime={"batch_size": 1}, label="other").embedding_key("pixels") == before


def test_a_models_kind_changes_no_vector_and_reaches_the_comparison() -> None:
    before = Plan.of(CATALOGUE)
    after = changed("pixels", architecture="vit")
    assert after.embedding_key("pixels") == before.embedding_key("pixels")
    networks = {"efficientnet-lite0": "cnn", "efficientnet-lite2": "cnn"}
    assert before.architectures("demo") == {"color-histogram": "color_histogram", **networks}
    assert after.architectures("demo") == {"pixels": "vit", **before.architectures("demo")}
    for experiment in ("flickr30k", "flickr30k-copies"):  # every kind that the first article speaks of
        assert set(before.architectures(experiment).values()) == {
            "color_histogram",
            "cnn",
            "vit",
            "dinov2",
            "clip",
            "blip2",
        }


def test_neighbors_kept_shards_strictness_and_expectations_do_not_change_which_images_a_data_set_has() -> None:
    raw = copy.deepcopy(CATALOGUE)
    raw["datasets"]["photo-tiles-copies"] |= {"k": 3, "shards": {"references": 4}, "on_bad_image": "fail"}
    raw["datasets"]["photo-tiles-copies"]["expect"] = {"queries": 150}
    assert Plan.of(raw).dataset_key("photo-tiles-copies") == Plan.of(CATALOGUE).dataset_key("photo-tiles-copies")


def test_tables_that_come_with_a_data_set_are_inputs_of_its_sample(tmp_path: Path) -> None:
    roots = {
        "disc21": published.disc21(tmp_path / "disc21", zipped=True),
        "flickr30k": published.flickr30k(tmp_path / "flickr30k", zipped=False, csv=True),
        "coco": published.coco(tmp_path / "coco", zipped=False),
    }
    raw = copy.deepcopy(CATALOGUE)
    for name, root in roots.items():
        assert Plan.of(raw).sample_input(name) == {}  # what is missing is left to the stage
        raw["datasets"][name]["root"] = str(root)
    names = {name: Plan.of(raw).sample_input(name)["tables"] for name in roots}
    assert names == {
        "disc21": [str(tmp_path / f"disc21/{part}_queries_groundtruth.csv") for part in ("dev", "test")],
        "flickr30k": [str(tmp_path / "flickr30k/results.csv")],
        "coco": [str(tmp_path / "coco/annotations/instances_val2017.json")],
    }


def test_the_catalogue_has_shards_that_a_gpu_embeds_in_minutes() -> None:
    sizes = {"disc21": 150_000, "disc21-dev": 1_000_000}
    for name, references in sizes.items():
        assert 10_000 <= references / CATALOGUE["datasets"][name]["shards"]["references"] <= 50_000


def test_shard_names_follow_from_the_configuration() -> None:
    raw = copy.deepcopy(CATALOGUE)
    raw["datasets"]["photo-tiles-copies"]["shards"] = {"references": 2}
    made = Plan.of(raw)
    assert made.shard_ids("photo-tiles-copies") == ["references-00000", "references-00001", "queries-00000"]
    assert made.embeddings("photo-tiles-copies", "pixels")[1] == (
        "results/photo-tiles-copies/embeddings/pixels/references-00001.parquet"
    )


def test_copies_have_their_sources_training_images() -> None:
    raw = copy.deepcopy(CATALOGUE)
    raw["datasets"]["mine"] = {"kind": "folder", "root": "photos", "training": "more"}
    raw["datasets"]["copied"] = {"kind": "copies", "of": "mine", "shards": {"training": 2}}
    made = Plan.of(raw)
    assert made.shard_ids("mine") == ["references-00000", "training-00000"]
    assert made.shard_ids("copied") == ["references-00000", "queries-00000", "training-00000", "training-00001"]
    assert '"training": 2' in made.shard_key("copied")


def test_batch_size_halves_with_every_retry_and_stays_at_least_one() -> None:
    made = changed("pixels", runtime={"batch_size": 3})
    assert [made.batch_size("pixels", attempt) for attempt in (1, 2, 3)] == [3, 1, 1]


def test_patterns_match_whole_names_only() -> None:
    import re

    pattern = re.compile(Plan.pattern(["a", "a.b"]))
    assert [bool(pattern.fullmatch(name)) for name in ("a", "a.b", "axb", "")] == [True, True, False, False]


def test_the_pattern_of_shards_knows_every_shard_and_does_not_grow_with_them() -> None:
    import re

    raw = copy.deepcopy(CATALOGUE)
    raw["datasets"]["photo-tiles-copies"]["shards"] = {"references": 100_001}
    made = Plan.of(raw)
    pattern = re.compile(made.shard_pattern())
    assert all(pattern.fullmatch(shard) for shard in made.shard_ids("photo-tiles-copies"))
    assert not [name for name in ("references-x", "others-00000", "queries-00000.rejected") if pattern.fullmatch(name)]
    assert made.shard_pattern() == Plan.of(CATALOGUE).shard_pattern()


def test_an_experiments_targets_name_each_shard_once_for_a_model_and_a_file_of_every_job() -> None:
    made = Plan.of(CATALOGUE)
    targets = made.targets("demo")
    assert len(targets) == len(set(targets))
    shards, models = made.shard_ids("photo-tiles-copies"), made.config.experiments["demo"].models
    tables = [target for target in targets if target.endswith(".parquet")]
    assert [sum(shard in target for target in tables) for shard in shards] == [
        len(models) + 1,
        *[len(models)] * (len(shards) - 1),
    ]
    for part in ("images/manifest", "sample/images", "sample/shards/", "weights/pixels", "indexes/pixels/flat"):
        assert [target for target in targets if part in target], part
    assert targets[-1] == "results/reports/demo/index.html"


def test_thousands_of_shards_are_jobs_of_a_hundred_files_and_each_job_is_a_target() -> None:
    raw = copy.deepcopy(CATALOGUE)
    raw["datasets"]["photo-tiles-copies"]["shards"] = {"references": 250}
    made = Plan.of(raw)
    jobs = {rule: files for rule, dataset, files in made.shard_jobs() if dataset == "photo-tiles-copies"}
    assert {rule: len(files) for rule, files in jobs.items()} == {
        "shard_photo-tiles-copies": 100,
        "shard_photo-tiles-copies+100": 100,
        "shard_photo-tiles-copies+200": 51,
    }
    assert [file for files in jobs.values() for file in files] == made.shard_files("photo-tiles-copies")
    targets = {*made.targets("demo")}
    assert [len(targets.intersection(files)) for files in jobs.values()] == [1, 1, 1]


def test_an_experiment_may_not_have_the_name_of_a_data_sets_checkpoint() -> None:
    raw = copy.deepcopy(CATALOGUE)
    raw["experiments"]["shard_photo-tiles"] = raw["experiments"]["demo"]
    with pytest.raises(plan.configuration.ConfigError, match="is already the name of a rule"):
        Plan.of(raw)


def test_editing_a_users_table_looks_at_the_sample_again(tmp_path: Path) -> None:
    (tmp_path / "about.csv").touch()
    raw = copy.deepcopy(CATALOGUE)
    files = {"truth": str(tmp_path / "none.csv"), "about": str(tmp_path / "about.csv")}
    raw["datasets"]["own"] = {"kind": "folder", "root": "a", "queries": "b", **files}
    assert Plan.of(raw).sample_input("own") == {"tables": [files["about"]]}


def test_a_table_in_a_folder_with_braces_is_no_wildcard_and_counts_by_its_contents(tmp_path: Path) -> None:
    """Snakemake would fill in {q}; as an input it cannot be written in any other way."""
    folder = tmp_path / "{q}"
    folder.mkdir()
    (folder / "truth.csv").write_text("a")
    (tmp_path / "about.csv").write_text("b")
    raw = copy.deepcopy(CATALOGUE)
    files = {"truth": str(folder / "truth.csv"), "about": str(tmp_path / "about.csv")}
    raw["datasets"]["own"] = {"kind": "folder", "root": "a", "queries": "b", **files}
    made = Plan.of(raw)
    assert made.sample_input("own") == {"tables": [files["about"]]}
    before, others = made.code("sample", dataset="own"), made.code("sample", dataset="photo-tiles")
    (tmp_path / "about.csv").write_text("c")
    assert made.code("sample", dataset="own") == before
    (folder / "truth.csv").write_text("c")
    assert made.code("sample", dataset="own") != before
    assert made.code("sample", dataset="photo-tiles") == others


@pytest.mark.parametrize("name", ["{0}", "{n}", "{a,b}", "x{1.5}"])
def test_a_working_directory_that_snakemake_cannot_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for folder in ("{q}", name):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "{q}")
    start.check_working_directory()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(ConfigError, match=r"takes the braces .* for a wildcard, and cannot work in it\. Rename it"):
        start.check_working_directory()


def test_a_search_writes_the_same_files_on_every_data_set() -> None:
    folder = "results/photo-tiles-copies/neighbors/pixels"
    kinds = ("", ".showcase", ".candidates", ".training", ".candidates_sn", ".classes")
    assert {f"{folder}/flat{kind}.parquet" for kind in kinds} <= set(Plan.of(CATALOGUE).targets("demo"))
    assert f"{folder}/flat.candidates_sn.parquet" in Plan.of(CATALOGUE).searched("demo", "candidates_sn")


def test_search_settings_search_again_and_build_nothing_and_threads_do_neither() -> None:
    def keys(**index: Any) -> tuple[str, str]:
        raw = copy.deepcopy(CATALOGUE)
        raw["indexes"]["mine"] = {"factory": "IVF4,Flat", **index}
        return Plan.of(raw).build_key("mine"), Plan.of(raw).index_key("mine")

    built, searched = keys()
    assert keys(runtime={"gpu": 1, "threads": 1}) == (built, searched)
    assert keys(search={"nprobe": 3}) == (built, '{"factory": "IVF4,Flat", "search": {"nprobe": 3.0}}')
    assert keys(normalise={"beta": 0.5}) == (built, '{"factory": "IVF4,Flat", "normalise": {"beta": 0.5}}')
    assert keys(train={"seed": 1})[0] != built


def test_an_index_that_does_not_fit_a_models_dimensions_is_told_before_anything_runs() -> None:
    raw = copy.deepcopy(CATALOGUE)
    raw["indexes"]["mine"] = {"factory": "PQ7"}
    raw["experiments"]["demo"] |= {"models": ["pixels"], "indexes": ["flat", "mine"]}
    with pytest.raises(
        plan.configuration.ConfigError,
        match=r"demo\.indexes: FAISS cannot build 'mine' \(PQ7\) for model 'pixels', whose vectors have 256 dimensions",
    ):
        Plan.of(raw)
    raw["indexes"]["mine"] = {"factory": "PQ16"}
    Plan.of(raw)


def test_results_that_cannot_be_written_are_said_before_the_first_job(tmp_path: Path) -> None:
    assert start.why_not_writable(str(tmp_path / "results")) is None
    assert not [*(tmp_path / "results").iterdir()]
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/disk/that/is/gone")
    said = start.why_not_writable(str(tmp_path / "link"))
    assert said is not None
    assert "(a link to /disk/that/is/gone, which does not exist), so nothing was run. Mount the disk" in said
    said = start.why_not_writable(str(tmp_path / "file/results"))
    assert said == (
        f"{tmp_path}/file/results: cannot be written (Not a directory), so nothing was run. Mount the disk writable, "
        "give yourself the rights, or run in another folder (--directory)."
    )


def test_the_gpu_profile_sets_rules_that_exist_and_its_models_differ_from_the_catalogue_in_precision_alone() -> None:
    profile = yaml.safe_load((REPOSITORY / "profiles/gpu/config.yaml").read_text())
    assert {*profile["set-threads"], *profile["set-resources"]} <= {*plan.RULES}
    assert eval(profile["set-resources"]["embed"]["batch_size"], {"attempt": 2}) == 128  # as Snakemake evaluates it
    half = yaml.safe_load((REPOSITORY / "profiles/gpu/half-precision.yaml").read_text())
    merged = {part: CATALOGUE[part] | half.get(part, {}) for part in CATALOGUE if part in ("datasets", "models")}
    planned = Plan.of(CATALOGUE | merged | {"experiments": half["experiments"], "run": ["half-precision"]})
    for name in half["models"]:
        variant, original = (
            planned.config.models[model].model_dump() for model in (name, name.removesuffix("-float16"))
        )
        assert variant["embed"].pop("compute_dtype") == "float16"
        assert original["embed"].pop("compute_dtype") == "float32"
        assert variant["label"].replace(", float16)", ")") in (original["label"], f"{original['label']} (float16)")
        assert variant | {"label": ""} == original | {"label": ""}


def test_a_gpu_is_requested_to_search_any_index_but_only_to_build_one_with_clusters() -> None:
    """Filling an exact index, a graph or codes runs on the CPU, and the GPU would be idle."""
    factories = {
        "flat": {"factory": "Flat"},
        "scan": {"scan": True},
        "hnsw": {"factory": "HNSW16"},
        "ivf": {"factory": "OPQ8,IVF16,PQ8"},
    }
    indexes = {f"my-{name}": entry | {"runtime": {"gpu": 1, "threads": 3}} for name, entry in factories.items()}
    planned = Plan.of(CATALOGUE | {"indexes": CATALOGUE["indexes"] | indexes})
    assert {planned.index_runtime(f"my-{name}").gpu for name in factories} == {1}
    assert {planned.index_runtime(f"my-{name}").threads for name in factories} == {3}
    assert {name: planned.build_gpu(f"my-{name}") for name in factories} == {"flat": 0, "scan": 0, "hnsw": 0, "ivf": 1}
    assert {planned.build_gpu(name) for name in CATALOGUE["indexes"]} == {0}


def test_an_experiment_decides_whether_its_report_shows_images_else_the_run_does() -> None:
    def shows(run: dict[str, Any], experiment: dict[str, Any]) -> bool:
        experiments = {"demo": {**CATALOGUE["experiments"]["demo"], "report": experiment}}
        plan = Plan.of({**CATALOGUE, "report": run, "experiments": {**CATALOGUE["experiments"], **experiments}})
        return bool(json.loads(plan.report_key("demo")).get("images", True))

    off, on = {"images": False}, {"images": True}
    assert [shows(*pair) for pair in (({}, {}), (off, {}), ({}, off), (off, on), (on, off))] == [
        *(True, False, False, True, False)
    ]
