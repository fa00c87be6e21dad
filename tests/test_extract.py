"Extraction survives what happens to long runs: a kill in the middle, a decoder that takes its process down."
import json, os, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from deepfake_nb import extract as module
from deepfake_nb.data import manifest_from_folder, read_manifest
from deepfake_nb.media import read_image, write_video

OPTIONS = dict(size=64, frames=3, face_detector="haar", progress=False)
SCRIPT = """
import sys
from deepfake_nb.data import read_manifest
from deepfake_nb.extract import extract
if __name__ == "__main__": extract(read_manifest(sys.argv[1]), sys.argv[2], size=64, frames=3, workers=2, face_detector="haar", progress=False)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "Fourteen stills and two videos of one portrait, one wall, one broken file."
    from matplotlib.cbook import get_sample_data
    folder = tmp_path_factory.mktemp("extract") / "data"
    portrait = read_image(get_sample_data("grace_hopper.jpg", asfileobj=False)).frames[0]
    for label in ("real", "fake"):
        (folder / "train" / label).mkdir(parents=True)
        write_video(folder / "train" / label / "pan.mp4", [portrait[:400, x:x + 400] for x in range(40, 70, 5)], 10)
        for i in range(7): Image.fromarray(portrait[i:400 + i, 50:450]).save(folder / "train" / label / f"{i}.png")
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(folder / "train/real/wall.png")
    (folder / "train/fake/broken.mp4").write_bytes(b"no video")
    return folder


def contents(out):
    "Every file of a result but the records, which name absolute times."
    return {o.relative_to(out).as_posix(): o.read_bytes() for o in out.rglob("*") if o.is_file() and o.parent.name != "records"}


def alive(group):
    "The processes of a group that have not ended (Linux)."
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try: fields = path.read_text().rpartition(")")[2].split()
        except OSError: continue
        if int(fields[2]) == group and fields[0] != "Z": states.append(path.parent.name)
    return states


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    "The result of a run that nobody disturbed."
    out = tmp_path_factory.mktemp("extract") / "whole"
    module.extract(read_manifest(data), out, workers=0, **OPTIONS)
    return out


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes by /proc")
def test_a_killed_run_goes_on_and_ends_with_the_same_result(data, whole, tmp_path):
    out, script = tmp_path / "killed", tmp_path / "run.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(data), str(out)]
    process = subprocess.Popen(command, start_new_session=True, env=os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[1])})
    done = lambda: list((out / "records").glob("[!.]*.json"))
    stop = time.monotonic() + 120
    while len(done()) < 3 and process.poll() is None and time.monotonic() < stop: time.sleep(.002)
    os.kill(process.pid, signal.SIGKILL)  # the parent only, as the kernel does when memory runs out
    process.wait()
    stop = time.monotonic() + 20
    while alive(process.pid) and time.monotonic() < stop: time.sleep(.05)
    assert not alive(process.pid), "the workers outlive their parent"
    finished = {o: o.stat().st_mtime_ns for o in done()}
    assert 3 <= len(finished) < 18, "the kill was to hit the middle"
    assert not (out / "manifest.csv").exists()
    (out / "records" / ".12345678.json").write_text("{")  # what a kill leaves behind at worst
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[1])})
    assert contents(out) == contents(whole)
    assert {o: o.stat().st_mtime_ns for o in finished} == finished, "finished items were done again"
    assert not list(out.rglob(".*"))


def test_crops_without_a_record_are_made_again(data, whole, tmp_path):
    "A process killed between crops and record leaves a folder behind, perhaps with more crops than there should be."
    manifest = manifest_from_folder(data).query("path.str.endswith('0.png')")
    table = module.extract(manifest, tmp_path, workers=0, **OPTIONS)
    place = Path(table.path[0]).parent
    (place / "p9_999.jpg").write_bytes(b"left behind")
    next(o for o in (tmp_path / "records").iterdir() if json.loads(o.read_text())["path"] == table.source_path[0]).unlink()
    again = module.extract(manifest, tmp_path, workers=0, **OPTIONS)
    pd.testing.assert_frame_equal(again, table)
    assert [o.name for o in place.iterdir()] == ["p0_000.jpg"]


def deadly_work(job):
    "Stands for a decoder that crashes on one file."
    if job.path.endswith("3.png"): os._exit(1)
    return module._work(job)


def test_a_file_that_kills_its_process_is_named(data, tmp_path, monkeypatch):
    manifest = manifest_from_folder(data).query("path.str.contains('real/[0-6].png')")
    monkeypatch.setattr(module, "_work", deadly_work)
    table = module.extract(manifest, tmp_path, workers=2, **OPTIONS)
    failures = pd.read_csv(tmp_path / "failures.csv")
    assert [(Path(o.path).name, o.reason) for o in failures.itertuples()] == [("3.png", "CRASHED")]
    assert [Path(o).name for o in table.source_path] == [f"{i}.png" for i in range(7) if i != 3]


def test_failures_are_listed_with_reasons(whole):
    failures = pd.read_csv(whole / "failures.csv")
    assert dict(zip(failures.path.map(lambda o: Path(o).name), failures.reason)) == {"broken.mp4": "UNREADABLE", "wall.png": "NO_FACE"}
    assert "text, not a picture or video" in failures.detail[0] and failures.detail.str.len().min() > 20


def test_an_unguarded_script_gets_a_sentence(data, tmp_path):
    (tmp_path / "run.py").write_text(SCRIPT.replace('if __name__ == "__main__": ', ""))
    done = subprocess.run([sys.executable, str(tmp_path / "run.py"), str(data), str(tmp_path / "out")], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[1])}, timeout=120)
    assert done.returncode and "__main__" in done.stderr.strip().splitlines()[-1]
