"A first-time user's day: what deepfake-train is given decides how it looks, the split is handed on, a report names the very code, and what got worse is seen."
import dataclasses, json, re
from dataclasses import replace
from pathlib import Path
import pandas as pd
import pytest

pytest.importorskip("fastai", reason="the train extra is not installed")
import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image
from deepfake_nb.core import DeepfakeError
from deepfake_nb.learn.settings import TrainingSettings
from deepfake_nb.model.weightsfile import weights_info
from deepfake_nb.shell import run_command

SMALL = ("--arch", "test_efficientnet", "--image-size", "64", "--batch-size", "4", "--workers", "0")


@pytest.fixture(scope="module", autouse=True)
def haar():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFAKE_NB_FACE_DETECTOR", "haar")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "Pictures in data/{real,fake}, without a split."
    root, rng = tmp_path_factory.mktemp("day") / "data", np.random.default_rng(0)
    portrait = Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB").crop((60, 0, 460, 400)).resize((200, 200))
    for label in ("real", "fake"):
        (root / label).mkdir(parents=True)
        for i in range(10):
            picture = np.asarray(portrait.resize((90 if label == "fake" else 200,) * 2).resize((200, 200)), float) * rng.uniform(.85, 1.15)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / label / f"person{i}{label}.png")
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    "A training that was stopped in its second epoch of three and goes on: what both calls said."
    from deepfake_nb.learn.learner import EpochLog
    out, after, told = tmp_path_factory.mktemp("own") / "own.safetensors", EpochLog.after_epoch, []
    def stop(self):
        after(self)
        if self.epoch == 2: raise KeyboardInterrupt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpochLog, "after_epoch", stop)
        told.append(run_command("deepfake_train", data, "--out", out, "--epochs", "3", *SMALL))
    told.append(run_command("deepfake_train", data, "--out", out, "--epochs", "3", *SMALL))
    assert told[0][0] == 130 and told[1][0] == 0, told
    return out, told


def test_pictures_are_looked_at_as_pictures(trained):
    out, told = trained
    config = weights_info(out)["config"]
    assert (config["temporal"], config["clip_length"]) == ("mean", 1)
    assert "All data are single pictures" in told[0][2] and "--clip-length 1" in told[0][2]


def test_what_was_asked_for_is_done(data):
    from deepfake_nb.learn.training import fit_to_data
    asked = TrainingSettings(temporal="lstm")
    assert fit_to_data(asked, [str(data)])[0] == replace(asked, clip_length=1)
    assert fit_to_data(replace(asked, clip_length=4), ["nowhere"])[1] == []


def test_films_are_looked_at_as_clips(tmp_path):
    from deepfake_nb.learn.training import fit_to_data
    for name in ("real/a.mp4", "fake/b.mp4", "real/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not looked at")
    found, said = fit_to_data(TrainingSettings(), [str(tmp_path)])
    assert (found.temporal, found.clip_length, said) == ("lstm", 8, [])


def test_weights_to_go_on_with_keep_what_they_are(trained):
    from deepfake_nb.learn.training import fit_to_data
    found, said = fit_to_data(TrainingSettings(weights=str(trained[0])), ["nowhere"])
    assert (found.temporal, found.clip_length, said) == ("mean", 1, [])


def test_a_training_that_goes_on_shows_the_epoch_it_is_in(trained):
    out, told = trained
    rows = [o.split() for o in told[1][1].splitlines() if re.match(r"\d+ ", o)]
    assert len(rows) == 1 and rows[0][0] == "2" and len(rows[0]) > 3, told[1][1]
    assert "goes on with epoch 3 of 3; 2 are done" in told[1][2]
    assert set(re.findall(r"Epoch \d+/\d+", told[1][1])) <= {"Epoch 3/3"}
    assert list(pd.read_csv(out.with_suffix("") / "log.csv").epoch) == [0, 1, 2]


def test_the_bar_tells_the_epoch(monkeypatch):
    from deepfake_nb.learn.pace import SparingProgress
    from fastprogress.fastprogress import master_bar
    progress = SparingProgress()
    progress.mbar = master_bar(list(range(20)))
    class Learn: epoch, n_epoch = 19, 20
    progress.learn = Learn()
    progress.before_epoch()
    assert progress.mbar.main_bar.last_v == 19


def test_a_training_that_learnt_nothing_says_so(trained):
    from deepfake_nb.learn.thresholds import chance_sentence
    assert "Nothing was learnt that the validation shows" in trained[1][1][2]  # of a handful of clips it can show nothing
    labels = [0] * 100 + [1] * 100
    assert chance_sentence(.55, labels).startswith("Nothing was learnt") and chance_sentence(.62, labels) == ""
    assert "AUC is 0.420" in chance_sentence(.42, [0, 1] * 20)


def test_the_face_detector_stands_beside_the_rate(trained, data):
    from deepfake_nb.judge.predict import Detector
    rate = weights_info(trained[0])["config"]["false_positive_rate"]
    assert rate["face_detector"] == "haar"
    class Other:
        name, sha256, note = "another", "", ""
        def detect(self, frames): return [[] for _ in frames]
    detector = Detector(trained[0], "cpu", face_detector=Other())
    assert detector.false_positive_rate is None and detector.unknown_rate == "No false-positive rate is known with the face detector another: it was measured with haar."
    assert Detector(trained[0], "cpu", face_detector="haar").false_positive_rate == rate


