"deepfake-doctor says what is here, whatever is broken."
import json, os
import pytest
from deepfake_nb.shell import run_command
from test_install import lines, run_alone

DOCTOR = "from deepfake_nb.cli import deepfake_doctor\nif __name__ == '__main__': sys.exit(deepfake_doctor())"


def by_name(done):
    "The findings of a run with --json, by what they are about."
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return {o["about"]: o for o in json.loads(done.stdout)["findings"]}


def test_the_base_installation_is_enough(tmp_path):
    "Without extras predicting works, and each extra is named with what brings it."
    done = run_alone(tmp_path, DOCTOR, "--json", DEEPFAKE_NB_FACE_DETECTOR="haar")
    found = by_name(done)
    assert done.returncode == 0 and json.loads(done.stdout)["verdict"] == "Predicting works."
    assert not [o for o in found.values() if o["state"] == "broken"]
    for extra in ("train", "report", "app", "scan", "onnx"):
        assert found[f"extra {extra}"]["state"] == "note" and f"pip install 'deepfake_nb[{extra}]'" in found[f"extra {extra}"]["text"]
    assert set(found["extra train"]["facts"]["missing"]) >= {"fastai", "pandas"}
    assert found["judging"]["facts"]["portrait"] in ("REAL", "FAKE", "INCONCLUSIVE") and found["judging"]["facts"]["film"] in ("REAL", "FAKE", "INCONCLUSIVE")


def test_whatever_is_broken_is_a_line(tmp_path):
    "No weights, no home, a face detector that is none, a package of the system that is missing: lines, and exit code 1."
    (tmp_path / "text.onnx").write_text("no network")
    broken = "\nsys.modules['cv2'] = None\n" + DOCTOR
    environment = dict(DEEPFAKE_NB_FACE_DETECTOR=str(tmp_path / "text.onnx"), DEEPFAKE_NB_WEIGHTS=str(tmp_path / "gone.safetensors"),
                       HOME=str(tmp_path / "text.onnx"), XDG_CACHE_HOME="")
    done = run_alone(tmp_path, broken, "--json", **environment)
    found = by_name(done)
    assert done.returncode == 1
    assert {o for o, v in found.items() if v["state"] == "broken"} >= {"packages", "face detector", "weights", "judging"}
    assert found["cache"]["state"] == "note" and found["machine"]["state"] == "ok"
    assert "DEEPFAKE_NB_WEIGHTS" in found["weights"]["text"]


def test_lines_for_people_in_any_terminal(tmp_path):
    done = run_alone(tmp_path, DOCTOR, "--quick", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C", DEEPFAKE_NB_FACE_DETECTOR="haar")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = done.stdout.splitlines()
    assert all(o.split()[0] in ("ok", "note") for o in rows[:-1]) and "not tried" in rows[-1]
    assert any("output: ascii" in o for o in rows)
    assert os.path.expanduser("~") == "/" or not any(os.path.expanduser("~") + "/" in o for o in rows), "a report of a fault names nobody"


def test_wrong_usage():
    assert run_command("deepfake_doctor", "--no-such-thing")[0] == 2


def test_every_extra_is_looked_at():
    "But for those of developers."
    from deepfake_nb.doctor import _extras
    from test_install import EXTRAS
    assert {o.about for o in _extras()} == {f"extra {o}" for o in EXTRAS if o not in ("dev", "docs")}
    assert len(lines("docs_requirements")) > 0
