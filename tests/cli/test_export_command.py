"""`vmoe export`: the same model as a folder, and on a hub that a stand-in plays."""

import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import yaml
from text_world import make_text_world
from world import make_world, vmoe

import vmoe as package

BEST, DENSE, TEXT = (f"runs/{name}/checkpoints/best.pt" for name in ("tiny", "dense", "text"))
SHORT = ("schedule.max_steps=2",)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Three runs and their exports."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world(folder)
        make_text_world(folder)
        ema = ("train.ema_decay=0.5", "train.evaluate=ema")
        runs = (("tiny.yaml", *ema), ("tiny.yaml", "moe.gate=dense", "output=runs/dense"), ("text.yaml",))
        for arguments in runs:
            assert vmoe("train", *arguments, *SHORT).status == 0
        for checkpoint in (BEST, DENSE, TEXT):
            outcome = vmoe("export", checkpoint)
            assert (outcome.status, outcome.out) == (0, f"{folder_of(checkpoint)}\n"), outcome
    return folder


def folder_of(checkpoint):
    return Path(checkpoint).parents[1] / "export" / "best"


@pytest.fixture(autouse=True)
def inside(exported, monkeypatch):
    monkeypatch.chdir(exported)


def inputs(checkpoint):
    torch.manual_seed(0)
    return torch.randint(0, 60, (2, 16)) if checkpoint == TEXT else torch.randn(2, 3, 8, 8)


def outputs(model, x):
    with torch.no_grad():
        y = model(x)
    return y if isinstance(y, torch.Tensor) else y.logits


@pytest.mark.parametrize("checkpoint", [BEST, DENSE, TEXT])
def test_the_folder_gives_the_same_model(checkpoint):
    original, again = package.load(checkpoint), package.load(folder_of(checkpoint))
    there, here = original.state_dict(), again.state_dict()
    assert list(there) == list(here)
    assert all(torch.equal(there[name], here[name]) for name in there)
    assert torch.equal(outputs(original, inputs(checkpoint)), outputs(again, inputs(checkpoint)))
    assert sorted(os.listdir(folder_of(checkpoint))) == ["README.md", "config.json", "model.safetensors"]


def test_a_dense_model_is_one_of_timm_too():
    model = timm.create_model(f"local-dir:{folder_of(DENSE)}", pretrained=True).eval()
    assert torch.equal(outputs(model, inputs(DENSE)), outputs(package.load(DENSE), inputs(DENSE)))
    known = model.pretrained_cfg
    assert (known["input_size"], known["crop_pct"], known["interpolation"]) == ((3, 8, 8), 0.875, "bicubic")
    assert tuple(known["mean"]) == (0.485, 0.456, 0.406)
    assert known["label_names"] == ["dark", "light"]
    assert not known.get("license")


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_other_weights_can_be_exported(weights, tmp_path):
    assert vmoe("export", BEST, "--weights", weights, "--output", str(tmp_path / "out")).status == 0
    wanted, found = package.load(BEST, weights), package.load(tmp_path / "out")
    assert torch.equal(outputs(wanted, inputs(BEST)), outputs(found, inputs(BEST)))
    other = package.load(BEST, {"raw": "ema", "ema": "raw"}[weights])
    assert not torch.equal(outputs(other, inputs(BEST)), outputs(found, inputs(BEST)))


def test_an_export_is_evaluated_and_started_from(tmp_path):
    folder = str(folder_of(BEST))
    outcome = vmoe("eval", folder, "--data", "images/val", "--output", str(tmp_path / "result"))
    assert outcome.status == 0, outcome
    result, trained = (
        json.loads((path / "result.json").read_text()) for path in (tmp_path / "result", Path("runs/tiny"))
    )
    assert result["loss"] == trained["loss"]
    assert result["steps"] == trained["steps"] == 2
    started = vmoe("train", "tiny.yaml", f"model.weights={folder}", f"output={tmp_path / 'run'}", *SHORT)
    assert started.status == 0, started


