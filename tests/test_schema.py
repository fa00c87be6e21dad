"Whatever stands in a weights file, a calibration, a saved prediction, a report or a journal: a sentence at the door, or everything works."
import copy, dataclasses, json
from pathlib import Path
import pytest

for package in ("torch", "pyarrow", "pandas"): pytest.importorskip(package, reason=f"{package} is not installed")
from deepfake_nb.core import DeepfakeError, Prediction, WeightsError, prediction_from_dict
from deepfake_nb.measure.calibrate import AbstentionRule, calibration_from_config
from deepfake_nb.measure.calibrationfile import FORMAT, read_calibration
from deepfake_nb.measure.heldout import _stated
from deepfake_nb.model.weightsfile import ScorerConfig, ScorerError, config_from_dict, weights_info
from deepfake_nb.tell import wording
from deepfake_nb.tell.report import Report, ReportError, flatten, load_prediction
from deepfake_nb.tell.verify import verify_report

WRONG = (5, -1, 1e300, "x", "", None, True, [], {}, [5], ["x"], [[]], [{}], dict(a=5), dict(a=None), dict(a=dict(b="c")))
RATE = dict(rate=.05, achieved=.04, low=.01, high=.1, n_real=100, people=50, dataset="mine", face_detector="haar")
TESTS = dict(dfdc=dict(fakes_found=dict(rate=.5, low=.4, high=.6, n=40), real_called_fake=dict(rate=.01, low=0., high=.05, n=80)), other=dict(fakes_found=dict(rate=.9)))
POINTING = dict(hit=.8, low=.7, high=.9, others=.2, n=50)
POWER = dict(blended=dict(found=.5, n=10), drawn=dict(found=.2, n=20))
TRAINING = dict(data={"mine train": 100, "mine val": 20}, chosen_by={"b val": 3}, recipe=dict(arch="x", epochs=2), protocol=dict(name="p", sha256="0" * 64, held_out="a"),
                mean_of=[dict(sha256="a", share=.5, training=dict(data="all that there was"))], parent=dict(name="p", sha256="", training=dict(data={"c train": 1})))
ABSTENTION = AbstentionRule(max_distance=3., real_below=.3).to_dict()
METRICS = dict(tests=TESTS, pointing=POINTING, detectors=dict(haar=RATE), validation_auc=.9, epoch=3)
FACE = dict(person=0, decision="FAKE", probability=.9, box=[10., 10., 50., 60.], timeline=[dict(time=t, probability=.9, box=[10., 10., 50., 60.]) for t in (0., .5)], reasons=[], face_size=60.,
            sharpness=3., heatmap=None, distance=1., where=dict(box=[1., 2., 3., 4.], time=0., spread=.2, regions=dict(eyes=.5, nose=.5), sizes=dict(eyes=.1, nose=.1)),
            forgery=dict(kind="drawn as a whole", error=.1, n=10))
OTHER = FACE | dict(person=1, decision="INCONCLUSIVE", probability=None, timeline=[], reasons=[dict(code="FACE_TOO_SMALL", text="small")], where={}, forgery={})
PREDICTION = dict(path="a.mp4", decision="FAKE", probability=.9, heatmap=None, reasons=[], faces=[FACE, OTHER], kind="video", media=dict(width=100, height=100, duration=2., format="MP4", scale=1., frames=2),
                  notes=["a note"], threshold=.5, false_positive_rate=RATE, sha256="0" * 64, weights=dict(name="w", sha256="1" * 64, tests=TESTS, power=POWER, pointing=POINTING), face_detector=dict(name="haar", sha256=""),
                  settings=dict(frames=32, device="cpu", scorer=dict(name="a.py:f"), calibration=dict(name="c.json")), version="0.1.0", created="2026-01-01T00:00:00+00:00",
                  looked_at=dict(frames=2, frames_in_file=60, seconds=.5, seconds_in_file=2., longest_gap=1., streams=1, streams_in_file=2, people=2, people_judged=1, people_too_small=1),
                  segments=[dict(person=0, start=0., end=1., probability=.9, frames=2)])


def places(value, path=()):
    "The place of every value in nested tables and lists."
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for k, o in entries: yield from places(o, (*path, k))


