"A decoder that stands still, with Python's lock in its hand: whoever serves others notices, says which file it was, and goes on."
import os, subprocess, sys, textwrap, threading, time
from pathlib import Path
import pandas as pd, pytest
from test_clock import film

ROOT = Path(__file__).resolve().parents[1]
STUB = """
    import av, ctypes
    real = av.open
    def stub(source, *arguments, **settings):
        if "still" in str(getattr(getattr(source, "file", None), "name", "")): ctypes.PyDLL(None).sleep(1000)  # holds the lock
        return real(source, *arguments, **settings)
    av.open = stub
"""


@pytest.fixture
def standing_still(tmp_path, monkeypatch):
    "Children open films with a stub; the folder with one film that stands still and one that does not."
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(textwrap.dedent(STUB))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(ROOT)]))
    for name in ("still.mp4", "good.mp4"): film(tmp_path / name, "mpeg4", "yuv420p", {}, frames=4)
    return tmp_path


def test_extract_stops_what_stands_still(standing_still, monkeypatch):
    import deepfake_nb.data.extract as module
    from deepfake_nb.data.extract import extract
    from matplotlib.cbook import get_sample_data
    monkeypatch.setattr(module, "LONGEST", 12.)
    face = get_sample_data("grace_hopper.jpg", asfileobj=False)
    rows = [dict(path=str(o), label=0, split="train", group=str(i), dataset="a", method="a") for i, o in enumerate((standing_still / "still.mp4", face))]
    table = extract(pd.DataFrame(rows), standing_still / "out", workers=1, progress=False, face_detector="haar")
    assert len(table) == 1
    failures = pd.read_csv(standing_still / "out" / "failures.csv")
    assert list(failures.path) == [str(standing_still / "still.mp4")] and "stood still" in failures.detail[0]


def test_scan_says_which_file_stood_still(standing_still):
    from deepfake_nb.serve.scan import Worker
    from test_engine import tiny_weights
    worker = Worker(dict(weights=str(tiny_weights(standing_still)), settings=dict(face_detector="haar", device="cpu")), seconds=300.)
    try:
        worker.start()
        worker.seconds = 5.
        row = worker.judge(str(standing_still / "still.mp4"))
        assert "still.mp4" in row["error"] and "longer than 5 seconds" in row["error"]
        worker.seconds = 300.
        assert worker.judge(str(standing_still / "good.mp4"))["decision"] == "INCONCLUSIVE"
    finally: worker.close()


def test_an_engine_that_stands_still_ends_and_the_file_is_named(standing_still):
    from deepfake_nb.serve.engine import EngineError, RemoteEngine
    from test_engine import tiny_weights
    address, key = str(standing_still / "e"), b"key"
    code = f"""
        import deepfake_nb.serve.engine as module
        from multiprocessing.connection import Listener
        listener = Listener({address!r}, authkey={key!r})
        print("ready", flush=True)
        module.serve_engine(module.Engine([{str(tiny_weights(standing_still))!r}], "cpu", seconds=4.), listener)
    """
    engine = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    try:
        assert engine.stdout.readline().strip() == "ready"
        with pytest.raises(EngineError, match="holiday.mp4: not examined within 4 seconds"): RemoteEngine(address, key).preview(standing_still / "still.mp4", "holiday.mp4")
        assert engine.wait(20) != 0
    finally:
        engine.kill()
        engine.wait()
