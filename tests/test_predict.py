"The detector as a whole: what the notebooks do not show."
import itertools, json, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from deepfake_nb.core import INCONCLUSIVE, FaceVerdict, WeightsError, prediction_from_dict
from deepfake_nb.see.media import write_video
from deepfake_nb.model.scorer import create_scorer, save_scorer
from deepfake_nb.judge.people import KEY_FRAMES
from deepfake_nb.judge.predict import Detector, judge

portrait = get_sample_data("grace_hopper.jpg", asfileobj=False)
shared = Path(__file__).parents[2]/"shared"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def weights(folder):
    torch.manual_seed(0)
    return save_scorer(create_scorer("test_efficientnet", "mean", clip_length=4, image_size=64), folder/"small.safetensors")


@pytest.fixture(scope="module")
def detector(weights):
    return Detector(weights, device="cpu", face_detector="haar", frames=8, second_look=0)


@pytest.fixture(scope="module")
def film(folder):
    image = np.array(Image.open(portrait).convert("RGB").resize((256, 300)))
    return write_video(folder/"film.mp4", [np.roll(image, i, 1) for i in range(20)], fps=10)


def test_predicting_imports_neither_fastai_nor_pandas(weights):
    code = ("import sys; from deepfake_nb.judge.predict import Detector; "
            f"print(Detector({str(weights)!r}, face_detector='haar', device='cpu').predict({str(portrait)!r}).decision); "
            "print([o for o in ('fastai', 'pandas', 'sklearn', 'IPython') if o in sys.modules])")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")  # from another folder
    assert answer.stdout.split()[1:] == ["[]"], answer.stderr


def test_verdict_follows_the_rule_for_every_small_crowd():
    "All crowds of up to three people, judged by the rule as it is written in words."
    threshold = .5
    kinds = dict(real=(.1, []), fake=(.9, []), doubtful=(.8, ["UNSTABLE"]), unseen=(None, ["FACE_TOO_SMALL"]))
    for n in (1, 2, 3):
        for crowd in itertools.product(kinds, repeat=n):
            faces = [FaceVerdict(i, INCONCLUSIVE, kinds[o][0], (0, 0, 1, 1), reasons=list(kinds[o][1])) for i, o in enumerate(crowd)]
            decision, probability, reasons = judge(faces, threshold)
            expected = "FAKE" if "fake" in crowd else "REAL" if set(crowd) == {"real"} else INCONCLUSIVE
            assert decision == expected, crowd
            assert bool(reasons) == (decision == INCONCLUSIVE), crowd
            if decision == "FAKE": assert probability == .9
            if decision == "REAL": assert probability == .1
            if decision == INCONCLUSIVE: assert probability == (.8 if "doubtful" in crowd else .1 if crowd[0] == "real" else None), crowd
            if decision == INCONCLUSIVE: assert ("PEOPLE_NOT_JUDGED" in reasons) == ("unseen" in crowd[1:]), crowd


def test_preprocessing_comes_from_the_weights_file(folder):
    for size, margin in ((64, 1.25), (96, 2.)):
        path = save_scorer(create_scorer("test_efficientnet", "mean", image_size=size, margin=margin), folder/f"{size}.safetensors")
        prediction = Detector(path, device="cpu", face_detector="haar").predict(portrait)
        crops = prediction.evidence[0].crops
        assert crops.shape == (1, size, size, 3)
        assert (prediction.settings["image_size"], prediction.settings["margin"]) == (size, margin)
    with pytest.raises(TypeError): Detector(path, image_size=64)


def test_same_file_same_record(detector, film):
    a, b = detector.predict(film), detector.predict(film)
    assert json.loads(a.to_json()) | dict(created="") == json.loads(b.to_json()) | dict(created="")
    assert prediction_from_dict(json.loads(a.to_json())) == a


def test_a_video_keeps_little(detector, film):
    prediction = detector.predict(film)
    clip, = prediction.evidence
    assert len(clip.crops) == 8 and len(clip.key_frames) == KEY_FRAMES
    face, = prediction.faces
    worst = sorted(range(8), key=lambda i: -face.timeline[i].probability)[:KEY_FRAMES]
    assert list(clip.key_frames) == worst
    assert face.box == face.timeline[worst[0]].box == face.worst_frame.box


def test_batch_size_and_flip(weights, film):
    by = {(n, flip): Detector(weights, device="cpu", face_detector="haar", frames=8, batch_size=n, flip=flip).predict(film).probability
          for n in (1, 32) for flip in (False, True)}
    assert abs(by[1, True] - by[32, True]) < 1e-4 and abs(by[1, False] - by[32, False]) < 1e-4
    assert by[1, True] != by[1, False]


def test_interruption_is_not_swallowed(detector, monkeypatch):
    def stop(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr("deepfake_nb.judge.predict.look_at", stop)
    with pytest.raises(KeyboardInterrupt): detector.predict_many([portrait], progress=False)


def test_threshold_by_hand_has_no_false_positive_rate(folder):
    scorer = create_scorer("test_efficientnet", "mean", image_size=64)
    scorer.config.threshold, scorer.config.false_positive_rate = .7, dict(rate=.01, n_real=100, dataset="faces", face_detector="haar")
    path = save_scorer(scorer, folder/"calibrated.safetensors")
    make = lambda threshold: Detector(path, device="cpu", face_detector="haar", threshold=threshold).predict(portrait)
    assert make(None).false_positive_rate["rate"] == .01 and make(None).threshold == .7
    by_hand = make(.6)
    assert by_hand.false_positive_rate is None and any("No false-positive rate" in o for o in by_hand.notes)


def test_weights_with_a_calibration_that_makes_no_sense(folder):
    scorer = create_scorer("test_efficientnet", "mean", image_size=64)
    scorer.config.abstention = dict(min_mood=3)
    path = save_scorer(scorer, folder/"mood.safetensors")
    with pytest.raises(WeightsError, match="min_mood"): Detector(path, device="cpu", face_detector="haar")


@pytest.mark.skipif(not (shared/"data/eval/ffpp_video").exists(), reason="the videos of ../shared are not here")
def test_a_real_video(detector):
    prediction = detector.predict(sorted((shared/"data/eval/ffpp_video/real").glob("*.mp4"))[0])
    assert len(prediction.faces[0].timeline) >= 6 and prediction.probability is not None