def test_the_card_says_what_it_is_and_what_it_came_to():
    card = (folder_of(BEST) / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "vmoe",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "vmoe", "mixture-of-experts"],
    }
    result = json.loads(Path("runs/tiny/result.json").read_text())
    header, _, row = (line for line in body.splitlines() if line.startswith("|"))
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert float(cells["top-1 %"]) == pytest.approx(result["top1"], abs=0.005)
    assert cells["routing entropy"].startswith(f"{result['routing']['mean']['entropy']:.3f}")
    assert "gate `topk` and 4 experts of kind `mlp`: `blocks.1.mlp`." in body
    assert 'vmoe.load("hf-hub:OWNER/tiny-best")' in body
    front = (folder_of(DENSE) / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(front)["library_name"] == "timm"
    assert "mixture-of-experts" not in front


def test_an_export_does_not_tell_where_things_lay(tmp_path):
    shutil.copytree("images", tmp_path / "secret/images")
    data = (f"data.train={tmp_path}/secret/images/train", f"data.val={tmp_path}/secret/images/val")
    assert vmoe("train", "tiny.yaml", f"output={tmp_path}/secret/run", *data, *SHORT).status == 0
    folder = tmp_path / "out"
    assert vmoe("export", f"{tmp_path}/secret/run/checkpoints/last.pt", "--output", str(folder)).status == 0
    for name in ("config.json", "README.md"):
        assert "secret" not in (folder / name).read_text()


def test_results_of_another_step_are_said_to_be(tmp_path):
    shutil.copytree("runs/tiny", tmp_path / "run")
    result = tmp_path / "run/result.json"
    result.write_text(result.read_text().replace('"steps": 2', '"steps": 9'))
    assert vmoe("export", f"{tmp_path}/run/checkpoints/best.pt", "--output", str(tmp_path / "out")).status == 0
    assert "at step 9; these weights are of step 2" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_folder_is_refused(name, tmp_path):
    shutil.copytree(folder_of(BEST), tmp_path / "out")
    path = tmp_path / "out" / name
    content = bytearray(path.read_bytes())
    where = content.index(b'"step": 2') + 8 if name == "config.json" else len(content) - 20
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"out: damaged: its contents do not match its digest"):
        package.load(tmp_path / "out")
    path.write_bytes(content[:50])
    with pytest.raises(ValueError, match="out: damaged"):
        package.load(tmp_path / "out")
    path.unlink()
    with pytest.raises(ValueError, match=f"out: no folder that vmoe export wrote, since it holds no {name}"):
        package.load(tmp_path / "out")


def test_a_folder_is_replaced_when_asked_for_and_where_it_is_an_export(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").touch()
    assert (
        "is there already; allowed: another --output, or --overwrite" in vmoe("export", BEST, "--output", str(out)).err
    )
    assert "holds thesis.txt" in vmoe("export", BEST, "--output", str(out), "--overwrite").err
    (out / "thesis.txt").unlink()
    for checkpoint in (DENSE, BEST):
        assert vmoe("export", checkpoint, "--output", str(out), "--overwrite").status == 0
    assert torch.equal(outputs(package.load(out), inputs(BEST)), outputs(package.load(BEST), inputs(BEST)))
    assert os.listdir(tmp_path) == ["out"]


# --- the hub ---------------------------------------------------------------------------------------------


class Hub:
    """Repositories in folders, in the place of `HfApi` and of downloads."""

    def __init__(self, root):
        self.root, self.calls = root, []

    def __call__(self, **settings):
        return self

    def create_repo(self, name, *, private, exist_ok):
        self.calls.append(("create", name, private))
        (self.root / name).mkdir(parents=True, exist_ok=exist_ok)
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{name}")

    def file_exists(self, repo_id, filename, revision=None):
        return (self.root / repo_id / filename).exists()

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, commit_message):
        shutil.copy(path_or_fileobj, self.root / repo_id / path_in_repo)

    def upload_folder(self, *, repo_id, folder_path, allow_patterns=None, **_):
        names = [name for name in os.listdir(folder_path) if allow_patterns is None or name in allow_patterns]
        self.calls.append(("upload", repo_id, sorted(names)))
        for name in names:
            shutil.copy(Path(folder_path) / name, self.root / repo_id / name)

    def snapshot_download(self, name, *, revision, allow_patterns):
        if not (self.root / name).exists():
            raise huggingface_hub.errors.HFValidationError("no such repository")
        return self.root / name


