"Somebody else's network through everything that a user calls: `Detector`, the commands, a report, a scan, a calibration."
import json, shutil, sys
from pathlib import Path
import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from deepfake_nb.core import WeightsError, sha256_file
from deepfake_nb.judge.explain import explain
from deepfake_nb.judge.predict import Detector
from deepfake_nb.measure.calibrate import logit
from deepfake_nb.measure.calibrationfile import CalibrationFile, read_calibration
from deepfake_nb.model.foreign import ForeignScorer, load_foreign
from deepfake_nb.model.weightsfile import ScorerError
from deepfake_nb.shell import run_command

CODE = '''
import torch
class Brightness(torch.nn.Module):
    "Two classes; the second one means a forgery, and grows with the brightness of the red channel."
    deepfake_nb = dict(fake=1, image_size=48, mean=(.5, .5, .5), std=(.25, .25, .25), margin=1.3, name="brightness")
    def __init__(self, weights=None):
        super().__init__()
        self.conv, self.out = torch.nn.Conv2d(3, 1, 1, bias=False), torch.nn.Linear(1, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1., 0, 0]).view(1, 3, 1, 1))
            self.out.weight.copy_(torch.tensor([[0.], [8.]])); self.out.bias.zero_()
        if weights: self.load_state_dict(torch.load(weights, weights_only=True))
    def forward(self, x): return self.out(self.conv(x).mean((2, 3)))
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A folder with the code of a scorer, and portraits whose brightness says what they are."
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "theirs.py").write_text(CODE)
    portrait = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB").resize((256, 300))
    pixels = np.asarray(portrait, float)
    for label, first in (("real", .5), ("fake", .95)):
        (folder / "data" / label).mkdir(parents=True)
        for i in range(12):
            who = folder / "data" / label / f"person{i}.png"
            Image.fromarray((pixels * (first + .02 * i)).clip(0, 255).astype(np.uint8)).save(who)
    return folder


@pytest.fixture(scope="module")
def name(place): return f"{place / 'theirs.py'}:Brightness"


def by_hand(prediction):
    "What the network says of the crops that were judged: its two logits, subtracted."
    red = prediction.evidence[0].crops[..., 0].mean() / 255
    return 8 * (red - .5) / .25


def test_a_network_in_memory_judges_as_by_hand(place, name):
    network = load_foreign(name).network
    detector = Detector(scorer=network, device="cpu", face_detector="haar")
    found = detector.predict(place / "data/fake/person3.png")
    assert found.evidence[0].crops.shape == (1, 48, 48, 3)
    assert logit(found.probability) == pytest.approx(by_hand(found), abs=1e-3)
    assert any("is not calibrated" in o for o in found.notes)
    assert found.weights["sha256"] == load_foreign(name).sha256 and found.settings["scorer"]["name"] == "Brightness"
    assert found.false_positive_rate is None
    heat, = explain(detector, found).people
    assert heat.maps.shape == (1, 48, 48) and heat.maps.max() > .9


def test_which_way_round_decides(place, name):
    network = load_foreign(name).network
    said = dict(network.deepfake_nb, fake=0, name="turned")
    a, b = (Detector(ForeignScorer(network, o), "cpu", face_detector="haar").predict(place / "data/real/person0.png").probability for o in (network.deepfake_nb, said))
    assert a + b == pytest.approx(1, abs=1e-6) and abs(a - b) > .1


def test_clips_are_judged_whole_and_explained(place, name):
    "A network with convolutions in time: the maps are those of the frames that were asked for."
    torch.manual_seed(0)
    class Slow(torch.nn.Module):
        def __init__(self): super().__init__(); self.conv = torch.nn.Conv3d(3, 2, (3, 5, 5), padding=(1, 2, 2)); self.out = torch.nn.Linear(2, 1)
        def forward(self, x): return self.out(self.conv(x).relu().mean((2, 3, 4)))
    from deepfake_nb.see.media import write_video
    still = np.array(Image.open(place / "data/real/person9.png"))
    write_video(place / "film.mp4", [np.roll(still, i, 1) for i in range(12)], fps=6)
    scorer = ForeignScorer(Slow(), dict(fake="low", image_size=32, mean=(0, 0, 0), std=(1, 1, 1), takes="clips, time second", clip_length=4, name="slow"))
    detector = Detector(scorer, "cpu", frames=8, second_look=0, face_detector="haar", flip=False)
    found = detector.predict(place / "film.mp4")
    crops = torch.from_numpy(found.evidence[0].crops).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad(): hand = [-scorer.network(o.transpose(0, 1)[None]).item() for o in crops.split(4)]
    assert logit(found.faces[0].probability) == pytest.approx(np.mean(hand), abs=1e-4)
    assert [logit(o.probability) for o in found.faces[0].timeline] == pytest.approx([hand[0]] * 4 + [hand[1]] * 4, abs=1e-4)
    heat, = explain(detector, found).people
    assert heat.maps.shape == (4, 32, 32)


@pytest.mark.parametrize("scorer,words", [
    (ForeignScorer(lambda x: x.mean((1, 2, 3)), dict(fake="high", image_size=32, mean=(0, 0, 0), std=(1, 1, 1), name="function")), "function without layers"),
    (ForeignScorer(type("Detached", (torch.nn.Module,), dict(__init__=lambda self: (torch.nn.Module.__init__(self), setattr(self, "conv", torch.nn.Conv2d(3, 1, 1)))[0],
        forward=lambda self, x: self.conv(x).detach().mean((1, 2, 3))))(), dict(fake="high", image_size=32, mean=(0, 0, 0), std=(1, 1, 1), name="detached")), "no gradient reaches its layer")])
def test_what_cannot_be_explained_says_why(place, scorer, words):
    from deepfake_nb.core import DeepfakeError
    detector = Detector(scorer, "cpu", face_detector="haar")
    found = detector.predict(place / "data/real/person0.png")
    assert found.probability is not None
    with pytest.raises(DeepfakeError, match=words): explain(detector, found)
    assert scorer.sha256 or any("nobody can check" in o for o in found.notes)


def test_a_wrong_network_is_one_sentence_for_each_file(place):
    said = dict(fake="high", image_size=32, mean=(0, 0, 0), std=(1, 1, 1), name="five numbers")
    detector = Detector(ForeignScorer(lambda x: torch.zeros(len(x), 5), said), "cpu", face_detector="haar")
    result, = detector.predict_many([place / "data/real/person0.png"], progress=False)
    assert "scorer five numbers gave a tensor (1, 5); accepted: (1,) or (1, 1)" in result.error


def test_commands_judge_evaluate_and_scan(place, name, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("DEEPFAKE_NB_FACE_DETECTOR", "haar")
    scorer, picture = "theirs.py:Brightness", "data/fake/person3.png"
    code, out, error = run_command("deepfake_predict", picture, "--scorer", scorer, "--out", "evidence", "--report", "--device", "cpu")
    record = json.loads(out)
    assert code == 0 and record["settings"]["scorer"] == dict(name=scorer, file_sha256=sha256_file(place / "theirs.py")) and record["heatmap"]
    page = next((place / "evidence").glob("*/report.html")).read_text()
    assert "--scorer theirs.py:Brightness" in page and "brightness" in page
    assert run_command("deepfake_evaluate", "data", "--scorer", scorer, "--out", "measured", "--device", "cpu")[0] == 0
    figures = json.loads((place / "measured/evaluation.json").read_text())
    assert figures["weights"]["name"] == "brightness"
    code, out, error = run_command("deepfake_scan", "data/fake", "--scorer", scorer, "--out", "scan", "--workers", "1")
    assert code == 0, error
    import pandas as pd
    rows = pd.read_parquet(place / "scan/rows")
    assert len(rows) == 12 and set(rows.weights_sha256) == {record["weights"]["sha256"]}
    same = rows[rows.path.str.endswith("person3.png")].probability.item()
    assert same == pytest.approx(record["probability"], abs=1e-3)
    for wrong, words in (("gone.py:net", "FileNotFoundError"), ("nothing", "is unknown"), ("theirs.py:torch", "module")):
        code, out, error = run_command("deepfake_predict", picture, "--scorer", wrong)
        assert code == 2 and "--scorer" in error and words in error


def test_calibrate_gives_a_threshold_that_detector_and_commands_take(place, name, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("DEEPFAKE_NB_FACE_DETECTOR", "haar")
    code, out, error = run_command("deepfake_calibrate", "data", "--scorer", name, "--rate", ".1", "--undecided", ".1", "--out", "theirs.json", "--device", "cpu")
    assert code == 0, error
    made = read_calibration("theirs.json")
    plain = Detector(scorer=name, device="cpu", face_detector="haar")
    real = np.sort([by_hand(plain.predict(o)) for o in sorted((place / "data/real").iterdir())])
    assert made.temperature * logit(made.threshold) == pytest.approx(real[-2], abs=.02)  # 1 of 12 may be called FAKE
    assert made.false_positive_rate["people"] == 12 and made.false_positive_rate["achieved"] == pytest.approx(1 / 12)
    assert made.data["real"] == made.data["forged"] == 12 and made.scorer["sha256"] == plain.scorer.sha256
    detector = Detector(scorer=name, device="cpu", face_detector="haar", calibration="theirs.json")
    found = detector.predict("data/fake/person10.png")
    assert found.threshold == made.threshold and found.false_positive_rate == made.false_positive_rate
    assert found.settings["calibration"] == dict(name="theirs.json", sha256=sha256_file("theirs.json")) and not any("not calibrated" in o for o in found.notes)
    assert logit(found.probability) * made.temperature == pytest.approx(by_hand(found), abs=1e-2)
    code, out, error = run_command("deepfake_predict", "data/fake/person10.png", "--scorer", name, "--calibration", "theirs.json", "--device", "cpu")
    assert json.loads(out)["threshold"] == made.threshold
    other = dict(load_foreign(name).network.deepfake_nb, fake="high", name="other")
    with pytest.raises(WeightsError, match="a calibration of 'brightness'"): Detector(ForeignScorer(torch.nn.Conv2d(3, 1, 1), other), "cpu", face_detector="haar", calibration="theirs.json")
    code, out, error = run_command("deepfake_predict", "data/fake/person10.png", "--calibration", "theirs.json")
    assert code == 2 and "--calibration: theirs.json: a calibration of 'brightness'" in error


def test_own_weights_get_a_new_calibration_in_a_new_file(place, monkeypatch):
    from deepfake_nb.model.scorer import create_scorer, load_scorer, save_scorer
    monkeypatch.chdir(place)
    monkeypatch.setenv("DEEPFAKE_NB_FACE_DETECTOR", "haar")
    torch.manual_seed(0)
    save_scorer(create_scorer("test_efficientnet", "mean", image_size=48, name="own"), "own.safetensors")
    code, out, error = run_command("deepfake_calibrate", "data", "--weights", "own.safetensors", "--rate", ".1", "--out", "new.safetensors", "--device", "cpu")
    assert code == 0, error
    old, new = load_scorer("own.safetensors"), load_scorer("new.safetensors")
    assert new.config.parent_sha256 == old.sha256 and new.config.false_positive_rate["people"] == 12 and new.config.threshold != .5
    assert all(torch.equal(a, b) for a, b in zip(old.state_dict().values(), new.state_dict().values()))
    shutil.copytree("data/real", "only/real")
    code, out, error = run_command("deepfake_calibrate", "only", "--weights", "own.safetensors", "--rate", ".01")
    assert code == 1 and "12 real people are too few" in error


def test_a_detector_with_a_named_scorer_travels(place, name):
    import pickle
    detector = Detector(scorer=name, device="cpu", face_detector="haar")
    again = pickle.loads(pickle.dumps(detector))
    picture = place / "data/real/person5.png"
    assert again.predict(picture).probability == detector.predict(picture).probability


def test_installed_scorers_are_found_by_name(place, tmp_path, monkeypatch):
    "As a package would register it, in the group `deepfake_nb.scorers`."
    shutil.copy(place / "theirs.py", tmp_path / "their_package.py")
    info = tmp_path / "their_package-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[deepfake_nb.scorers]\nbrightness = their_package:Brightness\n")
    (info / "top_level.txt").write_text("their_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        scorer = load_foreign("brightness")
        assert scorer.origin == dict(name="brightness", package="their-package 1.2")
        with pytest.raises(ScorerError, match=r"installed name \(brightness\)"): load_foreign("brightnes")
    finally: sys.modules.pop("their_package", None)


def test_files_of_data_name_no_code(place, name, tmp_path, monkeypatch):
    "A calibration file that names a module is read, and nothing is imported."
    made = CalibrationFile(dict(name="os:system", sha256=load_foreign(name).sha256), 1., .5, dict(rate=.05))
    path = made.save(tmp_path / "a.json")
    before = set(sys.modules)
    assert read_calibration(path).scorer["name"] == "os:system" and set(sys.modules) == before


# ---- numbers, labels and shapes as they come

SAID = dict(image_size=32, mean=(0, 0, 0), std=(1, 1, 1), name="theirs")


@pytest.mark.parametrize("beyond", [1e-7, 1.2e-6, 9e-6])
def test_probabilities_may_be_rounded(place, beyond):
    "Softmax in half precision and sums of it lie a little beside [0, 1]."
    from deepfake_nb.model.foreign import About, about_from_dict, checked_output
    about = about_from_dict(SAID | dict(fake="high", gives="probabilities"), "theirs")
    found = checked_output(torch.tensor([1 + beyond, -beyond, .5], dtype=torch.float64), [(3,)], about, "theirs")
    assert found[0] > 10 and found[1] < -10 and found[2] == 0
    two = about_from_dict(SAID | dict(fake=1, gives="probabilities"), "theirs")
    found = checked_output(torch.tensor([[-beyond, 1 + beyond]], dtype=torch.float64), [(1,)], two, "theirs")
    assert bool(found.isfinite().all()) and found[0] > 10
    with pytest.raises(ScorerError, match=r"from 0 to 1\.0001; accepted: probabilities in \[0, 1\]"):
        checked_output(torch.tensor([0., 1.0001], dtype=torch.float64), [(2,)], about, "theirs")


@pytest.mark.parametrize("fake, plain", [(np.int64(1), 1), (np.array(1), 1), (torch.tensor(1), 1), ([np.int32(0), np.int64(2)], (0, 2)), (np.array([1, 2]), (1, 2)), (np.str_("low"), "low")])
def test_labels_and_numbers_of_arrays_are_numbers(fake, plain):
    from deepfake_nb.model.foreign import about_from_dict
    about = about_from_dict(SAID | dict(fake=fake, image_size=np.int64(32), mean=np.zeros(3), std=torch.ones(3), margin=np.float32(1.5)), "theirs")
    assert (about.fake, about.image_size, about.mean, about.std, about.margin) == (plain, 32, (0., 0., 0.), (1., 1., 1.), 1.5)
    assert type(about.image_size) is int and json.dumps(about.fake)


@pytest.mark.parametrize("fake", [np.int64(-1), np.bool_(True), 1.5, True, "fake", []])
def test_what_is_no_label_is_refused(fake):
    from deepfake_nb.model.foreign import about_from_dict
    with pytest.raises(ScorerError, match="fake is .*accepted: 'high', 'low', or the numbers of its classes"): about_from_dict(SAID | dict(fake=fake), "theirs")


def test_the_message_names_every_shape_that_is_taken_and_no_other():
    from deepfake_nb.model.foreign import about_from_dict, checked_output
    about = about_from_dict(SAID | dict(fake="high"), "theirs")
    with pytest.raises(ScorerError) as caught: checked_output(torch.zeros(2, 2, 2), [(2,), (2, 5)], about, "theirs")
    named = [tuple(map(int, filter(None, o.split(",")))) for o in str(caught.value).split("accepted: ")[1].replace("(", "").split(")") for o in [o.replace(" or ", "")] if o]
    assert named == [(2,), (2, 1), (2, 5), (2, 5, 1)]
    for shape in named: assert checked_output(torch.zeros(shape), [(2,), (2, 5)], about, "theirs").shape in ((2,), (2, 5))
    for shape in ((1,), (3,), (5,), (2, 3), (1, 2), (2, 5, 2), ()):
        with pytest.raises(ScorerError, match="accepted"): checked_output(torch.zeros(shape), [(2,), (2, 5)], about, "theirs")


def test_the_record_has_the_hash_of_the_weights_file(place, name, tmp_path):
    torch.save(load_foreign(name).network.state_dict(), tmp_path / "theirs.pth")
    scorer = load_foreign(name, tmp_path / "theirs.pth")
    assert scorer.origin["weights_sha256"] == sha256_file(tmp_path / "theirs.pth")
    found = Detector(tmp_path / "theirs.pth", "cpu", scorer=name, face_detector="haar").predict(place / "data/real/person0.png")
    assert found.settings["scorer"]["weights_sha256"] == sha256_file(tmp_path / "theirs.pth")


FUNCTIONS = """
from deepfake_nb.model.foreign import ForeignScorer
SAID = dict(fake="high", image_size=32, mean=(0, 0, 0), std=(1, 1, 1), name="twin")
def one(): return ForeignScorer(lambda x: x.mean((1, 2, 3)), SAID)
def other(): return ForeignScorer(lambda x: 1 - x.mean((1, 2, 3)), SAID)
"""


def test_a_calibration_without_a_hash_fits_only_what_it_names(tmp_path):
    from deepfake_nb.measure.calibrationfile import calibrated, identity
    (tmp_path / "a.py").write_text(FUNCTIONS)
    (tmp_path / "b.py").write_text(FUNCTIONS + "\n# another file\n")
    one, same = load_foreign(f"{tmp_path}/a.py:one"), load_foreign(f"{tmp_path}/a.py:one")
    assert one.sha256 == ""
    made = CalibrationFile(identity(one), 2., .7, dict(rate=.05))
    path = made.save(tmp_path / "c.json")
    assert calibrated(same, path).config.threshold == .7
    in_memory = ForeignScorer(lambda x: x.mean((1, 2, 3)), dict(SAID, fake="high", name="twin"))
    weights = ForeignScorer(torch.nn.Conv2d(3, 1, 1), dict(SAID, fake="high", name="twin"))
    for wrong in (load_foreign(f"{tmp_path}/a.py:other"), load_foreign(f"{tmp_path}/b.py:one"), in_memory, weights):
        with pytest.raises(WeightsError, match="a calibration of 'twin'"): calibrated(wrong, path)
    with pytest.raises(WeightsError, match="neither weights nor a file of code"): calibrated(in_memory, CalibrationFile(identity(in_memory), 2., .7, dict(rate=.05)))
    old = CalibrationFile(dict(name="twin", sha256=""), 2., .7, dict(rate=.05))  # as it was written before
    with pytest.raises(WeightsError, match="a calibration of 'twin'"): calibrated(one, old)


@pytest.mark.parametrize("mirror, flip, seen", [(True, True, .5), (False, True, 0.), (True, False, 0.), (False, False, 0.)])
def test_the_mirror_can_be_switched_off(place, mirror, flip, seen):
    "A network that tells left from right: its number is that of the picture as it is, unless it may be mirrored."
    def side(x): return (x[..., :16].mean((1, 2, 3)) - x[..., 16:].mean((1, 2, 3))) * 4
    detector = Detector(ForeignScorer(side, dict(SAID, fake="high", name="side", mirror=mirror)), "cpu", face_detector="haar", flip=flip)
    found = detector.predict(place / "data/real/person5.png")
    assert detector.flip == (mirror and flip) and found.settings["flip"] == detector.flip
    assert (abs(logit(found.probability)) < 1e-4) == (seen == .5)  # the mean with the mirror image is 0


# ---- other crops: aligned by landmarks, and the whole picture

ARCFACE = tuple((x / 112, y / 112) for x, y in [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)])
ALIGNED, WHOLE = dict(SAID, fake="high", crop="aligned", landmarks=ARCFACE), dict(SAID, fake="high", crop="whole")
YUNET = Path(__file__).resolve().parents[2] / "shared" / "models" / "face_detection_yunet_640.onnx"


class Known:
    "A face detector that knows where the face of the portrait is (256 x 300 pixels), with or without its landmarks."
    name, sha256, note = "known", "0" * 64, None
    points = np.array([(111, 95), (155, 93), (133, 118), (116, 137), (155, 134)], np.float32)

    def __init__(self, landmarks=True): self.given = landmarks

    def detect(self, frames):
        from deepfake_nb.see.detect import Face
        return [[Face((87, 55, 91, 110), .99, self.points if self.given else None)] for _ in frames]


def bright_corner(x): return 8 * x[:, :, -3:, -3:].mean((1, 2, 3)) - 4


@pytest.fixture(scope="module")
def corner(place):
    "The portrait with a white patch in its lower right corner, far away from the face."
    pixels = np.array(Image.open(place / "data/real/person9.png"))
    pixels[-45:, -45:] = 255
    Image.fromarray(pixels).save(place / "corner.png")
    return place / "corner.png"


@pytest.mark.parametrize("angle", [-120, -30, 0, 17, 90])
@pytest.mark.parametrize("scale", [.5, 1, 3.3, 7])
def test_an_aligned_crop_has_the_landmarks_in_their_places(angle, scale):
    "Dots of one colour each on a face that is turned, scaled and moved; where they are in the crop is measured."
    import cv2
    from deepfake_nb.see.faces import Face, cut_aligned
    size, turn = 112, np.deg2rad(angle)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    marks = (size * np.array(ARCFACE) - size / 2) @ matrix.T + [520.3, 480.6]
    for k, mark in enumerate(marks):
        frame = np.zeros((1000, 1040, 3), np.uint8)
        cv2.circle(frame, [round(16 * o) for o in mark], round(16 * 3 * scale), (255, 255, 255), -1, cv2.LINE_AA, 4)
        crop = cut_aligned(frame, Face((400, 400, 200, 200), 1., marks), size, ARCFACE)[..., 0].astype(float)
        rows, columns = np.mgrid[:size, :size]
        found = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
        assert crop.shape == (size, size) and np.abs(found - size * np.array(ARCFACE[k])).max() < 1


def test_the_similarity_is_that_of_least_squares(seed=3):
    "Of landmarks that fit no similarity: the four unknowns by a general solver."
    from deepfake_nb.see.faces import similarity
    random = np.random.default_rng(seed)
    for _ in range(20):
        points, to = random.uniform(0, 400, (5, 2)), random.uniform(0, 112, (5, 2))
        rows = np.concatenate([[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in points])
        a, b, right, down = np.linalg.lstsq(rows, to.ravel(), rcond=None)[0]
        np.testing.assert_allclose(similarity(points, to), [[a, -b, right], [b, a, down]], atol=1e-8)


def test_aligned_crops_are_averaged_when_they_shrink():
    from deepfake_nb.see.faces import Face, cut_aligned
    rows, columns = np.mgrid[:900, :900]
    checker = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    crop = cut_aligned(checker, Face((100, 100, 600, 600), 1., 700 * np.array(ARCFACE) + 90), 64, ARCFACE)
    assert np.abs(crop.astype(int) - 127).max() < 20


@pytest.mark.parametrize("crop, landmarks, words", [
    ("aligned", (), "accepted with crop 'aligned': five"), ("aligned", ARCFACE[:4], "five"), ("aligned", "eyes", "five"), ("aligned", None, "five"),
    ("aligned", [[112 * x, 112 * y] for x, y in ARCFACE], "in shares"), ("aligned", ((float("nan"), .5), *ARCFACE[1:]), "in shares"),
    ("aligned", [ARCFACE[1], ARCFACE[0], *ARCFACE[2:]], "right eye is on the left"), ("aligned", [(x, 1 - y) for x, y in ARCFACE], "upright"), ("aligned", [(.5, .5)] * 5, "upright"),
    ("square", ARCFACE, "with crop 'aligned' only"), ("whole", ARCFACE, "with crop 'aligned' only"), ("whole", 3, "with crop 'aligned' only"), ("oval", (), "square, aligned, whole")])
def test_wrong_landmarks_are_refused(crop, landmarks, words):
    from deepfake_nb.model.foreign import about_from_dict
    with pytest.raises(ScorerError, match="scorer theirs: (landmarks|crop) is .*accepted") as caught: about_from_dict(SAID | dict(fake="high", crop=crop, landmarks=landmarks), "theirs")
    assert words in str(caught.value)


def test_landmarks_come_as_arrays_too_and_margins_only_with_squares():
    from deepfake_nb.model.foreign import about_from_dict
    for given in (np.array(ARCFACE), torch.tensor(ARCFACE, dtype=torch.float64), [list(o) for o in ARCFACE], [np.array(o) for o in ARCFACE]):
        assert about_from_dict(SAID | dict(fake="high", crop="aligned", landmarks=given), "theirs").landmarks == ARCFACE
    for said in (ALIGNED, WHOLE):
        with pytest.raises(ScorerError, match="margin is 1.6 with crop .*accepted: a margin with crop 'square' only"): about_from_dict(said | dict(margin=1.6), "theirs")


def test_the_whole_picture_reaches_the_network(corner, place):
    scorer = ForeignScorer(bright_corner, dict(WHOLE, mirror=False))
    detector = Detector(scorer, "cpu", face_detector="haar")
    found, plain = detector.predict(corner), detector.predict(place / "data/real/person9.png")
    assert logit(found.probability) == pytest.approx(4, abs=1e-3) and logit(plain.probability) < 1  # 255 in the corner
    pixels = np.asarray(Image.open(corner), float)
    crop = found.evidence[0].crops[0].astype(float)
    boxes = np.array([[pixels[i * 300 // 32:(i + 1) * 300 // 32, 8 * j:8 * j + 8].mean((0, 1)) for j in range(32)] for i in range(32)])
    assert np.abs(crop - boxes).mean() < 4  # 256 x 300 pixels in 32 x 32 pieces, averaged
    square = Detector(ForeignScorer(bright_corner, dict(SAID, fake="high", mirror=False)), "cpu", face_detector="haar").predict(corner)
    assert logit(square.probability) < 1
    assert found.settings["crop"] == "whole" and square.settings["crop"] == "square" and "landmarks" not in found.settings
    assert any("looks at the whole picture" in o for o in found.notes) and not any("looks at the whole picture" in o for o in square.notes)


def test_an_aligned_scorer_judges_the_portrait(place):
    import cv2
    scorer = ForeignScorer(lambda x: x.mean((1, 2, 3)), ALIGNED)
    picture = place / "data/real/person9.png"
    found = Detector(scorer, "cpu", face_detector=Known()).predict(picture)
    rows = np.concatenate([[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in Known.points])
    a, b, right, down = np.linalg.lstsq(rows, 320 * np.array(ARCFACE).ravel(), rcond=None)[0]
    matrix = np.array([[a, -b, right + 4.5], [b, a, down + 4.5]])  # ten pixels for one: the middle of a block is the middle of its pixel
    large = cv2.warpAffine(np.asarray(Image.open(picture)), matrix, (320, 320), borderMode=cv2.BORDER_REFLECT_101)
    by_hand = cv2.resize(large, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    difference = np.abs(found.evidence[0].crops[0] - by_hand).mean()
    assert difference < 3 and difference < np.abs(found.evidence[0].crops[0][:, ::-1] - by_hand).mean() / 2
    assert logit(found.probability) == pytest.approx(found.evidence[0].crops[0].mean() / 255, abs=1e-3)
    assert found.settings["crop"] == "aligned" and found.settings["landmarks"] == [list(o) for o in ARCFACE]
    square = Detector(ForeignScorer(lambda x: x.mean((1, 2, 3)), dict(SAID, fake="high")), "cpu", face_detector=Known()).predict(picture)
    assert found.faces[0].sharpness == square.faces[0].sharpness and found.faces[0].box == square.faces[0].box


@pytest.mark.parametrize("said", [ALIGNED, WHOLE], ids=["aligned", "whole"])
def test_records_of_other_crops_are_read_again_and_heat_is_refused(place, said):
    from deepfake_nb.core import DeepfakeError, prediction_from_dict
    from deepfake_nb.schema import PREDICTION, SchemaError
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    detector = Detector(ForeignScorer(net, said), "cpu", face_detector=Known())
    found = detector.predict(place / "data/real/person9.png")
    record = json.loads(json.dumps(found.to_dict()))
    PREDICTION(record, "prediction")
    assert prediction_from_dict(record).settings == record["settings"] and record["settings"]["crop"] == said["crop"]
    with pytest.raises(SchemaError, match="crop"): PREDICTION(record | dict(settings=record["settings"] | dict(crop="oval")), "prediction")
    with pytest.raises(DeepfakeError, match=f"its crop is '{said['crop']}', and heat is laid back .* Accepted: crop 'square'"): explain(detector, found)


def test_faces_without_landmarks_are_not_aligned(place):
    scorer = ForeignScorer(lambda x: x.mean((1, 2, 3)), ALIGNED)
    with pytest.raises(ScorerError, match="face detector haar finds none. Accepted: YuNet"): Detector(scorer, "cpu", face_detector="haar")
    result, = Detector(scorer, "cpu", face_detector=Known(False)).predict_many([place / "data/real/person9.png"], progress=False)
    assert "without landmarks cannot be aligned. Accepted: a face detector that finds eyes" in result.error


@pytest.mark.skipif(not YUNET.exists(), reason="YuNet is not at hand")
def test_aligned_crops_of_films_and_streams_by_yunet(place):
    "Faces that are carried on between two searches have no landmarks: a live picture waits for the next search."
    from deepfake_nb.see.detect import load_face_detector
    from deepfake_nb.see.media import write_video
    from deepfake_nb.serve.stream import Stream
    still = np.array(Image.open(place / "data/real/person9.png"))
    film = write_video(place / "walk.mp4", [np.roll(still, i, 1) for i in range(24)], fps=8)
    detector = Detector(ForeignScorer(lambda x: x.mean((1, 2, 3)), dict(ALIGNED, image_size=112)), "cpu", face_detector=str(YUNET), frames=6, second_look=0)
    found = detector.predict(film)
    crops = found.evidence[0].crops
    assert crops.shape == (6, 112, 112, 3)
    again, = load_face_detector(str(YUNET)).detect([np.pad(crops[2], ((56, 56), (56, 56), (0, 0)))])[0]
    assert np.abs(again.landmarks - 56 - 112 * np.array(ARCFACE)).max() < 6  # found anew in the crop
    stream = Stream(film, detector, every_frame=True)
    results = list(stream)
    assert max(p.crops for r in results for p in r.people) >= 2
    for opinion in stream.opinions.values():
        for sample in opinion.samples: assert sample.face.landmarks is not None and sample.crop.shape == (112, 112, 3)


def test_a_calibration_is_of_one_crop(tmp_path):
    "The same weights see another picture: what was measured for one crop says nothing of another."
    from deepfake_nb.measure.calibrationfile import calibrated, identity
    (tmp_path / "a.py").write_text(FUNCTIONS + "\ndef whole(): return ForeignScorer(lambda x: x.mean((1, 2, 3)), SAID | dict(crop='whole'))\n")
    moved = tuple((x, y + .01) for x, y in ARCFACE)
    made_of = [dict(SAID, fake="high"), WHOLE, ALIGNED, dict(ALIGNED, landmarks=moved)]
    net = torch.nn.Conv2d(3, 1, 1)
    scorers = [ForeignScorer(net, o) for o in made_of]
    for i, one in enumerate(scorers):
        path = CalibrationFile(identity(one), 2., .7, dict(rate=.05)).save(tmp_path / f"{i}.json")
        for j, other in enumerate(scorers):
            if i == j: assert calibrated(other, path).config.threshold == .7
            else:
                with pytest.raises(WeightsError, match="a calibration of 'theirs'.*crop"): calibrated(other, path)
    assert identity(load_foreign(f"{tmp_path}/a.py:whole"))["about"] != identity(load_foreign(f"{tmp_path}/a.py:one"))["about"]
