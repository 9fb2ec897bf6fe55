"""Mutated files of every kind: a reader gives a value or one of the errors that the command line reports, in time.

A hundred here, more with the long tests; `make fuzz` goes on for minutes.
"""

import pytest
from fuzz import Counted
from fuzz_targets import targets

EXAMPLES = 10  # of each reader
FEW = 6  # of those that draw a whole page, with the long tests
NAMES = [
    *("checkpoint", "config", ".beton file", ".beton sidecar", "token file", "token sidecar", "image", "real labels"),
    *("result.json", "metrics.jsonl", "routing.npz", "routing_maps.npz"),
    *("page of result.json", "page of metrics.jsonl", "page of routing.npz"),
]


@pytest.fixture(scope="module")
def all_targets(good_world, tmp_path_factory):
    from run_folders import image_run

    return targets(good_world, image_run(tmp_path_factory.mktemp("made") / "run"))


def test_every_reader_is_fuzzed(all_targets):
    assert list(all_targets) == NAMES


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name.startswith("page") else []) for name in NAMES]
)
def test_a_reader_gives_a_value_or_a_users_error(name, all_targets, tmp_path):
    target = all_targets[name]
    counted = Counted(target, tmp_path)
    for seed in target.seeds:
        counted.read(seed)
    assert counted.accepted == len(target.seeds)  # the good files are read
    takes_all = name.startswith(("page", "metrics"))  # and say what they leave out
    counted.fuzz(FEW if name.startswith("page") else EXAMPLES, seed=1)
    refused = counted.examples - counted.accepted
    assert (refused == 0) == takes_all