def with_wrong(value, path, wrong):
    "A copy in which something else stands at one place."
    if not path: return copy.deepcopy(wrong)
    made = copy.deepcopy(value)
    inner = made
    for k in path[:-1]: inner = inner[k]
    inner[path[-1]] = copy.deepcopy(wrong)
    return made


def without(value, path):
    made = copy.deepcopy(value)
    inner = made
    for k in path[:-1]: inner = inner[k]
    del inner[path[-1]]
    return made


def all_wrong(value):
    for path in places(value):
        for wrong in WRONG: yield path, wrong, with_wrong(value, path, wrong)
        if path and isinstance(path[-1], str): yield path, "nothing", without(value, path)


def told(prediction):
    "All words, tables and pictures of a report about a prediction."
    from deepfake_nb.tell.pictures import timeline_picture
    report = Report(prediction, [], None, 5, dict(training=TRAINING), created="2026-01-01T00:00:00+00:00", command="x")
    for part in ("title", "verdict", "reasons", "people", "notes_list", "error_rate", "file_table", "model_table", "settings_table", "repeat", "check"): getattr(report, part)()
    from deepfake_nb.tell.report import repeat_command
    repeat_command(prediction)
    json.dumps(report.to_dict(), allow_nan=False)
    prediction._repr_html_(), str(prediction)


def test_every_value_of_a_saved_prediction(tmp_path):
    path, refused, taken = tmp_path / "prediction.json", 0, 0
    path.write_text(json.dumps(PREDICTION))
    told(load_prediction(path))
    for place, wrong, value in all_wrong(PREDICTION):
        path.write_text(json.dumps(value))
        try: prediction = load_prediction(path)
        except ReportError as e:
            refused += 1
            assert str(path) in str(e) and "Accepted: " in str(e), e
            continue
        taken += 1
        try: told(prediction)
        except Exception as e: raise AssertionError(f"{place} = {wrong!r} was taken, and then: {type(e).__name__}: {e}") from e
    assert refused > 500 and taken > 200  # both happen


def test_a_wrong_value_names_file_place_and_what_is_accepted(tmp_path):
    from deepfake_nb.shell import run_command
    path = tmp_path / "prediction.json"
    path.write_text(json.dumps(PREDICTION | dict(threshold="high")))
    code, out, error = run_command("deepfake_report", path, "--no-pdf")
    assert code == 1 and f"{path}: threshold is 'high'. Accepted: a prediction.json" in error and "a number in [0, 1]" in error


@pytest.mark.parametrize("field, wrong", [("pictures", ["x"]), ("pictures", 5), ("pictures", dict(a=5)), ("pictures", [dict(name="heatmap")]), ("files", dict(a=5)), ("files", []), ("prediction", "x"),
                                          ("prediction", dict(sha256=5)), ("evidence_sha256", 5), ("evidence_sha256", None)])
def test_a_report_that_is_none(tmp_path, field, wrong):
    from deepfake_nb.shell import run_command
    (tmp_path / "a.mp4").write_bytes(b"film")
    (tmp_path / "report.html").write_text("page")
    record = Report(prediction_from_dict(PREDICTION)).to_dict() | dict(files={})
    (tmp_path / "report.json").write_text(json.dumps(record | {field: wrong}))
    code, out, error = run_command("deepfake_report", "--verify", tmp_path / "report.json", "--input", tmp_path / "a.mp4")
    assert code == 1 and "unforeseen" not in error and len(error.splitlines()) == 1 and "report.json" in error and "Accepted" in error, error


CONFIG = dict(false_positive_rate=RATE, abstention=ABSTENTION, training=TRAINING, metrics=METRICS)


def used(config):
    "All that is done with these fields later."
    metrics, rate = config.metrics, config.false_positive_rate
    calibration_from_config(config)
    if set(config.abstention) <= set(ABSTENTION): AbstentionRule.from_dict(config.abstention).segments([.9] * 5, .5)  # of another version: refused by `Detector`
    prediction = dataclasses.replace(prediction_from_dict(PREDICTION), false_positive_rate=rate, weights=dict(name="", sha256="", tests=metrics.get("tests") or {}, pointing=metrics.get("pointing") or {}))
    wording.trust_sentences(prediction), wording.verdict_sentences(prediction), wording.miss_sentence(prediction), wording.headline(dataclasses.replace(prediction, decision="REAL"))
    for o in (metrics.get("detectors") or {}).values(): wording.error_sentence(dataclasses.replace(prediction, false_positive_rate=o))
    _stated(config.training), (config.training.get("protocol") or {}).get("sha256")
    Report(prediction, [], None, None, dict(training=config.training, metrics=metrics)).model_table()
    Report(prediction).error_rate(), flatten(config.to_dict())


