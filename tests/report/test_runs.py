"""Reading `result.json`: what it says, and what is said when it is not right."""

import re
import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest
from synthetic import TEXT, result, text_result, write

from vmoe.report import parse_result, read_run


def test_a_run_says_what_its_result_says(tmp_path):
    content = result("topk", loads=[[0.5, 0.5], [1.0, 0.0]])
    run = read_run(write(tmp_path / "first", content))
    assert run.name == "first"
    assert (run.gate, run.model, run.measured["top1"], run.params) == ("topk", content["model"], 71.5, 5_717_416)
    assert [layer.layer for layer in run.routing.layers] == ["blocks.1.mlp", "blocks.3.mlp"]
    assert run.routing.layers[1].load == (1.0, 0.0)
    assert run.routing.layers[1].figures.dead == 0.5
    assert run.routing.mean.dead == 0.25  # (0 + 0.5) / 2
    assert run.routing.layers[0].experts_per_token == (0, 0, 10)
    with pytest.raises(FrozenInstanceError):
        run.loss = 0.0


def test_a_dense_run_has_no_routing(tmp_path):
    assert read_run(write(tmp_path, result("dense"))).routing is None


def test_an_evaluation_inside_a_run_folder_keeps_the_name_of_the_run(tmp_path):
    assert read_run(write(tmp_path / "first" / "eval", result())).name == "first/eval"
    assert read_run(write(tmp_path / "first" / "eval" / "last-val", result())).name == "first/eval/last-val"


def test_what_was_not_measured_may_be_null():
    missing = dict.fromkeys(["top5", "loss", "train_flops", "images_per_second", "steps", "seed"])
    run = parse_result(result(**missing), "x")
    assert (run.measured["top5"], run.train_flops, run.seed) == (None, None, None)
    missing = ["bits_per_byte", "word_perplexity", "flops_per_token", "tokens_per_second", "model_flops_utilisation"]
    run = parse_result(text_result(**dict.fromkeys(missing)), "x")
    assert [run.measured[key] for key in missing] == [None] * 5


def test_a_result_without_a_task_is_one_of_images():
    assert parse_result(result(), "x").task.name == "images"
    assert parse_result(result(task="images"), "x") == parse_result(result(), "x")


def test_a_run_measures_what_its_task_does():
    run = parse_result(text_result(), "x")
    assert run.task.name == "text"
    assert dict(run.measured) == {key: value for key, value in TEXT.items() if key not in ("task", "model", "data")}


def test_label_information_is_optional_in_layers():
    """Records from before it had its name."""
    content = text_result(information=0.25)
    assert parse_result(content, "x").routing.mean.label_information_share == 0.25
    del content["routing"]["mean"]["label_information_share"]
    assert parse_result(content, "x").routing.mean.label_information_share is None


def test_a_missing_folder_and_a_missing_result_are_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: there is no such folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no result\.json; is it the folder of a run"):
        read_run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    with pytest.raises(FileNotFoundError, match=r"evaluate it: vmoe eval .*last\.pt"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", [b'{"format": 1,', b"", b"\xff\xfe\x00"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json is not valid JSON"):
        read_run(tmp_path)


@pytest.mark.parametrize("of_task", [result, text_result])
def test_every_documented_key_is_needed(of_task):
    for key in set(of_task()) - {"task"}:
        content = of_task()
        del content[key]
        with pytest.raises(ValueError, match=rf"x/result\.json: key '{key}' is missing; evaluate the run again"):
            parse_result(content, "x")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "format is 2; this version of vmoe reads 1"),
        ("gate", 3, "gate is 3; allowed: a string"),
        ("top1", "71", "top1 is '71'; allowed: a number"),
        ("top1", None, "top1 is None; allowed: a number"),
        ("params", True, "params is True; allowed: a whole number"),
        ("task", "audio", "task is 'audio'; allowed: images, text"),
        ("task", None, "task is None; allowed: a string"),
        ("params", 1.5, "params is 1.5; allowed: a whole number"),
        ("routing", None, "routing is None; allowed: a mapping"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(key, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_result(result(**{key: value}), "x")


def test_a_wrong_value_in_a_layer_is_named_with_its_place():
    content = result(loads=[[0.5, 0.5], [0.5, 0.5]])
    content["routing"]["layers"][1]["load"] = [0.5, float("nan")]
    with pytest.raises(ValueError, match=re.escape("routing: layers[1]: load is [0.5, nan]; allowed: a list")):
        parse_result(content, "x")
    content["routing"]["layers"][1]["load"] = [1.0]
    with pytest.raises(ValueError, match="experts_per_token has 3 counts; allowed: one more than load's 1 experts"):
        parse_result(content, "x")


def test_the_content_must_be_a_mapping():
    with pytest.raises(ValueError, match=r"x/result\.json is \[\]; allowed: a mapping"):
        parse_result([], "x")


@pytest.mark.parametrize("module", ["vmoe.report", "vmoe.report.plots"])
def test_reports_need_no_torch(module):
    code = f"import sys; sys.modules['torch'] = None; import {module}; assert 'vmoe.config' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_tables_work_and_plots_say_what_to_install():
    code = "import sys; sys.modules['matplotlib'] = None; import vmoe.report; import vmoe.report.plots"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith("plots need matplotlib: pip install 'vmoe[report]'\n")


def test_figures_that_older_results_lack_are_none_and_gate_mass_fits_the_experts(tmp_path):
    content = result()
    found = parse_result(content, tmp_path).routing.layers[0]
    assert found.gate_mass == tuple(content["routing"]["layers"][0]["gate_mass"])
    assert found.figures.changed is found.figures.nearly_dead is None
    content["routing"]["layers"][0] |= {"changed": 0.25, "nearly_dead": 0.5}
    assert parse_result(content, tmp_path).routing.layers[0].figures.changed == 0.25
    content["routing"]["layers"][0]["gate_mass"] = [0.5, 0.5]
    with pytest.raises(ValueError, match="gate_mass has 2 shares; allowed: load's 4"):
        parse_result(content, tmp_path)
