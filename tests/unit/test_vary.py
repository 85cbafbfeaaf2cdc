"""Variants of one model: what the configuration creates, and what it refuses."""

import copy
import json
import re
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY
from lookalike.config import loading
from lookalike.config.records import Config
from lookalike.job.errors import ConfigError
from lookalike.plan.plan import Plan

CATALOGUE = yaml.safe_load((REPOSITORY / "config.yaml").read_text())


def raw(models: dict[str, Any] | None = None, **varied: Any) -> dict[str, Any]:
    """The catalogue's models with experiments, each a pair of a model and what it is varied over."""
    config = copy.deepcopy(CATALOGUE)
    config["models"] |= models or {}
    config["run"], config["experiments"] = list(varied), {}
    for name, (model, over) in varied.items():
        config["experiments"][name] = {"dataset": "photo-tiles-copies", "vary": {"model": model, "over": over}}
    return config


def parsed(models: dict[str, Any] | None = None, **varied: Any) -> Config:
    return loading.parse(raw(models, **varied))


def refused(*arguments: Any, **varied: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(*arguments, **varied)
    return str(caught.value)


def test_variants_are_models_named_after_their_values() -> None:
    config = parsed(x=("dinov2-base", {"pooling": ["cls", "mean", "mean_patches", "gem"]}))
    names = ("dinov2-base", *(f"dinov2-base.pooling-{value}" for value in ("mean", "mean_patches", "gem")))
    assert config.experiments["x"].models == names
    assert [config.models[name].embed.pooling for name in names] == ["cls", "mean", "mean_patches", "gem"]  # type: ignore[union-attr]
    assert config.models[names[1]].runtime == config.models["dinov2-base"].runtime


def test_the_catalogue_varies_the_pooling_of_dinov2() -> None:
    assert loading.parse(CATALOGUE).experiments["dino-pooling"].models[1] == "dinov2-base.pooling-mean"


def test_several_keys_are_varied_in_all_combinations() -> None:
    config = parsed(x=("pixels", {"size": [16, 8], "stored_dtype": ["float32", "float16"]}))
    assert config.experiments["x"].models == (
        "pixels",
        "pixels.stored_dtype-float16",
        "pixels.size-8",
        "pixels.size-8.stored_dtype-float16",
    )


def test_the_models_own_value_is_included_without_being_listed_and_embedded_once() -> None:
    config = parsed(x=("pixels", {"size": [8]}))
    assert config.experiments["x"].models == ("pixels", "pixels.size-8")
    assert "pixels.size-16" not in config.models


def test_two_experiments_share_variants_whatever_the_order_of_keys() -> None:
    config = parsed(
        x=("pixels", {"size": [8]}),
        y=("pixels", {"stored_dtype": ["float16"], "size": [8, 4]}),
        z=("pixels", {"size": [8], "stored_dtype": ["float16"]}),
    )
    x, y, z = (set(config.experiments[name].models) for name in "xyz")
    assert x < z < y
    assert len(y) == 6


def test_another_value_renames_nothing() -> None:
    few, more = (parsed(x=("pixels", {"size": sizes})).experiments["x"].models for sizes in ([8], [4, 8, 32]))
    assert set(few) < set(more)


def test_values_that_are_unsafe_in_paths_get_safe_unique_names() -> None:
    config = parsed(
        x=("dinov2-base", {"feature": ["hidden_states[-1]"], "revision": ["a/b", "a-b"], "size": [None, 448.0]})
    )
    names = config.experiments["x"].models
    assert len(set(names)) == 12
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) for name in names)
    assert "dinov2-base.size-448" in names
    assert any(re.fullmatch(r"dinov2-base\.feature-hidden_states-1-[0-9a-f]{4}", name) for name in names)
    torchscript = {"family": "torchscript", "path": "a.pt", "sha256": "0" * 64, "size": 64, "mean": [0.5] * 3}
    config = parsed({"ts": {"embed": torchscript | {"std": [1, 1, 1]}}}, x=("ts", {"mean": [[0.4, 0.5, 0.6]]}))
    assert re.fullmatch(r"ts\.mean-0\.4-0\.5-0\.6-[0-9a-f]{4}", config.experiments["x"].models[1])


def test_null_is_a_value_with_a_name() -> None:
    config = parsed(
        {"big": {"embed": CATALOGUE["models"]["dinov2-base"]["embed"] | {"size": 448}}}, x=("big", {"size": [None]})
    )
    assert config.experiments["x"].models == ("big", "big.size-null")
    assert config.models["big.size-null"].embed.size is None  # type: ignore[union-attr]