def test_every_value_of_a_weights_header():
    used(config_from_dict(CONFIG))
    refused = taken = 0
    for place, wrong, value in all_wrong(CONFIG):
        if not isinstance(value, dict): continue
        try: config = config_from_dict(value)
        except ScorerError: refused += 1; continue
        taken += 1
        try: used(config)
        except Exception as e: raise AssertionError(f"{place} = {wrong!r} was taken, and then: {type(e).__name__}: {e}") from e
    assert refused > 300 and taken > 100


@pytest.mark.parametrize("wrong, said", [(dict(tests=5), "metrics.tests is 5"), (dict(tests="good"), "metrics.tests is 'good'"), (dict(tests=dict(a=5)), "metrics.tests.a is 5"),
                                         (dict(detectors=[1]), "metrics.detectors is [1]"), (dict(validation_auc="high"), "metrics.validation_auc is 'high'")])
def test_a_weights_file_with_a_wrong_value_is_one_sentence(tmp_path, wrong, said):
    from deepfake_nb.model.scorer import create_scorer, save_scorer
    from deepfake_nb.shell import run_command
    path = save_scorer(create_scorer("test_efficientnet", "mean", image_size=64), tmp_path / "w.safetensors")
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    ours = json.loads(header["__metadata__"]["deepfake_nb"])
    ours["config"]["metrics"] = wrong
    header["__metadata__"]["deepfake_nb"] = json.dumps(ours)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length:])
    with pytest.raises(WeightsError) as caught: weights_info(path)
    assert str(path) in str(caught.value) and said in str(caught.value) and "accepted: " in str(caught.value)
    (tmp_path / "a.jpg").write_bytes(b"there")
    code, out, error = run_command("deepfake_predict", tmp_path / "a.jpg", "--weights", path)
    assert code == 2 and said in error and len(error.splitlines()) == 1


def test_every_value_of_a_calibration(tmp_path):
    made = dict(format=FORMAT, scorer=dict(name="a", sha256="0" * 64, package="p 1"), temperature=2., threshold=.7, false_positive_rate=RATE, calibration=dict(power=POWER), abstention=ABSTENTION,
                data=dict(name="d", real=5), settings=dict(frames=32), notes=["a"], library_version="0.1.0", created="now")
    path, refused = tmp_path / "c.json", 0
    for place, wrong, value in [((), "as it is", made), *all_wrong(made)]:
        path.write_text(json.dumps(value))
        try: read = read_calibration(path)
        except WeightsError as e:
            refused += 1
            assert str(path) in str(e) and "Accepted: " in str(e)
            continue
        try: used(read.config(ScorerConfig())), [o.lower() for o in read.notes], read.scorer.get("name")
        except Exception as e: raise AssertionError(f"{place} = {wrong!r} was taken, and then: {type(e).__name__}: {e}") from e
    assert refused > 200


# ---- journals

SETUP = dict(weights=dict(name="w", sha256="1" * 64), threshold=.5, face_detector=dict(name="haar", sha256=""), settings=dict(frames=4), version="0.1.0")
LINE = dict(path="/a/b.jpg", kind="image", decision="FAKE", probability=.9, reasons=[], people=1, judged=1, looked_at="{}", threshold=.5, face_detector="haar", notes=[], sha256="0" * 64,
            file_state="5 bytes, 7 ns", weights_sha256="1" * 64, seconds=.5, version="0.1.0", error=None)


def scan_folder(folder, lines):
    folder.mkdir(exist_ok=True)
    (folder / "scan.json").write_text(json.dumps(dict(setup=SETUP, started="now")))
    (folder / "part-000000.jsonl").write_text("".join(json.dumps(o) + "\n" for o in lines))
    return folder