@pytest.fixture
def hub(tmp_path, monkeypatch):
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", stand_in)
    monkeypatch.setattr("timm.models._hub.HfApi", stand_in)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stand_in.snapshot_download)
    return stand_in


@pytest.mark.parametrize("checkpoint", [BEST, DENSE, TEXT])
def test_what_is_pushed_is_what_is_written(checkpoint, hub, tmp_path):
    out = tmp_path / "out"
    outcome = vmoe("export", checkpoint, "--output", str(out), "--push", "me/model", "--private")
    assert outcome.status == 0, outcome
    assert outcome.out.splitlines()[-1] == "https://huggingface.co/me/model"
    assert ("create", "me/model", True) in hub.calls
    assert {name: (hub.root / "me/model" / name).read_bytes() for name in os.listdir(hub.root / "me/model")} == {
        name: (out / name).read_bytes() for name in os.listdir(out)
    }
    assert 'vmoe.load("hf-hub:me/model")' in (out / "README.md").read_text()
    loaded = package.load("hf-hub:me/model")
    assert torch.equal(outputs(loaded, inputs(checkpoint)), outputs(package.load(checkpoint), inputs(checkpoint)))


def test_a_model_on_the_hub_is_evaluated_by_name(hub):
    shutil.copytree(folder_of(BEST), hub.root / "me/model")
    outcome = vmoe("eval", "hf-hub:me/model", "--data", "images/val")
    assert outcome.status == 0, outcome
    result = json.loads(Path("runs/hub/me/model/eval/model-val/result.json").read_text())
    assert result["loss"] == json.loads(Path("runs/tiny/result.json").read_text())["loss"]


def test_a_card_that_is_on_the_hub_stays(hub, tmp_path):
    (hub.root / "me/model").mkdir(parents=True)
    (hub.root / "me/model/README.md").write_text("mine")
    assert vmoe("export", BEST, "--output", str(tmp_path / "out"), "--push", "me/model").status == 0
    assert (hub.root / "me/model/README.md").read_text() == "mine"


def test_a_hub_that_refuses_leaves_the_folder(hub, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("401 who are you?\nmore")

    monkeypatch.setattr(hub, "create_repo", refuse)
    outcome = vmoe("export", BEST, "--output", str(tmp_path / "out"), "--push", "me/model")
    assert outcome.status == 2
    assert f"--push me/model: 401 who are you?. {tmp_path / 'out'} is written" in outcome.err
    assert package.load(tmp_path / "out") is not None


@pytest.mark.parametrize("name", ["model", "me/my/model", "me/mo del", "me/-model", ""])
def test_names_that_the_hub_does_not_take(name, tmp_path):
    outcome = vmoe("export", BEST, "--output", str(tmp_path / "out"), "--push", name)
    assert outcome.status == 2
    assert f"--push is {name!r}; allowed: OWNER/NAME" in outcome.err
    assert not (tmp_path / "out").exists()


def test_other_options_that_cannot_be(hub):
    assert "--private is given without --push" in vmoe("export", BEST, "--private").err
    assert "holds no moving average" in vmoe("export", DENSE, "--weights", "ema", "--output", "out").err
    with pytest.raises(ValueError, match="hf-hub:model: allowed: hf-hub:OWNER/NAME"):
        package.load("hf-hub:model")
    with pytest.raises(ValueError, match="no such repository"):
        package.load("hf-hub:me/none")