def test_every_file_of_a_model_whose_name_begins_anothers_has_one_owner() -> None:
    """Names with dots are parts of paths: each path of the workflow must belong to one model and index only."""
    config = Plan.of(raw(x=("pixels", {"size": [8]}), y=("pixels", {"size": [8], "stored_dtype": ["float16"]})))
    model, index = Plan.pattern(config.config.models), Plan.pattern(config.config.indexes)
    pattern = re.compile(f"results/d/metrics/(?P<model>{model})/(?P<index>{index}).json")
    for name in config.config.models:
        match = pattern.fullmatch(f"results/d/metrics/{name}/flat.json")
        assert match
        assert match.groupdict() == {"model": name, "index": "flat"}
    assert not pattern.fullmatch("results/d/metrics/pixelsxsize-8/flat.json")


def test_other_experiments_can_use_a_variant() -> None:
    config = raw(x=("pixels", {"size": [8]}))
    config["experiments"]["y"] = {"dataset": "photo-tiles-copies", "models": ["pixels.size-8", "color-histogram"]}
    assert loading.parse(config).experiments["y"].models == ("pixels.size-8", "color-histogram")


def test_an_entry_named_like_a_variant_can_label_but_not_contradict_it() -> None:
    entry = {"label": "Tiny", "embed": {"family": "pixels", "size": 8}}
    assert parsed({"pixels.size-8": entry}, x=("pixels", {"size": [8]})).models["pixels.size-8"].label == "Tiny"
    entry["embed"] = {"family": "pixels", "size": 9}
    assert refused({"pixels.size-8": entry}, x=("pixels", {"size": [8]})) == (
        "experiments.x.vary: creates a model 'pixels.size-8', but models.pixels.size-8 has other settings: "
        '{"family": "pixels", "size": 9}. Give that model another name.'
    )


@pytest.mark.parametrize(
    ("model", "over", "message"),
    [
        (
            "clip-vit-b32",
            {"pooling": ["mean"]},
            ".over.pooling: 'clip-vit-b32' with pooling: mean is not possible: feature 'image_features' is already a "
            "single vector, but pooling is 'mean'. Remove pooling, or use the feature last_hidden_state.",
        ),
        (
            "dinov2-base",
            {"pooling": ["mean"], "poolng": ["cls"]},
            ".over.poolng: unknown key of family 'transformers'. Did you mean 'pooling'?",
        ),
        (
            "dinov2-base",
            {"pooling": ["mean", "gemm"]},
            ".over.pooling.1: input should be 'cls', 'mean', 'mean_patches', 'gem' or 'none', found 'gemm' "
            "(how tokens or a feature map become one vector). Did you mean 'gem'?",
        ),
        (
            "pixels",
            {"size": [8, 1]},
            ".over.size.1: input should be greater than or equal to 2, found 1 (side of the thumbnail, in pixels).",
        ),
        ("pixels", {"size": [8, 8.0]}, ".over.size: '8' is listed more than once. List it once."),
        ("pixels", {"size": 8}, ".over.size: should be a list, such as [8], found 8."),
        ("pixels", {"size": []}, ".over.size: is empty. Add at least one."),
        ("pixels", {}, ".over: is empty. Add at least one."),
        (
            "pixels",
            {"size": [16]},
            ".over.size: '16' is already the value of 'pixels'. Add another value to compare it with.",
        ),
        (
            "pixels",
            {"family": ["color_histogram"]},
            ".over.family: cannot be varied: another family is another model. List it under an experiment's models:.",
        ),
        ("pixel", {"size": [8]}, ".model: model 'pixel' is not defined. Did you mean 'pixels'?"),
    ],
)
def test_an_invalid_variation_is_refused_with_its_place(model: str, over: dict[str, Any], message: str) -> None:
    assert refused(x=(model, over)) == f"experiments.x.vary{message}"


def test_an_experiment_has_one_source_of_models() -> None:
    both, neither = raw(x=("pixels", {"size": [8]})), raw(x=("pixels", {"size": [8]}))
    both["experiments"]["x"]["models"] = ["pixels"]
    del neither["experiments"]["x"]["vary"]
    for config, message in ((both, "has both models: and vary:"), (neither, "has nothing to compare. Add models:")):
        with pytest.raises(ConfigError, match=f"^experiments.x: {message}"):
            loading.parse(config)


def test_an_unknown_key_next_to_model_and_over_is_reported() -> None:
    config = raw(x=("pixels", {"size": [8]}))
    config["experiments"]["x"]["vary"]["ower"] = {}
    with pytest.raises(ConfigError, match=r"^experiments\.x\.vary\.ower: unknown key\. Did you mean 'over'\?$"):
        loading.parse(config)


def test_the_plan_gives_the_compare_stage_the_values_of_each_model() -> None:
    config = Plan.of(raw(x=("pixels", {"size": [8]})))
    assert config.design("x") == '{"pixels": {"size": "16"}, "pixels.size-8": {"size": "8"}}'
    assert Plan.of(CATALOGUE).design("demo") == "{}"
    key = json.loads(config.report_key("x"))
    assert key["varied"] == "Grey thumbnail"
    assert key["labels"] == {"pixels": "size: 16", "pixels.size-8": "size: 8"}
    assert config.embedding_key("pixels.size-8") == '{"family": "pixels", "size": 8}'