def test_one_row_a_path(tmp_path):
    "Doubled lines in the journal, lines of what is in a partition already, and a partition that was copied."
    import shutil
    from deepfake_nb.serve.ledger import Ledger, read_scan
    from deepfake_nb.serve.summary import summarise
    other = LINE | dict(path="/a/c.jpg", decision="REAL")
    folder = scan_folder(tmp_path / "scan", [LINE, other, LINE | dict(decision="REAL"), other])
    assert list(read_scan(folder)[["path", "decision"]].itertuples(index=False, name=None)) == [("/a/b.jpg", "FAKE"), ("/a/c.jpg", "REAL")]
    assert summarise(folder).files == 2
    with Ledger(folder, SETUP) as ledger:
        assert len(ledger) == len(ledger.rows) == 2
        ledger.flush()
    (folder / "part-000001.jsonl").write_text(json.dumps(LINE) + "\n" + json.dumps(LINE | dict(path="/a/d.jpg")) + "\n")
    with Ledger(folder, SETUP) as ledger: ledger.flush()
    shutil.copy(folder / "rows/part-000000.parquet", folder / "rows/part-000007.parquet")
    assert sorted(read_scan(folder).path) == ["/a/b.jpg", "/a/c.jpg", "/a/d.jpg"] and summarise(folder).files == 3
    assert list(read_scan(folder, ["decision"]).columns) == ["decision"] and len(read_scan(folder, ["decision"])) == 3


def test_every_value_of_a_line(tmp_path):
    from deepfake_nb.serve.ledger import Ledger, read_scan
    from deepfake_nb.serve.summary import summarise
    for number, (place, wrong, value) in enumerate(all_wrong(LINE)):
        folder = scan_folder(tmp_path / f"{number}", [value])
        try:
            with Ledger(folder, SETUP) as ledger: ledger.flush()
            rows, summary = read_scan(folder), summarise(folder)
            summary.save_html(folder / "summary.html"), str(summary)
        except DeepfakeError as e: raise AssertionError(f"{place} = {wrong!r}: {e}") from e
        assert len(rows) <= 1 and (not len(rows) or rows.path[0])
        if place == ("sha256",) and wrong not in (None, "", "nothing"): assert "its row cannot be kept" in rows.error[0] and "sha256" in rows.error[0]


@pytest.mark.parametrize("place, wrong", [(("weights",), 5), (("weights", "sha256"), None), (("threshold",), "x"), (("face_detector",), []), (("version",), 7)])
def test_a_scan_record_with_a_wrong_value_is_one_sentence(tmp_path, place, wrong):
    from deepfake_nb.serve.summary import summarise
    folder = scan_folder(tmp_path / "scan", [LINE])
    (folder / "scan.json").write_text(json.dumps(dict(setup=with_wrong(SETUP, place, wrong))))
    with pytest.raises(DeepfakeError, match=r"scan\.json: setup\..*Accepted: "): summarise(folder)


def test_records_of_an_evaluation_that_cannot_be_used_are_scored_anew(tmp_path):
    from deepfake_nb.core import FaceVerdict, FrameScore
    from deepfake_nb.measure.scored import score_items
    class Judge:
        def __init__(self): self.asked = []
        def predict_each(self, paths, progress=True):
            for path in paths:
                self.asked.append(path)
                yield Prediction(path, "FAKE", .9, faces=[FaceVerdict(0, "FAKE", .9, (1, 2, 3, 4), [FrameScore(0., .9, (1, 2, 3, 4))])], sha256="0" * 64)
        def __repr__(self): return "Judge"
    resume = tmp_path / ".scored.jsonl"
    first, _ = score_items(Judge(), ["a.jpg", "b.jpg"], False, resume)
    made_by, good, other = resume.read_text().splitlines()
    for place, wrong, value in all_wrong(json.loads(good)):
        resume.write_text(f"{made_by}\n{json.dumps(value)}\n{other}\n")
        judge = Judge()
        try: records, notes = score_items(judge, ["a.jpg", "b.jpg"], False, resume)
        except Exception as e: raise AssertionError(f"{place} = {wrong!r}: {type(e).__name__}: {e}") from e
        assert [o["path"] for o in records] == ["a.jpg", "b.jpg"] and isinstance(records[0]["row"]["sha256"], str)
        if place == ("row", "sha256") and wrong == 5: assert judge.asked == ["a.jpg"] and ".scored.jsonl: 1 records that cannot be used (row.sha256 is 5" in notes[-1]
