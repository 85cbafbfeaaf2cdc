"""What makes Snakemake plan thousands of jobs faster changes nothing of what it is told."""

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.common import get_input_function_aux_params
from snakemake.resources import Resource

from lookalike.plan.start import remember_signatures


def test_parameters_of_functions_in_rules_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def shards(wildcards: Any, attempt: int) -> int:
        return int(wildcards.number) * attempt

    of_resource = Resource("mem_mb", lambda wildcards, attempt: attempt * 100)
    rule = SimpleNamespace(input=["plain.txt", shards], params=[], resources={"mem_mb": of_resource})
    monkeypatch.delattr(Resource.evaluate, "__signature__", raising=False)
    remember_signatures([rule])

    monkeypatch.setattr(inspect, "_signature_from_function", None)  # all that is expensive ends here
    wildcards = SimpleNamespace(number="3")
    assert get_input_function_aux_params(shards, {"attempt": 2, "threads": 1}) == {"attempt": 2}
    assert get_input_function_aux_params(of_resource.evaluate, {"attempt": 2}) == {"attempt": 2}
    assert of_resource.evaluate(wildcards, attempt=2, threads=1).value == 200
    with pytest.raises(TypeError):
        inspect.signature(lambda: None)
