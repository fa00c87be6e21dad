"deepfake-train on the plain layout: killed in the middle, started again, and its weights judge a file."
import json, os, signal, subprocess, sys, time
from pathlib import Path
import pytest

pytest.importorskip("fastai", reason="the train extra is not installed")

ARGUMENTS = ["--arch", "test_efficientnet", "--temporal", "mean", "--clip-length", "1", "--image-size", "64", "--batch-size", "4", "--epochs", "3", "--workers", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "Sixteen variants of one portrait in data/{train,val}/{real,fake}; the 'fakes' are blurred."
    import numpy as np
    from matplotlib.cbook import get_sample_data
    from PIL import Image
    root, rng = tmp_path_factory.mktemp("plain")/"data", np.random.default_rng(0)
    portrait = Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB").crop((60, 0, 460, 400)).resize((200, 200))
    for split, count in (("train", 8), ("val", 4)):
        for label in ("real", "fake"):
            folder = root/split/label
            folder.mkdir(parents=True)
            for i in range(count):
                side = 90 if label == "fake" else 200
                picture = np.asarray(portrait.resize((side, side)).resize((200, 200)), float)*rng.uniform(.85, 1.15)
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder/f"{split}_{label}_{i}.png")
    return root


def start(data, out):
    code = f"import sys, torch; torch.set_num_threads(1); sys.argv[0] = 'deepfake-train'; from deepfake_nb.cli import deepfake_train; deepfake_train(sys.argv[1], **{dict(zip((a[2:].replace('-', '_') for a in ARGUMENTS[::2]), (int(o) if o.isdigit() else o for o in ARGUMENTS[1::2])))!r}, out=sys.argv[2])"
    return subprocess.Popen([sys.executable, "-c", code, str(data), str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            env=os.environ | dict(DEEPFAKE_NB_FACE_DETECTOR="haar", OMP_NUM_THREADS="1"))


def test_a_killed_training_goes_on_and_its_weights_judge(data, tmp_path):
    import pandas as pd
    out = tmp_path/"weights.safetensors"
    first, state = start(data, out), tmp_path/"weights"/"state.pth"
    deadline = time.monotonic() + 300
    while not state.exists() and first.poll() is None and time.monotonic() < deadline: time.sleep(.02)
    first.send_signal(signal.SIGKILL)
    error = first.communicate()[1]
    assert state.exists(), error
    begun = pd.read_csv(tmp_path/"weights"/"log.csv")
    assert len(begun) < 3, "the training was over before it was killed"

    second = start(data, out)
    error = second.communicate(timeout=300)[1]
    assert second.returncode == 0, error
    log = pd.read_csv(tmp_path/"weights"/"log.csv")
    assert log.epoch.tolist() == [0, 1, 2]
    assert log[: len(begun)].equals(begun)  # what was done was not done again

    import torch
    from deepfake_nb.model.scorer import load_scorer
    from deepfake_nb.judge.predict import Detector
    whole = start(data, tmp_path/"whole.safetensors")  # and one that nobody kills ends with the same weights
    error = whole.communicate(timeout=300)[1]
    assert whole.returncode == 0, error
    once, twice = (load_scorer(o).state_dict() for o in (tmp_path/"whole.safetensors", out))
    assert all(torch.equal(v, twice[k]) for k, v in once.items())
    told = load_scorer(out).config
    assert told.training["data"] and told.false_positive_rate["n_real"] == 4
    picture = next((data/"val"/"real").iterdir())
    prediction = Detector(out, face_detector="haar").predict(picture)
    assert prediction.probability is not None and prediction.weights["name"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_pictures_whose_names_are_not_utf_8_are_read(tmp_path, data):
    "OpenCV ends the process on such a name."
    import pandas as pd
    from deepfake_nb.learn.batches import Faces, check_pictures
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path/name).write_bytes(next((data/"val"/"real").iterdir()).read_bytes())
    table = pd.DataFrame(dict(path=pd.Series([name], dtype=object), label=0, split="train"))
    assert len(check_pictures(table, tmp_path)) == 64
    assert Faces(table, 64, root=tmp_path)[0][0].shape == (1, 3, 64, 64)


def test_a_damaged_crop_is_told_before_anything_is_trained(tmp_path, data):
    "And nothing is left that would stop the next try."
    import shutil
    from deepfake_nb.core import ManifestError
    from deepfake_nb.learn.recipe import Recipe, train
    import pandas as pd
    crops = tmp_path/"crops"
    shutil.copytree(data, crops)
    table = pd.DataFrame([dict(path=str(o), label=int(o.parent.name == "fake"), split=o.parents[1].name, group=o.stem, dataset="plain", method=o.parent.name) for o in sorted(crops.rglob("*.png"))])
    (crops/"train"/"real"/"train_real_3.png").write_bytes((crops/"train"/"real"/"train_real_3.png").read_bytes()[:9000])
    recipe = Recipe("test_resnet", "mean", 1, 32, epochs=1, batch_size=4)
    with pytest.raises(ManifestError, match="train_real_3.png"): train(table, tmp_path/"w.safetensors", recipe, workers=0, progress=False)
    assert not (tmp_path/"w").exists() and not (tmp_path/"w.safetensors").exists()


def test_a_run_that_failed_in_its_first_epoch_does_not_stop_the_next(tmp_path, data, monkeypatch):
    import pandas as pd
    from deepfake_nb.learn import recipe as module
    from deepfake_nb.learn.recipe import Recipe, train
    table = pd.DataFrame([dict(path=str(o), label=int(o.parent.name == "fake"), split=o.parents[1].name, group=o.stem, dataset="plain", method=o.parent.name) for o in sorted(data.rglob("*.png"))])
    def broken(*args): raise MemoryError
    with monkeypatch.context() as m:
        m.setattr(module, "fit", broken)
        with pytest.raises(MemoryError): train(table, tmp_path/"w.safetensors", Recipe("test_resnet", "mean", 1, 32, epochs=1, batch_size=16), workers=0, progress=False)
    train(table, tmp_path/"w.safetensors", Recipe("test_resnet", "mean", 1, 32, epochs=1, batch_size=4), workers=0, progress=False)
    assert (tmp_path/"w.safetensors").exists()


def test_curves_need_no_window(tmp_path):
    "A back end that is not there is nothing to a training."
    (tmp_path/"log.csv").write_text("epoch,train_loss,valid_loss,auc,time\n0,.7,.6,.5,00:01\n")
    code = f"from deepfake_nb.learn.recipe import plot_log; plot_log({str(tmp_path/'log.csv')!r}).savefig({str(tmp_path/'curves.png')!r})"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | dict(MPLBACKEND="module://nosuch"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert (tmp_path/"curves.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def teachers(data, tmp_path_factory):
    "Real faces to forge from, labelled pairs, and faces to choose by: three tables of the same pictures."
    import pandas as pd
    folder = tmp_path_factory.mktemp("teachers")
    pictures = {(o.parents[1].name, o.parent.name): sorted(o.parent.iterdir()) for o in data.rglob("*_0.png")}
    box = dict(face_x=40, face_y=30, face_w=110, face_h=140)
    rows = lambda split, kind: [dict(path=str(o), label=kind, split=split, group=o.stem, **box) for o in pictures[split, kind]]
    tables = dict(real=[*rows("train", "real")[:6], *rows("val", "real")[:2]], labelled=[o | dict(pair=str(i)) for kind in ("real", "fake") for i, o in enumerate(rows("train", kind)[6:])],
                  chosen=[o for kind in ("real", "fake") for o in rows("val", kind)[2:]])
    for name, table in tables.items():
        table = pd.DataFrame(table).assign(dataset=name)
        table.to_csv(folder/f"{name}.csv", index=False)
    return folder


def run_teachers(teachers, out, killed=False):
    "A training with both teachers, frozen stages and a running average; killed after its second epoch if wished."
    from deepfake_nb.learn.learner import Checkpoint
    from deepfake_nb.learn.recipe import Recipe, train
    recipe = Recipe("test_efficientnet", "mean", 1, 64, epochs=4, batch_size=8, from_real_only=True, labelled_share=.5, labelled_weight=.7, freeze=2, average=.9, severity=.5)
    class Killed(Exception): pass
    original, said = Checkpoint.after_epoch, []
    def after_epoch(self):
        original(self)
        if self.epoch == 1: raise Killed("by the test")
    if killed: Checkpoint.after_epoch = after_epoch
    try: train(teachers/"real.csv", out, recipe, 0, progress=False, labelled=teachers/"labelled.csv", validate_on=teachers/"chosen.csv", say=said.append)
    except Killed: return said
    finally: Checkpoint.after_epoch = original
    return said


def test_two_teachers_end_alike_whether_killed_or_not(teachers, tmp_path, capfd):
    "The same weights to the last digit, with the average, the drawn pairs and all forgeries; and the file says what it learnt from and was chosen by."
    import pandas as pd, torch
    from deepfake_nb.model.scorer import load_scorer
    once, twice = tmp_path/"once.safetensors", tmp_path/"twice.safetensors"
    said = run_teachers(teachers, once)
    assert "Epoch" not in capfd.readouterr().out # no bar where none is wanted
    run_teachers(teachers, twice, killed=True)
    assert not twice.exists() and (tmp_path/"twice"/"state.pth").exists()
    run_teachers(teachers, twice)
    first, second = load_scorer(once, mask_head=True), load_scorer(twice, mask_head=True)
    assert first.mask_head[16]["weight"].shape == (1, 48, 1, 1) and all(torch.equal(v, second.mask_head[16][k]) for k, v in first.mask_head[16].items())
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
    ends = [torch.load(tmp_path/o/"state.pth", weights_only=True) for o in ("once", "twice")]
    for a, b in zip(*([o["model"], o["weight_averaging"]["average"]] for o in ends)): assert all(torch.equal(v, b[k]) for k, v in a.items())
    logs = [pd.read_csv(tmp_path/o/"log.csv").drop(columns=["time", "train_loss"]) for o in ("once", "twice")]  # the training loss is a running mean of one run
    assert logs[0].equals(logs[1]) and logs[0].epoch.tolist() == [0, 1, 2, 3]
    assert {"auc", "blended", "redrawn_inside", "redrawn_whole", "labelled:labelled", "chosen_by:chosen"} - set(logs[0]) == {"labelled:labelled"}  # no labelled face is kept for validation where there is a set to choose by
    by_source = [pd.read_csv(tmp_path/o/"sources.csv") for o in ("once", "twice")]
    assert by_source[0].equals(by_source[1]) and set(zip(by_source[0].role, by_source[0].source)) == {("made", "real"), ("chosen by", "chosen")}
    assert by_source[0].groupby("epoch").size().tolist() == [len(by_source[0])//4]*4
    chosen = by_source[0][by_source[0].role == "chosen by"]
    assert (chosen.real + chosen.forged == 4).all() and (chosen.auc.to_numpy() == logs[0]["chosen_by:chosen"].round(4).to_numpy()).all() and (chosen.loss > 0).all()
    told = first.config.training
    assert told["data"] == {"labelled train": 4, "real train": 6, "real val": 2} and told["chosen_by"] == {"chosen val": 4}
    assert {k: told["recipe"][k] for k in ("freeze", "average", "labelled_share", "labelled_weight")} == dict(freeze=2, average=.9, labelled_share=.5, labelled_weight=.7)
    assert first.config.false_positive_rate["n_real"] == 4  # two people, each forged twice: not those that it was chosen by
    assert said[:3] == ["4 faces to choose by, never trained on: 4 chosen.", "6 real faces to forge from: 6 real.", "4 labelled faces: 4 labelled."]


def refused(teachers, tmp_path, error, match, labelled=None, **settings):
    "A training ends in a sentence, and leaves nothing that could be taken for weights or be continued."
    from deepfake_nb.learn.recipe import Recipe, train
    recipe = Recipe("test_efficientnet", "mean", 1, 64, epochs=1, batch_size=8, from_real_only=True) if "recipe" not in settings else settings.pop("recipe")
    with pytest.raises(error, match=match) as caught: train(teachers/"real.csv", tmp_path/"w.safetensors", recipe, 0, progress=False, labelled=labelled, validate_on=teachers/"chosen.csv", say=[].append)
    assert "\n" not in str(caught.value) and "ccepted" in str(caught.value)
    assert not [o for o in tmp_path.rglob("*") if o.suffix in (".safetensors", ".pth", ".json", ".part")]


@pytest.mark.parametrize("share, found", [("fake", "0 real"), ("real", "0 forged")])
def test_a_labelled_table_of_one_class_is_refused(teachers, tmp_path, share, found):
    import pandas as pd
    from deepfake_nb.core import DeepfakeError
    table = pd.read_csv(teachers/"labelled.csv", dtype=dict(pair=str))
    table[table.label == share].drop(columns="pair").to_csv(tmp_path/"one.csv", index=False)
    refused(teachers, tmp_path, DeepfakeError, found, tmp_path/"one.csv")


def test_a_source_of_one_class_is_refused_beside_a_whole_one(teachers, tmp_path):
    import pandas as pd
    from deepfake_nb.core import DeepfakeError
    table = pd.read_csv(teachers/"labelled.csv", dtype=dict(pair=str))
    pd.concat([table, table[table.label == "fake"].assign(dataset="page", path=[str(teachers/f"{i}.png") for i in range(2)])]).to_csv(tmp_path/"two.csv", index=False)
    for o, i in zip(table.path[table.label == "fake"], range(2)): (teachers/f"{i}.png").write_bytes(Path(o).read_bytes()[:-12] + bytes(12*i) + Path(o).read_bytes()[-12:])
    refused(teachers, tmp_path, DeepfakeError, "the data set 'page' with 0 real and 2 forged faces", tmp_path/"two.csv")


def test_forgeries_without_their_original_stand_beside_others_of_their_source(teachers, tmp_path):
    import numpy as np, pandas as pd
    from deepfake_nb.data.splits import read_manifest
    from deepfake_nb.learn.batches import Teachers
    from deepfake_nb.learn.crops import Faces
    from deepfake_nb.learn.sources import draw_couples
    table = pd.read_csv(teachers/"labelled.csv", dtype=dict(pair=str))
    table = pd.concat([table, table.assign(dataset="page")])
    table["pair"] = [f"{o.pair} {o.label}" for o in table.itertuples()]  # each stands alone
    table = table.assign(path=[f"{i}-{Path(o).name}" for i, o in enumerate(table.path)], label=[int(o == "fake") for o in table.label])
    from_faces = table.rename(columns=dict(path="file", dataset="source")).drop(columns="group")
    for text in from_faces.file: (tmp_path/text).touch()
    for more in ({}, dict(pair="")):
        from_faces.assign(**more).to_csv(tmp_path/"faces.csv", index=False)
        found = read_manifest(tmp_path/"faces.csv")
        assert ("8 of 8 pairs lack" in " ".join(found.attrs["notes"])) == (not more)
        teacher = Teachers(None, Faces(found, 64))
        assert [(o.name, o.size, o.originals) for o in teacher.labelled] == [("labelled", 4, {}), ("page", 4, {})]
        drawn = draw_couples(teacher.labelled, 200, np.random.default_rng(0))
        assert [set(teacher.labels[drawn[:, i]]) for i in (0, 1)] == [{0}, {1}]
        assert (teacher.origin[drawn[:, 0]] == teacher.origin[drawn[:, 1]]).all() and len(np.unique(drawn, axis=0)) == 8


def test_something_that_is_not_the_autoencoder_is_refused(teachers, tmp_path):
    from dataclasses import replace
    from deepfake_nb.core import WeightsError
    from deepfake_nb.learn.recipe import Recipe
    (tmp_path/"auto.bin").write_bytes(b"something else")
    recipe = Recipe("test_efficientnet", "mean", 1, 64, epochs=1, batch_size=8, from_real_only=True, autoencoder=str(tmp_path/"auto.bin"))
    refused(teachers, tmp_path, WeightsError, "auto.bin", recipe=recipe)
    refused(teachers, tmp_path, WeightsError, "no such file or folder", recipe=replace(recipe, autoencoder=str(tmp_path/"nowhere")))


def test_imagenet_weights_that_are_not_installed_are_a_sentence(teachers, tmp_path, monkeypatch):
    from deepfake_nb.learn.recipe import Recipe
    from deepfake_nb.model import scorer
    monkeypatch.setattr(scorer, "packaged_weights", lambda arch: None)
    recipe = Recipe(temporal="mean", clip_length=1, image_size=64, epochs=1, batch_size=8, from_real_only=True, pretrained=True)
    refused(teachers, tmp_path, scorer.ScorerError, r"pip install 'deepfake_nb\[pretrained\]'", recipe=recipe)


def test_a_device_without_enough_memory_says_what_would_fit(teachers, tmp_path, monkeypatch):
    "Half as many clips are tried, and again, until they fit."
    import torch
    from deepfake_nb.core import DeepfakeError
    from deepfake_nb.learn.learner import TrainingScorer
    original = TrainingScorer.forward
    def forward(self, x):
        if self.training and len(x) > 3: raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, x)
    monkeypatch.setattr(TrainingScorer, "forward", forward)
    from deepfake_nb.learn.recipe import Recipe, train
    recipe = Recipe("test_efficientnet", "mean", 1, 64, epochs=1, batch_size=8, from_real_only=True)
    with pytest.raises(DeepfakeError, match=r"batches of 8 clips of 1 frames and 64 px do not fit .* Accepted: batches of 2 clips, which fit \(--batch-size 2\)"):
        train(teachers/"real.csv", tmp_path/"w.safetensors", recipe, 0, progress=False, say=[].append)
    assert not (tmp_path/"w.safetensors").exists() and not (tmp_path/"w"/"state.pth").exists()


def test_faces_of_one_source_are_told(teachers, tmp_path):
    from deepfake_nb.learn.recipe import Recipe, train
    said = []
    train(teachers/"real.csv", tmp_path/"w.safetensors", Recipe("test_efficientnet", "mean", 1, 64, epochs=1, batch_size=8, from_real_only=True), 0, progress=False, say=said.append)
    assert any("All real faces come from one source, real" in o for o in said), said


def test_the_mask_head_goes_on_where_the_training_does(teachers, tmp_path):
    "Fine-tuning starts from the head that was learnt; weights without one start with a new one."
    import torch
    from deepfake_nb.learn.learner import TrainingScorer
    from deepfake_nb.model.scorer import create_scorer, load_scorer, save_scorer
    torch.manual_seed(0)
    first = TrainingScorer(create_scorer("test_efficientnet", "mean", image_size=64, clip_length=1))
    path = save_scorer(first.kept(), tmp_path/"first.safetensors")
    again, served = TrainingScorer(load_scorer(path, mask_head=True)), TrainingScorer(load_scorer(path))
    assert torch.equal(again.mask_head.weight, first.mask_head.weight) and not torch.equal(served.mask_head.weight, first.mask_head.weight)
    old = save_scorer(create_scorer("test_efficientnet", "mean", image_size=64, clip_length=1), tmp_path/"old.safetensors")
    assert load_scorer(old, mask_head=True).mask_head == {} and TrainingScorer(load_scorer(old, mask_head=True)).mask_head is not None


def test_published_masks_are_a_target_of_the_mask_head(teachers, tmp_path):
    "Of labelled forgeries whose data set says what was changed; without masks nothing is learnt about the place."
    import cv2, numpy as np, pandas as pd, torch
    from deepfake_nb.learn.recipe import Recipe, train
    from deepfake_nb.model.scorer import load_scorer
    table = pd.read_csv(teachers/"labelled.csv").assign(dataset="ff")
    table = pd.concat([table, table.assign(split="val", pair=table.pair.astype(str) + "v", group=table.group + "v")])
    spot = np.zeros((200, 200), np.uint8)
    spot[110:150, 60:120] = 255 # below
    cv2.imwrite(str(tmp_path/"spot.png"), spot)
    heads = {}
    for name, mask in dict(known="spot.png", unknown="").items():
        table.assign(mask=[mask if o == "fake" or o == 1 else "" for o in table.label]).to_csv(tmp_path/f"{name}.csv", index=False)
        recipe = Recipe("test_efficientnet", "mean", 1, 64, epochs=2, batch_size=4, severity=0.)
        torch.manual_seed(0)
        train(None, tmp_path/f"{name}.safetensors", recipe, 0, labelled=tmp_path/f"{name}.csv", validate_on=teachers/"chosen.csv", progress=False)
        heads[name] = load_scorer(tmp_path/f"{name}.safetensors", mask_head=True).mask_head[16]
    assert not torch.equal(heads["known"]["bias"], heads["unknown"]["bias"])
    assert heads["known"]["bias"] < heads["unknown"]["bias"] # most of a face is as it was


def test_without_anything_to_set_a_threshold_by_nothing_is_trained(teachers, tmp_path):
    "Said before the first epoch."
    from deepfake_nb.core import DeepfakeError
    from deepfake_nb.learn.recipe import Recipe, train
    with pytest.raises(DeepfakeError, match="no face with split 'val'"):
        train(None, tmp_path/"w.safetensors", Recipe("test_efficientnet", "mean", 1, 64, epochs=1, batch_size=4), 0, labelled=teachers/"labelled.csv", validate_on=teachers/"chosen.csv", progress=False)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_prepared_forgeries_are_learnt_from_with_their_masks(teachers, tmp_path):
    "A table of files that were made once: pairs, kinds and masks arrive at the training."
    import random, numpy as np, torch
    from deepfake_nb.data.splits import read_manifest
    from deepfake_nb.data.manifest import LANDMARK_COLUMNS
    from deepfake_nb.forge.prepare import prepare_forgeries
    from deepfake_nb.learn.batches import LABELLED, role_of
    from deepfake_nb.learn.recipe import Recipe, gather_faces
    faces = read_manifest(teachers/"real.csv").head(2)
    for name, place in zip(LANDMARK_COLUMNS, (70, 80, 120, 80, 95, 100, 75, 130, 115, 130)): faces[name] = place
    table = prepare_forgeries(faces.assign(split="train"), tmp_path/"made", progress=False)
    recipe = Recipe("test_efficientnet", "mean", 1, 64, batch_size=12, from_real_only=True, labelled_share=.9)
    manifest = gather_faces(teachers/"real.csv", table, teachers/"chosen.csv", tmp_path)
    assert set(manifest.kind[manifest.table == str(table)]) == {"real", "reenacted", "lipsync", "restored"}
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)  # where the crop lies: a mouth across four cells would fill no half of any
    _, label, origin, mask = recipe.loaders(manifest, 0).one_batch()
    told = role_of(origin) == LABELLED
    assert told.sum() == 4 and mask[told & (label == 0)].max() < 1e-4
    forged = mask[told & (label == 1)].flatten(1)
    assert forged.min() >= 0 and (forged.amax(1) > .5).all()  # known everywhere, and somewhere changed