def test_a_rate_without_a_face_detector_is_not_that_of_yunet(trained):
    from deepfake_nb.judge.predict import Detector
    from deepfake_nb.model.scorer import load_scorer
    scorer = load_scorer(trained[0])
    scorer.config = dataclasses.replace(scorer.config, false_positive_rate=dict(rate=.05, achieved=.05))
    detector = Detector(scorer, "cpu", face_detector="haar")
    assert detector.false_positive_rate is None and "is not recorded" in detector.unknown_rate and "yunet" not in detector.unknown_rate


def test_crops_keep_who_found_the_faces(data, tmp_path):
    from deepfake_nb.data.extract import face_detector_of
    from deepfake_nb.data.splits import read_manifest
    from deepfake_nb.learn.recipe import gather_faces
    code, out, error = run_command("deepfake_extract", data, tmp_path / "faces", "--size", "64", "--workers", "0")
    assert code == 0 and face_detector_of(read_manifest(tmp_path / "faces/manifest.csv")) == "haar"
    (tmp_path / "work").mkdir()
    assert gather_faces(None, str(tmp_path / "faces/manifest.csv"), None, tmp_path / "work").attrs["face_detector"] == "haar"
    (tmp_path / "faces/extraction.json").unlink()
    assert gather_faces(None, str(tmp_path / "faces/manifest.csv"), None, tmp_path / "work").attrs["face_detector"] == ""


def test_the_split_is_handed_on_to_an_evaluation(trained, data, tmp_path):
    out, told = trained
    split = out.with_suffix("") / "split.csv"
    assert str(split) in told[1][2]
    table = pd.read_csv(split)
    validated = set(table.path[table.split == "val"].map(lambda o: Path(o).name))
    assert 0 < len(validated) < len(table) == 20
    for source, weights in ((data, ("--weights", out)), (split, ("--weights", out)), (split, ())):
        code, printed, error = run_command("deepfake_evaluate", source, "--split", "val", *weights, "--out", tmp_path / "e")
        assert code == 0, error
        assert set(pd.read_csv(tmp_path / "e/predictions.csv").path.map(lambda o: Path(o).name)) == validated
        if source == data: assert "The split is the one that the training dealt" in error and str(split) in error
    code, printed, error = run_command("deepfake_evaluate", data, "--split", "val", "--out", tmp_path / "e2")
    assert code == 2 and "no such items" in error and "split.csv" in error and "--weights" in error


def test_the_split_is_handed_on_to_fine_tuning(trained, data):
    from deepfake_nb.learn.mining import read_part, refuse_overlap
    parts = dict(replay=read_part(data, "train", trained[0]), validation=read_part(data, "val", trained[0]))
    refuse_overlap(**parts)
    assert len(parts["replay"]) + len(parts["validation"]) == 20 and len(parts["validation"]) > 0
    assert "The split is the one that the training dealt" in parts["replay"].attrs["told"]
    assert len(read_part(data, "val")) == 20  # of other weights nothing is known


def test_an_empty_list_of_failures_says_why_it_is_empty(tmp_path):
    from deepfake_nb.learn.mining import read_failures
    path = tmp_path / "failures.json"
    path.write_text("[]")
    with pytest.raises(DeepfakeError, match="an empty list: .*nothing that was decided wrongly.*Accepted: material on which the detector fails"): read_failures(path)
    (tmp_path / "evaluation.json").write_text(json.dumps(dict(overall=dict(counts=dict(items=10, scored=8, decided=5)))))
    with pytest.raises(DeepfakeError, match="of 10 items 5 were decided, all of them rightly; 3 were left undecided, and in 2 nobody could be judged"): read_failures(path)
    path.write_text("{}")
    with pytest.raises(DeepfakeError, match="no list of failures"): read_failures(path)


@pytest.mark.parametrize("after, worse", [(0., True), (.08, True), (.1, True), (.16, False), (.3, False)])
def test_a_recall_that_collapses_is_worse(after, worse):
    from deepfake_nb.learn.finetune import what_got_worse
    row = dict(set="untouched", items=20, groups=20, high=0.)
    table = pd.DataFrame([row | dict(figure="auc", before=.7, after=.72, before_low=.5, before_high=.9), row | dict(figure="recall_of_fakes", before=.2, after=after, before_low=.0, before_high=.45)])
    found = what_got_worse(table)
    assert bool(found) == worse and all("recall" in o and f"to {after:.3f}" in o for o in found)


def test_a_report_names_the_very_code_and_no_name_on_an_index():
    from deepfake_nb import __version__
    from deepfake_nb.core import Prediction
    from deepfake_nb.origin import code_hash
    from deepfake_nb.tell.report import make_report
    report = make_report(dataclasses.replace(Prediction("", "REAL", .1), version=__version__))
    page = str(report.repeat())
    assert "pip install deepfake_nb" not in page and "==" not in page and code_hash() in page
    assert report.to_dict()["origin"]["code_sha256"] == code_hash()
    old = str(make_report(dataclasses.replace(Prediction("", "REAL", .1), version="0.0.1")).repeat())
    assert "pip install deepfake_nb" not in old and code_hash() not in old and "not recorded" in old
    code, out, error = run_command("deepfake_doctor", "--quick", "--json")
    assert next(o for o in json.loads(out)["findings"] if o["about"] == "library")["facts"]["code_sha256"] == code_hash()
