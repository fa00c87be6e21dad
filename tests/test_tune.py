"A large network of which only a part is trained: what learns, what the file holds, on which base it may be put, and a training that goes on."
import json
import pytest

pytest.importorskip("fastai", reason="the train extra is not installed")
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from deepfake_nb.core import DeepfakeError, WeightsError
from deepfake_nb.learn.learner import Checkpoint
from deepfake_nb.learn.recipe import Recipe, average_weights, train
from deepfake_nb.model import base as bases
from deepfake_nb.model.scorer import create_scorer, load_scorer, save_scorer
from deepfake_nb.model.weightsfile import weights_info
from deepfake_nb.shell import run_command
from test_train import data  # noqa: F401 (sixteen variants of one portrait)

ARCH, SIDE = "vit_tiny_patch16_224", 64
TUNED = 25 * 2 * 192 + 192 + 1  # weight and bias of the layer norms, and the head


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    "Random weights in place of those that somebody trained."
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_file(timm.create_model(ARCH, num_classes=0, img_size=SIDE).state_dict(), path)
    return path


def recipe(base, **settings):
    return Recipe(**dict(arch=ARCH, temporal="mean", clip_length=1, image_size=SIDE, epochs=2, batch_size=4, learning_rate=3e-4, early_rate=1., tune="norm", uniformity=.1, pretrained=str(base)) | settings)


def run(data, out, recipe): return train(str(data), out, recipe, workers=0, progress=False, say=lambda line: None)


@pytest.fixture(scope="module")
def tuned(base, data, tmp_path_factory):  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFAKE_NB_FACE_DETECTOR", "haar")
        return run(data, tmp_path_factory.mktemp("tuned") / "tuned.safetensors", recipe(base))


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setenv("DEEPFAKE_NB_FACE_DETECTOR", "haar")
    monkeypatch.setenv("DEEPFAKE_NB_BASE", "")


def test_only_norms_and_head_learn_and_only_they_are_stored(base, tuned):
    told = weights_info(tuned)
    assert told["parameters"] == TUNED and told["bytes"] < 70_000 < base.stat().st_size / 100
    assert told["config"]["base"]["tune"] == "norm" and told["config"]["base"]["file"] == "base.safetensors"
    scorer, before = load_scorer(tuned, base=base), timm.create_model(ARCH, num_classes=0, img_size=SIDE)
    from safetensors.torch import load_file
    before.load_state_dict(load_file(base))
    changed = {k for k, v in before.state_dict().items() if not torch.equal(v, scorer.backbone.state_dict()[k])}
    assert changed and changed <= bases.tuned_names(scorer.backbone, "norm") and any("norm1" in o for o in changed)
    with safe_open(tuned, "pt") as file: assert set(file.keys()) == {f"backbone.{o}" for o in bases.tuned_names(scorer.backbone, "norm")} | {"head.out.weight", "head.out.bias"}


def test_the_same_result_after_loading_and_writing(base, tuned, tmp_path):
    scorer, clip = load_scorer(tuned, base=base), torch.rand(2, 1, 3, SIDE, SIDE)
    again = load_scorer(save_scorer(scorer, tmp_path / "again.safetensors"), base=base)
    with torch.no_grad(): assert torch.equal(scorer(clip), again(clip))


def test_another_base_or_none_is_refused(base, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(bases, "_remembered", {})
    torch.manual_seed(1)
    save_file(timm.create_model(ARCH, num_classes=0, img_size=SIDE).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="tuned on a base with sha256 .*--base FILE"): load_scorer(tuned, base=tmp_path / "other.safetensors")
    real = timm.create_model
    def offline(*args, pretrained=False, **kwargs):
        if pretrained: raise OSError("no network")
        return real(*args, **kwargs)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match="its base is not here.*--base FILE"): load_scorer(tuned)
    monkeypatch.setenv("DEEPFAKE_NB_BASE", str(base))
    load_scorer(tuned)


def test_a_training_that_was_stopped_goes_on(base, data, tuned, tmp_path, monkeypatch):  # noqa: F811
    "And ends with the weights of the one that nobody stopped."
    whole, out = Checkpoint.after_epoch, tmp_path / "tuned.safetensors"
    def stop(self):
        whole(self)
        raise KeyboardInterrupt
    monkeypatch.setattr(Checkpoint, "after_epoch", stop)
    with pytest.raises(KeyboardInterrupt): run(data, out, recipe(base))
    assert (tmp_path / "tuned/state.pth").exists() and not out.exists()
    monkeypatch.setattr(Checkpoint, "after_epoch", whole)
    run(data, out, recipe(base))
    once, twice = load_scorer(tuned, base=base).state_dict(), load_scorer(out, base=base).state_dict()
    assert all(torch.equal(v, twice[k]) for k, v in once.items())
    with pytest.raises(DeepfakeError, match="tune was 'norm' and is 'head'"): run(data, out, recipe(base, tune="head"))


def test_head_alone(base, data, tmp_path):  # noqa: F811
    out = run(data, tmp_path / "head.safetensors", recipe(base, tune="head", uniformity=0., epochs=1))
    assert weights_info(out)["parameters"] == 193
    with safe_open(out, "pt") as file: assert set(file.keys()) == {"head.out.weight", "head.out.bias"}


def test_weights_of_different_bases_have_no_mean(base, tuned, tmp_path):
    scorer = load_scorer(tuned, base=base)
    scorer.config.base = dict(scorer.config.base, sha256="0" * 64)
    other = save_scorer(scorer, tmp_path / "other.safetensors")
    with pytest.raises(DeepfakeError): average_weights([tuned, other], tmp_path / "mean.safetensors")


def test_commands_train_and_judge(base, data, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(bases, "_remembered", {})
    out = tmp_path / "by_command.safetensors"
    common = ["--arch", ARCH, "--temporal", "mean", "--clip-length", "1", "--image-size", str(SIDE), "--batch-size", "4", "--epochs", "1", "--workers", "0"]
    code, _, error = run_command("deepfake_train", data, "--tune", "norm", "--pretrained", base, "--out", out, *common)
    assert code == 0, error
    code, printed, error = run_command("deepfake_predict", next((data / "val/real").iterdir()), "--weights", out, "--base", base, "--device", "cpu")
    assert code == 0 and json.loads(printed)["weights"]["name"] == "by_command", error
    assert run_command("deepfake_train", data, "--tune", "some", "--out", tmp_path / "a.safetensors", *common)[0] == 2
    code, _, error = run_command("deepfake_train", data, "--tune", "norm", "--pretrained", "none", "--out", tmp_path / "b.safetensors", *common)
    assert code == 1 and "knows nothing yet" in error


@pytest.mark.parametrize("wrong", [dict(tune="all"), dict(sha256="ab"), dict(tune="norm", more="x"), dict(file="x" * 300), 3])
def test_a_header_with_a_strange_base_is_refused(wrong):
    from deepfake_nb.model.weightsfile import ScorerConfig, ScorerError
    right = dict(tune="norm", tag="", file="", sha256="a" * 64)
    assert ScorerConfig(base=right).base == right
    with pytest.raises(ScorerError, match="base is"): ScorerConfig(base=right | wrong if isinstance(wrong, dict) else wrong)
