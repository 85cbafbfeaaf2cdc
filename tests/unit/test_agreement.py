import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import process_time

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from lookalike.compare.compare import CompareJob, compare
from lookalike.io import store
from lookalike.io.formats.records import Comparisons, Metrics
from lookalike.io.formats.tables import IMAGES, INDEX_IMAGES, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.measure.measure import MeasureJob, measure
from lookalike.metrics import agreement
from lookalike.metrics.agreement import AT, outcomes, scales
from lookalike.metrics.evaluation import Results
from lookalike.metrics.rates import NOTHING, ratio
from tables import MADE, images_table, neighbors_table, seen_table, truth_table, write_search

Texts = Mapping[str, Sequence[str] | None]
Found = Mapping[str, Sequence[tuple[str, float]]]


def images_with_text(
    references: Sequence[str],
    queries: Sequence[str],
    captions: Texts | None = None,
    labels: Texts | None = None,
    groups: Mapping[str, str] | None = None,
) -> pa.Table:
    """An images table with captions, labels or both; images that are not listed have none."""
    table = images_table(references, queries, groups)
    for column, texts in (("captions", captions), ("labels", labels)):
        if texts is not None:
            values = [texts.get(name) for name in table["image_id"].to_pylist()]
            table = table.append_column(column, pa.array(values, pa.list_(pa.string())))
    return IMAGES.check(table, "images")


def nearest(names: Sequence[str], first: float = 0.9) -> list[tuple[str, float]]:
    return [(name, first - place / 100) for place, name in enumerate(names)]


def measured(images: pa.Table, found: Found, k: int = 5) -> dict[str, dict[str, float]]:
    """Metric -> query -> outcome."""
    ids = images["image_id"].to_pylist()
    searched = sum(images["reference"].to_pylist())
    return {
        name: dict(
            zip(
                [ids[row] for row in scale.counted],
                outcomes(scale, neighbors_table(found), images, searched=searched, kept=k + 1).tolist(),
                strict=True,
            )
        )
        for name, scale in scales(images, k).items()
    }


# --- by hand: a query with a dog and a person, and seven references ---

LABELS = {
    "q": ["dog", "person", "dog"],  # repetition does not count
    "same": ["person", "dog"],  # 2 of 2
    "dog": ["dog"],  # 1 of 2
    "street": ["dog", "person", "car", "bus"],  # 2 of 4
    "sofa": ["person", "cat"],  # 1 of 3
    "cat": ["cat"],
    "sky": [],
    "sea": None,
}
REFERENCES = [name for name in LABELS if name != "q"]
FOUND = {"q": nearest(["cat", "same", "sky", "dog", "sofa", "street"])}


def test_categories_by_hand() -> None:
    images = images_with_text(REFERENCES, ["q"], labels=LABELS)
    found = measured(images, FOUND)
    assert found["category_overlap_at_5"] == {"q": pytest.approx((0 + 1 + 0 + 1 / 2 + 1 / 3) / 5)}
    gain = 1 / math.log2(3) + 1 / 2 / math.log2(5) + 1 / 3 / math.log2(6)
    ideal = 1 + 1 / 2 / math.log2(3) + 1 / 2 / 2 + 1 / 3 / math.log2(5)
    assert found["category_ndcg_at_5"] == {"q": pytest.approx(gain / ideal)}


def test_chance_and_ceiling_by_hand() -> None:
    found = scales(images_with_text(REFERENCES, ["q"], labels=LABELS), 5)
    overlap, ndcg = found["category_overlap_at_5"], found["category_ndcg_at_5"]
    mean = (1 + 1 / 2 + 1 / 2 + 1 / 3) / 7  # chance: the mean over all seven references
    assert overlap.chance == pytest.approx(mean)
    assert overlap.ceiling == pytest.approx((1 + 1 / 2 + 1 / 2 + 1 / 3) / 5)
    discounts = [1 / math.log2(rank + 1) for rank in range(1, 6)]
    ideal = 1 + 1 / 2 / math.log2(3) + 1 / 2 / 2 + 1 / 3 / math.log2(5)
    assert ndcg.chance == pytest.approx(mean * sum(discounts) / ideal)
    assert ndcg.ceiling == pytest.approx(1)


