"Nobody waits for the device while it learns: no number is fetched from it, and nothing is sent to it that somebody waits for."
from types import SimpleNamespace
import pytest

pytest.importorskip("fastai", reason="the train extra is not installed")
torch = pytest.importorskip("torch")
import numpy as np, pandas as pd
from torch.utils._python_dispatch import TorchDispatchMode
from deepfake_nb.core import FAKE, REAL
from deepfake_nb.forge import augment
from deepfake_nb.forge.redraw import FaceAutoencoder, LatentAutoencoder, LatentRedraw, Redraw
from deepfake_nb.forge.selfblend import SelfBlend
from deepfake_nb.learn import batches
from deepfake_nb.learn.canvases import Canvases
from deepfake_nb.learn.crops import CropJitter, Faces
from deepfake_nb.learn.loaders import made_ahead

DEVICE = torch.device("meta")  # has shapes and no values: whatever would have to wait for a value fails


class Waiting(AssertionError): pass


class NoWaiting(TorchDispatchMode):
    "Fails at a copy to the device that somebody waits for, and at checks that ask the device."
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, str(function)
        tensors = [o for o in args if isinstance(o, torch.Tensor)]
        to_device = name.startswith("aten._to_copy") and kwargs.get("device") == DEVICE and tensors[0].device.type == "cpu"
        into_device = name.startswith("aten.copy_") and len(tensors) > 1 and (tensors[0].device, tensors[1].device.type) == (DEVICE, "cpu")
        if to_device and not kwargs.get("non_blocking") or into_device and not (list(args[2:]) or [kwargs.get("non_blocking")])[0]: raise Waiting(name)
        if "check_errors" in name and tensors[0].device == DEVICE: raise Waiting(name)
        return function(*args, **kwargs)


class BlindFilming:
    "As if clips had been filmed: they come back from the processor."
    def __init__(self, clips, rates, scales, camera): self.shape, self.device = clips.shape, clips.device
    def hand_out(self): pass
    def result(self): return augment.from_bytes(augment.onto(torch.zeros(self.shape, dtype=torch.uint8).movedim(2, -1), self.device))


@pytest.fixture
def blind(monkeypatch):
    monkeypatch.setattr(augment, "_generator_on", lambda device, seed: None)
    monkeypatch.setattr(batches, "Filming", BlindFilming)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from PIL import Image
    folder = tmp_path_factory.mktemp("faces")
    for i in range(3): Image.fromarray(np.random.default_rng(i).integers(0, 255, (60, 60, 3), np.uint8)).save(folder/f"{i}.png")
    return folder


def teachers(folder, device=DEVICE):
    box = dict(face_x=10, face_y=8, face_w=30, face_h=36)
    own = pd.DataFrame([dict(path=f"{i % 3}.png", label=REAL, dataset="own", **box) for i in range(6)])
    told = pd.DataFrame([dict(path=f"{i}.png", label=o, dataset="told", pair="a", **box) for o in (REAL, FAKE) for i in range(3)])
    told["mask"] = ["", "", "", "0.png", "1.png", ""] # what was changed in two of three forgeries
    parts = [Faces(o, 40, jitter=CropJitter(), root=folder, masks=True) for o in (own, told)]
    both = batches.Teachers(*parts)
    both.keep([Canvases(o, device=device) for o in parts])
    return both


def forger(device=DEVICE):
    redraw = Redraw([FaceAutoencoder(32, 4, 4, "shuffle", 2).to(device), FaceAutoencoder(32, 4, 4, depth=2).to(device)])
    return SelfBlend(redraw=redraw, redrawn=.6, latent=LatentRedraw(LatentAutoencoder(4, 8).to(device)), inside=.3, whole=.3, severity=1., video=.5)


def maker(device=DEVICE, frames=1):
    return batches.TeacherBatch(batches.ForgedBatch(32, forger(device), frames, focus=.8, light=.8, tone=.8), batches.LabelledBatch(32, 1., paired=True))


def draws(count, batch, source):
    "Batches of eight faces to forge from and two pairs."
    for _ in range(count): yield source.items([0, 1, 2, 3, 4, 5, 0, 1, 6, 9, 7, 10])


@pytest.mark.parametrize("wait", ["item", "nonzero", "mask", "cpu", "inverse", "copy", "constant"])
def test_waiting_would_be_seen(wait):
    x, matrix = torch.zeros(4, device=DEVICE), torch.eye(3, device=DEVICE).expand(2, 3, 3)
    ways = dict(item=lambda: x.sum().item(), nonzero=lambda: x.nonzero(), mask=lambda: x[x > 0], cpu=lambda: x.cpu(), inverse=lambda: torch.linalg.inv(matrix),
                copy=lambda: torch.ones(4).to(DEVICE), constant=lambda: x.copy_(torch.ones(4)))
    with NoWaiting(), pytest.raises((RuntimeError, NotImplementedError, Waiting)): ways[wait]()
    with NoWaiting(): torch.ones(4).to(DEVICE, non_blocking=True)  # and this is how it should be


@pytest.mark.parametrize("frames", [1, 2])
def test_batches_are_made_without_waiting(folder, blind, frames):
    "All that can happen to a face is drawn in a few batches; constants are made in the first ones."
    torch.manual_seed(0)
    source, batch = teachers(folder), maker(frames=frames)
    if frames > 1: batch.labelled = None
    pick = (lambda o: o) if frames == 1 else (lambda o: [o[0], None])
    for made in made_ahead((pick(o) for o in draws(5, batch, source)), batch, DEVICE): pass
    with NoWaiting():
        for x, label, origin, mask in made_ahead((pick(o) for o in draws(5, batch, source)), batch, DEVICE):
            assert {o.device for o in (x, label, origin, mask)} == {DEVICE}
            count = 20 if frames == 1 else 16
            assert (x.shape, label.shape, mask.shape) == ((count, frames, 3, 32, 32), (count,), (count*frames, 1, 2, 2))


def test_the_network_learns_without_waiting(folder, blind):
    "Losses, running averages, the optimiser and fastai's own callbacks, step by step."
    from deepfake_nb.learn.learner import SmoothLoss, TrainingScorer, WeightAveraging, FiniteLoss, ForgeryLoss, Learner, adamw, training_splitter
    from deepfake_nb.model.scorer import create_scorer
    from fastai.basics import DataLoader, DataLoaders
    torch.manual_seed(0)
    source, batch = teachers(folder), maker()
    ready = list(made_ahead(draws(3, batch, source), batch, DEVICE))
    model = TrainingScorer(create_scorer("test_efficientnet", "lstm", image_size=32, clip_length=1).to(DEVICE), 16, halves=True).to(DEVICE)
    learn = Learner(DataLoaders(DataLoader(ready, bs=None), DataLoader(ready, bs=None), device=DEVICE), model, ForgeryLoss(), adamw, splitter=training_splitter, cbs=[FiniteLoss(), WeightAveraging(.9)])
    learn.recorder.smooth_loss = SmoothLoss()
    learn.remove_cb(learn.progress)
    learn.create_opt()
    learn.n_epoch, learn.epoch, learn.dl, learn.n_iter = 1, 0, learn.dls.train, 3
    for event in ("before_fit", "before_epoch", "before_train"): learn(event)
    learn.model.train()
    learn.training = True
    with NoWaiting():
        for i, o in enumerate(ready):
            learn.dls.train.n_inp = learn.dls.n_inp = 1
            learn.one_batch(i, tuple(o))
    assert learn.recorder.smooth_loss.count == 3 and len(learn.recorder.losses) == 3
    assert next(iter(learn.opt.state.values()))["step"] == 3
