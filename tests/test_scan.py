"A scan ends with one row for each file, whatever is killed on the way; what was left out, and what an evaluation lacks, is said."
import errno, json, os, signal, subprocess, sys, threading, time
from pathlib import Path
import numpy as np, pytest
from matplotlib.cbook import get_sample_data
from PIL import Image

pytest.importorskip("pyarrow", reason="a scan writes Parquet: pip install 'deepfake_nb[scan]'")
pytest.importorskip("pandas", reason="a scan is read with pandas: pip install 'deepfake_nb[scan]'")
from deepfake_nb.core import DeepfakeError
from deepfake_nb.serve.ledger import ScanError, plain_path, read_scan
from deepfake_nb.serve.summary import summarise
from deepfake_nb.see.media import write_video
from deepfake_nb.model.scorer import create_scorer, save_scorer
from deepfake_nb.judge.predict import Detector
from deepfake_nb.serve.scan import scan

SETTINGS = dict(face_detector="haar", device="cpu", frames=4)
SCRIPT = """import signal, sys, time
from deepfake_nb.cli import deepfake_scan
from deepfake_nb.serve.ledger import Ledger
add = Ledger.add
def slowly(self, row): time.sleep(.15); return add(self, row) # so that there is a middle to be stopped in, however fast the machine
Ledger.add = slowly
signal.signal(signal.SIGINT, signal.default_int_handler) # ignored where the tests are run in the background
if __name__ == '__main__': sys.exit(deepfake_scan())
"""
ROOT = Path(__file__).resolve().parents[1]
slow = pytest.mark.skipif(not os.environ.get("DEEPFAKE_NB_SLOW"), reason="set DEEPFAKE_NB_SLOW=1 to run it: minutes")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import torch
    torch.manual_seed(0)
    return save_scorer(create_scorer("test_efficientnet", "mean", clip_length=4, image_size=64), tmp_path_factory.mktemp("scan") / "small.safetensors")


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    "Twenty-four pictures and a video of one portrait, and five files that cannot be read or have no face."
    folder = tmp_path_factory.mktemp("scan") / "media"
    (folder / "deeper").mkdir(parents=True)
    portrait = np.array(Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB").resize((128, 150)))
    for i in range(24): Image.fromarray(np.roll(portrait, i, 1)).save(folder / ("deeper" if i % 2 else ".") / f"{i:02}.png")
    write_video(folder / "film.mp4", [np.roll(portrait, i, 1) for i in range(8)], 8)
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(folder / "wall.png")
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "<b>half.png").write_bytes((folder / "00.png").read_bytes()[:2000])
    (folder / os.fsdecode(b"name\xff.png")).write_bytes((folder / "00.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def expected(media, weights):
    "What `Detector.predict` says: path -> decision, probability, sha256, error."
    detector, found = Detector(weights, **SETTINGS), {}
    for path in map(str, (o for o in media.rglob("*") if o.is_file())):
        name = plain_path(path)
        try: o = detector.predict(path)
        except DeepfakeError as e: found[name] = (None, None, None, str(e))
        else: found[name] = (o.decision, o.probability, o.sha256, None)
    return found


def assert_same(out, expected):
    "One row for each file, with the verdict that `predict` gives."
    table = read_scan(out)
    assert sorted(table.path) == sorted(expected)
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        decision, probability, sha256, error = expected[row["path"]]
        assert (row["decision"], row["sha256"]) == (decision, sha256), row["path"]
        assert row["probability"] == (probability if probability is None else pytest.approx(probability, abs=1e-6))
        assert (row["error"] is None) == (error is None)
        assert error is None or "\\x" in row["path"] or row["error"] == error


def alive(group):
    "The processes whose standard input is a pipe from a process of this test run, by the command they run (Linux)."
    return [o for o in Path("/proc").glob("[0-9]*/cmdline") if "serve_worker" in read(o) and str(group) in read(o.parent / "stat").split()[3:4]]


def read(path):
    try: return path.read_text(errors="replace")
    except OSError: return ""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_stopped_killed_and_resumed(media, weights, expected, tmp_path):
    out, script = tmp_path / "out", tmp_path / "deepfake-scan"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(media), "--out", str(out), "--weights", str(weights), "--frames", "4", "--face-detector", "haar",
               "--workers", "1", "--part-size", "8"]
    start = lambda *more: subprocess.Popen([*command, *more], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rows = lambda: len(read_scan(out, ["path"])) if (out / "scan.json").exists() else 0
    for number, (sign, code) in {5: (signal.SIGINT, 130), 12: (signal.SIGKILL, -9)}.items():
        process = start()
        stop = time.monotonic() + 600
        while rows() < number and process.poll() is None and time.monotonic() < stop: time.sleep(.01)
        workers = alive(process.pid)
        process.send_signal(sign)
        error = process.communicate(timeout=60)[1]
        assert process.returncode == code, error
        if sign == signal.SIGINT: assert "Traceback" not in error and "goes on" in error
        stop = time.monotonic() + 20
        while any(read(o) for o in workers) and time.monotonic() < stop: time.sleep(.05)
        assert len(workers) == 1 and not any(read(o) for o in workers), "the worker outlives the scan"
        assert number <= rows() < len(expected), "the stop was to hit the middle"
    before = read_scan(out)
    with open(next(out.glob("part-*.jsonl"), out / "part-000009.jsonl"), "a") as file: file.write('{"path": "torn')
    process = start()
    summary, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    assert summary.startswith(f"{len(expected)} files: ")
    assert_same(out, expected)
    after = read_scan(out).set_index("path").seconds
    assert (after[before.path].to_numpy() == before.seconds.to_numpy()).all(), "files with a row were judged again"
    assert [o.name for o in (out / "rows").iterdir() if o.name.startswith(".")] == []
    page = (out / "summary.html").read_text()
    assert "&lt;b&gt;half.png" in page and "<b>half" not in page and "<script" not in page

    process = start("--threshold", "0.123")  # verdicts of another setup do not come into the same table
    error = process.communicate(timeout=600)[1]
    assert process.returncode == 1 and "threshold 0.123 instead of" in error and "--restart" in error
    assert_same(out, expected)


def test_two_workers_one_of_which_dies(media, weights, expected, tmp_path):
    "The file that a dying process had in its hands gets a row that says so; all others get their verdict."
    def kill():
        stop = time.monotonic() + 600
        while time.monotonic() < stop:
            time.sleep(.02)
            if (tmp_path / "out/scan.json").exists() and len(read_scan(tmp_path / "out", ["path"])) > 3 and (workers := alive(os.getpid())):
                return os.kill(int(workers[0].parent.name), signal.SIGKILL)
    killer = threading.Thread(target=kill)
    killer.start()
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\n".join(os.fsencode(o) for o in media.rglob("*") if o.is_file()) * 2)  # twice: judged once
    summary = scan(listed, tmp_path / "out", weights, SETTINGS, workers=2, part_size=10, progress=False)
    killer.join()
    table = read_scan(tmp_path / "out").set_index("path")
    died = table[table.error.fillna("").str.contains("signal 9")]
    assert summary.files == len(table) == len(expected) + 1 and len(died) <= 1  # +1: where the two copies of the list meet
    for path, (decision, *_) in expected.items(): assert path in died.index or (table.decision[path] if decision else None) == decision


def test_refusals(media, weights, tmp_path):
    for arguments, words in ((dict(engine="abacus"), "processes, ray"), (dict(workers=-1), "workers"), (dict(settings=dict(frames=0)), "frames is 0")):
        with pytest.raises(ScanError, match=words): scan(media, tmp_path / "out", **dict(weights=weights, progress=False, workers=1) | arguments)
    assert not (tmp_path / "out").exists()


# ---- folders and places as they are

@pytest.fixture
def untidy(tmp_path, media):
    "A picture, an empty file with a name that is no UTF-8, results of an earlier run, a text, a hidden file."
    folder = tmp_path / "untidy"
    result = folder / "evidence" / "00-1234abcd"
    result.mkdir(parents=True)
    for place in (folder / "00.png", result / "heatmap.png", folder / ".thumbnail.png"): place.write_bytes((media / "00.png").read_bytes())
    (result / "prediction.json").write_text(json.dumps(dict(path="00.png", decision="REAL", probability=.1, heatmap=str(result / "heatmap.png"))))
    (folder / "notes.txt").write_text("text")
    (folder / os.fsdecode(b"empty\xe9.jpg")).write_bytes(b"")
    return folder


def test_odd_names_and_own_results_on_a_share_without_locks(untidy, weights, tmp_path, capsys, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="Windows has no such locks")
    def no_locks(*_): raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    monkeypatch.setattr(fcntl, "flock", no_locks)
    summary = scan(untidy, tmp_path / "out", weights, SETTINGS, workers=1, progress=False)
    said, page, table = capsys.readouterr().err, (tmp_path / "out/summary.html").read_text(), read_scan(tmp_path / "out").set_index("path")
    assert sorted(os.path.basename(o) for o in table.index) == ["00.png", "empty\\xe9.jpg"]
    assert table.decision[str(untidy / "00.png")] and "\\xe9.jpg" in table.error[plain_path(untidy / os.fsdecode(b"empty\xe9.jpg"))]
    for text in (said, str(summary), page):
        assert "cannot be locked" in text and "1 left out (a folder with results of this library)" in text and "notes.txt" in text
        assert "00-1234abcd" in text
    assert "the simpler detector" in str(summary) and "the simpler detector" in page and "heatmap.png" not in " ".join(table.index)
    again = scan(untidy, tmp_path / "out", weights, SETTINGS, workers=1, progress=False)  # the odd row is no obstacle, and nothing is twice
    assert again.files == 2 and len(read_scan(tmp_path / "out")) == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser reads every folder")
def test_a_folder_that_cannot_be_read_is_named(untidy, weights, tmp_path):
    closed = untidy / "closed"
    closed.mkdir()
    closed.chmod(0)
    try: summary = scan(untidy, tmp_path / "out", weights, SETTINGS, workers=1, progress=False)
    finally: closed.chmod(0o700)
    assert summary.files == 2 and "closed" in str(summary) and "unreadable folder" in str(summary)


def test_an_error_on_the_way_through_a_folder_is_named(untidy, weights, tmp_path, monkeypatch):
    "As above, for whoever may read everything."
    real = os.scandir
    def guarded(place="."):
        if os.fspath(place).endswith("evidence"): raise PermissionError(errno.EACCES, "Permission denied", os.fspath(place))
        return real(place)
    monkeypatch.setattr(os, "scandir", guarded)
    summary = scan(untidy, tmp_path / "out", weights, SETTINGS, workers=1, progress=False)
    assert summary.files == 2 and "unreadable folder (Permission denied)" in str(summary) and "evidence" in str(summary)
    assert "unreadable folder" in (tmp_path / "out/summary.html").read_text()


# ---- evaluations

def test_an_evaluation_ends_without_a_back_end_for_figures(media, weights, tmp_path):
    "A variable that a notebook left behind does not spoil hours of scoring at the last step; what is left out is in the figures."
    folder = tmp_path / "\u00e9t\u00e9"
    for name in ("real/00.png", "fake/01.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes((media / ("00.png" if "00" in name else "deeper/01.png")).read_bytes())
    (folder / "real/notes.txt").write_text("text")
    code = "import sys; from deepfake_nb.cli import deepfake_evaluate\nif __name__ == '__main__': sys.exit(deepfake_evaluate())"
    (script := tmp_path / "deepfake-evaluate").write_text(code)
    command = [sys.executable, str(script), str(folder), "--weights", str(weights), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | dict(MPLBACKEND="module://no.such.module", PYTHONIOENCODING="ascii"), capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "2/2" in done.stderr  # the bar ends at n of n
    assert "data:image/png" in (tmp_path / "out/evaluation.html").read_text(encoding="utf-8")
    assert any("left out" in o for o in json.loads((tmp_path / "out/evaluation.json").read_text(encoding="utf-8"))["notes"])
    assert "left out" in done.stdout and "\\xe9t\\xe9" in done.stdout


# ---- Ray

@pytest.fixture
def cluster(monkeypatch):
    "Two machines of one CPU each, as far as Ray can tell."
    pytest.importorskip("ray", reason="pip install 'deepfake_nb[scan]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=False)
    def start():
        for _ in range(5):
            try: return cluster.add_node(num_cpus=1, object_store_memory=300 * 2**20, include_dashboard=False)
            except Exception as e: problem = e  # on a busy machine a node of Ray may give up on itself
        pytest.skip(f"no node of Ray starts here: {problem}")
    start()
    cluster.second = start()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_ray_on_one_machine(media, weights, expected, tmp_path):
    pytest.importorskip("ray", reason="pip install 'deepfake_nb[scan]'")
    try: scan(media, tmp_path / "out", weights, SETTINGS, engine="ray", workers=1, progress=False)
    except Exception as e:
        if "timed out during startup" in str(e): pytest.skip(f"Ray does not start on a machine this busy: {e}")
        raise
    assert_same(tmp_path / "out", expected)


@slow
def test_ray_with_two_machines_one_of_which_is_lost(cluster, media, weights, expected, tmp_path, monkeypatch):
    from deepfake_nb.serve import scan as module
    monkeypatch.setattr(module, "BLOCK", 2)
    def lose():
        stop = time.monotonic() + 300
        while time.monotonic() < stop:
            time.sleep(.05)
            if (tmp_path / "out/scan.json").exists() and len(read_scan(tmp_path / "out", ["path"])) > 3: break
        lost.append(len(read_scan(tmp_path / "out", ["path"])))
        cluster.remove_node(cluster.second, allow_graceful=False)
    lost, thread = [], threading.Thread(target=lose)
    thread.start()
    scan(media, tmp_path / "out", weights, SETTINGS, address=cluster.address, workers=2, progress=False)
    thread.join()
    assert lost[0] < len(expected), "the loss was to hit the middle"
    assert_same(tmp_path / "out", expected)
