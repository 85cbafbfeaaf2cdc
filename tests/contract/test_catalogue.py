"""Every network of the catalogue says what it is: its licence, its size, and whether its weights can change."""

import re
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY
from lookalike.config.models import Checkpoint, is_commit
from lookalike.plan.plan import Plan

TEXT = (REPOSITORY / "config.yaml").read_text()
MODELS = Plan.of(yaml.safe_load(TEXT)).config.models
NETWORKS = [name for name, model in MODELS.items() if model.embed.family not in ("pixels", "color_histogram", "hash")]
WRITTEN = [name for name in NETWORKS if re.search(rf"^  {re.escape(name)}:", TEXT, re.MULTILINE)]  # no variants


@pytest.mark.parametrize("name", WRITTEN)
def test_a_network_says_its_licence_parameters_and_image_size(name: str) -> None:
    about = MODELS[name].about
    assert about.license
    assert about.parameters
    assert about.image_size


@pytest.mark.parametrize("name", WRITTEN)
def test_its_image_size_is_the_one_that_its_settings_ask_for(name: str) -> None:
    size = getattr(MODELS[name].embed, "size", None)
    assert size in (None, MODELS[name].about.image_size)


def test_what_was_trained_on_a_data_set_of_the_catalogue_says_so() -> None:
    trained = {name for name, model in MODELS.items() if "DISC21" in model.about.trained_on}
    assert trained == {"sscd-int8", "sscd-disc-mixup"}


def test_facts_for_people_change_no_vector() -> None:
    raw: dict[str, Any] = yaml.safe_load(TEXT)
    before = Plan.of(raw)
    raw["models"]["dinov2-base"] |= {"about": {"license": "another"}, "requires": "numpy"}
    after = Plan.of(raw)
    assert after.embedding_key("dinov2-base") == before.embedding_key("dinov2-base")
    assert after.weights("dinov2-base") == before.weights("dinov2-base")


def test_the_page_of_the_catalogue_lists_every_model_and_which_are_not_pinned() -> None:
    page = (REPOSITORY / "docs/models.md").read_text()
    catalogue = yaml.safe_load(TEXT)["models"]
    assert [name for name in catalogue if f"`{name}`" not in page.partition("## Pinned")[0]] == []
    entries = {name: MODELS[name].embed for name in WRITTEN}
    movable = {
        name for name, embed in entries.items() if isinstance(embed, Checkpoint) and not is_commit(embed.revision)
    }
    section = page.partition("## Pinned")[2].partition(" are not pinned:")[0]
    assert set(re.findall(r"`([\w.-]+)`", section)) - {"revision"} == movable
    row = next(line for line in page.splitlines() if line.startswith("| `sscd-disc-mixup`"))
    assert [cell.strip() for cell in row.split("|")[3:7]] == ["24.6 M", "320", "512", "MIT"]