def test_captions_by_hand() -> None:
    captions = {
        "q": ["A dog.", "The DOG"],
        "dog": ["dog"],
        "pets": ["a dog and", "a cat"],
        **{f"other{number}": ["a train"] for number in range(5)},
    }
    found = measured(
        images_with_text([name for name in captions if name != "q"], ["q"], captions),
        {"q": nearest(["pets", "other0", "other1", "dog", "other2", "other3"])},
    )
    weight = {"dog": 1 + math.log(9 / 4), "cat": 1 + math.log(9 / 2)}  # 8 images: 3 with a dog, 1 with a cat
    pets = weight["dog"] / math.hypot(weight["dog"], weight["cat"])
    assert found == {"caption_agreement_at_5": {"q": pytest.approx((pets + 1) / 5)}}


def test_the_query_itself_is_never_its_own_neighbor() -> None:
    # Seven images, all query and reference, each with a unique label: only the image itself would agree.
    names = [f"p{number}" for number in range(7)]
    images = images_with_text(names, names, labels={name: [name] for name in names})
    assert scales(images, 5)["category_overlap_at_5"].ceiling.tolist() == [0] * 7
    assert scales(images, 5)["category_overlap_at_5"].chance.tolist() == [0] * 7
    alike = images_with_text(names, names, labels={name: ["dog"] for name in names})
    assert scales(alike, 5)["category_overlap_at_5"].chance.tolist() == [1] * 7  # the mean of six others, not of seven
    with pytest.raises(LookalikeError, match="'p0' is its own neighbor"):
        measured(images, {"p0": nearest(["p1", "p0"])})


def test_images_without_text_are_no_queries_and_have_no_gain() -> None:
    queries = ["q", "empty", "none", "stop"]
    captions = {"q": ["dog"], "empty": [], "none": None, "stop": ["the and of", ""], "r0": ["dog"], "r1": []}
    references = [f"r{number}" for number in range(8)]
    found = measured(
        images_with_text(references, queries, captions), {name: nearest(references[:6]) for name in queries}
    )
    assert found == {"caption_agreement_at_5": {"q": 1 / 5}}


def test_a_query_that_no_reference_agrees_with_is_excluded_from_ndcg_only() -> None:
    images = images_with_text(REFERENCES, ["q", "zebra"], labels={**LABELS, "zebra": ["zebra"]})
    found = measured(images, {**FOUND, "zebra": FOUND["q"]})
    assert found["category_overlap_at_5"]["zebra"] == 0
    assert list(found["category_ndcg_at_5"]) == ["q"]


def test_without_text_or_choice_there_is_no_metric() -> None:
    assert scales(images_table(REFERENCES, ["q"]), 5) == {}
    assert scales(images_with_text(REFERENCES, ["q"], captions={"q": ["a the"]}, labels={}), 5) == {}
    assert scales(images_with_text(REFERENCES, ["q"], labels=LABELS), 4) == {}  # four neighbors are not five
    assert scales(images_with_text(REFERENCES[:5], ["q"], labels=LABELS), 5) == {}  # all five are always found
    assert scales(images_with_text(REFERENCES[:6], REFERENCES[:2], labels=LABELS), 5) == {}  # so are all five others
    assert scales(images_with_text(REFERENCES[:6], ["q"], labels=LABELS), 5) != {}


def test_images_without_a_role_do_not_affect_word_weights() -> None:
    captions = {"q": ["dog"], **{f"r{number}": ["dog cat"] for number in range(7)}}
    images = images_with_text(list(captions)[1:], ["q"], captions)
    training = images_with_text(["t"], [], {"t": ["cat cat cat"]}).to_pylist()[0] | {
        "reference": False,
        "training": True,
    }
    more = pa.concat_tables([images, pa.Table.from_pylist([training], schema=images.schema)])
    before, after = (scales(table, 5)["caption_agreement_at_5"] for table in (images, more))
    assert before.chance.tolist() == after.chance.tolist()


# --- ties ---


def test_equal_scores_count_against_the_model() -> None:
    images = images_with_text(REFERENCES, ["q"], labels=LABELS)
    tied = {
        "q": [("same", 0.9), ("cat", 0.8), ("sea", 0.8), ("sky", 0.8), ("dog", 0.8), ("street", 0.8), ("sofa", 0.7)]
    }
    # The five with 0.8 take ranks 2 to 6: the three without overlap rank first.
    assert measured(images, tied, k=6)["category_overlap_at_5"]["q"] == pytest.approx((1 + 0 + 0 + 0 + 1 / 2) / 5)


def test_constant_scores_earn_nothing() -> None:
    images = images_with_text(REFERENCES, ["q"], labels=LABELS)
    found = {"q": [(name, 0.5) for name in ("same", "dog", "street", "sofa", "cat", "sky")]}
    assert measured(images, found) == {"category_overlap_at_5": {"q": 0}, "category_ndcg_at_5": {"q": 0}}
    everything = {"q": [*found["q"], ("sea", 0.5)]}  # not truncated: the worst order is known
    assert measured(images, everything, k=7)["category_overlap_at_5"]["q"] == pytest.approx((1 / 3 + 1 / 2) / 5)


# --- compared with a naive implementation ---


def naive_similarity(a: str, b: str, captions: Mapping[str, Sequence[str]]) -> float:
    def bag(name: str) -> dict[str, float]:
        words = re.findall(r"\w\w+", " ".join(captions[name]).lower())
        return {word: words.count(word) * weight[word] for word in words if word not in ENGLISH_STOP_WORDS}

    texts = [set(re.findall(r"\w\w+", " ".join(lines).lower())) for lines in captions.values() if lines]
    weight = {
        word: 1 + math.log((1 + len(texts)) / (1 + sum(word in text for text in texts))) for word in set().union(*texts)
    }
    bag_a, bag_b = bag(a), bag(b)
    lengths = math.hypot(*bag_a.values()) * math.hypot(*bag_b.values())
    return sum(bag_a[word] * bag_b[word] for word in bag_a.keys() & bag_b.keys()) / lengths if lengths else 0.0


@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_a_naive_implementation(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "BLOCK", 50)  # several blocks
    random = np.random.default_rng(seed)
    words = ["dog", "cat", "train", "the", "and", "snow", "street", "man", "running"]
    names = [f"p{number:02d}" for number in range(14)]
    captions = {name: [" ".join(random.choice(words, 4)) for _ in range(random.integers(0, 3))] for name in names}
    labels = {name: list(random.choice(words, random.integers(0, 4))) for name in names}
    references, queries = names[:11], names[4:]
    images = images_with_text(references, queries, captions, labels)
    found = {}
    for query in queries[:-1]:  # the last one was rejected
        others = random.permutation([name for name in references if name != query])[:7]
        found[query] = [
            (name, score) for name, score in zip(others, -np.sort(-random.integers(0, 4, 7)) / 4, strict=True)
        ]
    values = measured(images, found, k=6)

    def jaccard(a: str, b: str) -> float:
        union = {*labels[a], *labels[b]}
        return len({*labels[a]} & {*labels[b]}) / len(union) if union else 0.0

    def check(name: str, gain: Callable[[str, str], float], discounts: list[float], normalise: bool) -> None:
        scale = scales(images, 6)[name]
        ids = [images["image_id"][row].as_py() for row in scale.counted]
        for number, query in enumerate(ids):
            others = [gain(query, other) for other in references if other != query]
            ideal = sum(map(math.prod, zip(sorted(others, reverse=True), discounts)))  # noqa: B905
            best = ideal if normalise else 1
            rows = sorted(found.get(query, []), key=lambda row: (-row[1], gain(query, row[0])))
            lowest = rows[-1][1] if rows else 0
            gains = [0 if score == lowest else gain(query, other) for other, score in rows][:AT]
            expected = sum(map(math.prod, zip(gains, discounts))) / best  # noqa: B905
            assert values[name][query] == pytest.approx(expected, abs=1e-9)
            assert scale.ceiling[number] == pytest.approx(ideal / best, abs=1e-9)
            assert scale.chance[number] == pytest.approx(np.mean(others) * sum(discounts) / best, abs=1e-9)

    logarithmic = [1 / math.log2(rank + 1) for rank in range(1, AT + 1)]
    check("category_overlap_at_5", jaccard, [1 / AT] * AT, False)
    check("category_ndcg_at_5", jaccard, logarithmic, True)
    check("caption_agreement_at_5", lambda a, b: naive_similarity(a, b, captions), [1 / AT] * AT, False)


def test_row_order_does_not_matter() -> None:
    random = np.random.default_rng(7)
    names = [f"p{number:02d}" for number in range(30)]
    captions = {name: [" ".join(random.choice(["dog", "cat", "snow", "man", "boat"], 3))] for name in names}
    images = images_with_text(names, names, captions, captions)
    found = {name: nearest([other for other in random.permutation(names) if other != name][:6]) for name in names}
    table = neighbors_table(found)
    mixed = images.take(pa.array(random.permutation(images.num_rows)))
    shuffled = table.take(pa.array(random.permutation(table.num_rows)))
    expected = agreement.estimates(scales(images, 5), table, images, searched=30, kept=6)
    assert agreement.estimates(scales(mixed, 5), shuffled, mixed, searched=30, kept=6) == expected


def test_random_neighbors_reach_chance_and_the_best_neighbors_the_ceiling() -> None:
    random = np.random.default_rng(3)
    names = [f"p{number:03d}" for number in range(300)]
    labels = {name: list(random.choice(list("abcdefgh"), random.integers(1, 4))) for name in names}
    images = images_with_text(names, names, labels=labels)

    def overlap(a: str, b: str) -> float:
        return len({*labels[a]} & {*labels[b]}) / len({*labels[a], *labels[b]})

    others = {name: [other for other in random.permutation(names) if other != name] for name in names}
    by_chance = {name: nearest(others[name][:6]) for name in names}
    best = {name: nearest(sorted(others[name], key=lambda other: -overlap(name, other))[:6]) for name in names}
    for found, expected in ((by_chance, 0.0), (best, 1.0)):
        _, baselines = agreement.estimates(scales(images, 5), neighbors_table(found), images, searched=300, kept=6)
        for name in ("category_overlap_at_5", "category_ndcg_at_5"):
            assert baselines[name].reached.value == pytest.approx(expected, abs=0.02)
            assert baselines[name].reached.low <= expected + 1e-9
            assert baselines[name].reached.high >= expected - 1e-9


def test_ten_thousand_images_take_seconds() -> None:
    random = np.random.default_rng(0)
    chances = 1 / np.arange(1, 5001)
    drawn = random.choice(5000, (10_000, 50), p=chances / chances.sum())
    names = [f"p{number:05d}" for number in range(10_000)]
    captions = {name: [" ".join(f"word{word}" for word in row)] for name, row in zip(names, drawn, strict=True)}
    images = images_with_text(names, names, captions)
    started = process_time()
    scale = scales(images, 10)["caption_agreement_at_5"]
    assert process_time() - started < 60  # about four
    assert 0 < scale.chance.mean() < scale.ceiling.mean() < 1
    assert len(scale.counted) == 10_000


def test_the_share_of_the_way_to_the_ceiling_by_hand() -> None:
    alone = np.arange(20)
    share = ratio(np.tile([0.1, 0.3], 10), np.tile([0.5, 0.5], 10), alone)
    assert share.value == pytest.approx(0.4)
    assert share.low < 0.4 < share.high
    few = ratio(np.array([0.1, 0.3]), np.array([0.5, 0.5]), np.arange(2))
    assert (few.value, few.low, few.high) == (pytest.approx(0.4), None, None)
    assert ratio(np.zeros(3), np.zeros(3), np.arange(3)) == NOTHING


# --- through the stages ---


@pytest.fixture
def stages(tmp_path: Path) -> dict:
    """Two models on 24 images of four topics without true matches: ``good`` knows the topics, ``bad`` does not."""
    names = [f"p{number:02d}" for number in range(24)]
    topics = {name: f"topic{number % 4}" for number, name in enumerate(names)}
    captions = {name: [f"a {topic} {topic}"] for name, topic in topics.items()} | {"p23": None}
    images = images_with_text(names, names, captions, {name: [topic] for name, topic in topics.items()})
    others = {name: [other for other in names if other != name] for name in names}
    good = {
        name: nearest(sorted(rest, key=lambda other: topics[other] != topics[name])[:6])
        for name, rest in others.items()
    }
    bad = {
        name: nearest([other for other in rest if topics[other] != topics[name]][:6]) for name, rest in others.items()
    }
    del good["p00"]  # rejected
    store.write_table(images, tmp_path / "images.parquet", IMAGES, MADE)
    store.write_table(truth_table([]), tmp_path / "truth.parquet", TRUTH, MADE)
    results: list[Results] = []
    for model, found in (("good", good), ("bad", bad)):
        footer = {"model": model, "index": "flat", "k": 5}
        results.append(write_search(tmp_path / f"{model}.parquet", found, len(names), footer))
        seen = seen_table(rejected=["p00"] if model == "good" else [])
        store.write_table(seen, tmp_path / f"{model}.images.parquet", INDEX_IMAGES, MADE)
        measure(
            MeasureJob(
                results=results[-1],
                truth=tmp_path / "truth.parquet",
                images=tmp_path / "images.parquet",
                seen=tmp_path / f"{model}.images.parquet",
                timings=[],
                search_timing=tmp_path / "none.json",
                out=tmp_path / f"{model}.json",
                dataset="photos",
                model=model,
                index="flat",
                k=5,
            )
        )
    compare(
        CompareJob(
            experiment="mine",
            metrics=[tmp_path / f"{model}.json" for model in ("good", "bad")],
            results=results,
            truth=tmp_path / "truth.parquet",
            images=tmp_path / "images.parquet",
            models=["good", "bad"],
            architectures={},
            leaderboard_out=tmp_path / "leaderboard.csv",
            comparisons_out=tmp_path / "comparisons.json",
        )
    )
    return {"folder": tmp_path, "good": store.read_json(tmp_path / "good.json", Metrics)}


def test_measuring_writes_agreement_with_its_baselines(stages: dict) -> None:
    record = stages["good"]
    assert set(record.baselines) == {"caption_agreement_at_5", "category_overlap_at_5", "category_ndcg_at_5"}
    caption, baseline = record.metrics["caption_agreement_at_5"], record.baselines["caption_agreement_at_5"]
    assert (caption.n, baseline.not_counted) == (23, 1)
    # All neighbors share the topic, but p00 was rejected, which is a miss, and p23 has no caption to agree with.
    assert caption.value == pytest.approx((22 - 5 * 1 / 5) / 23)
    assert baseline.ceiling.value == pytest.approx((18 + 5 * 4 / 5) / 23)
    assert baseline.floor.value < 0.25 < caption.low
    assert 0.9 < baseline.reached.value < 1


def test_comparing_tests_agreement_on_the_same_queries(stages: dict) -> None:
    pairs = store.read_json(stages["folder"] / "comparisons.json", Comparisons).comparisons
    verdicts = {
        pair.metric: (pair.verdict, pair.difference.n, pair.p_holm < 0.001) for pair in pairs if pair.difference.n
    }
    assert verdicts == {
        "caption_agreement_at_5": ("better", 23, True),
        "category_overlap_at_5": ("better", 24, True),
        "category_ndcg_at_5": ("better", 24, True),
    }


def test_the_leaderboard_has_the_baselines(stages: dict) -> None:
    rows = (stages["folder"] / "leaderboard.csv").read_text().splitlines()
    names = {row.split(",")[2] for row in rows if row.startswith("good")}
    assert {f"caption_agreement_at_5{end}" for end in ("", "_floor", "_ceiling", "_reached")} <= names
