"Extraction survives what happens to long runs: a kill in the middle, a decoder that takes its process down."
import json, os, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from deepfake_nb.data import extract as module
from deepfake_nb.core import DeepfakeError, ManifestError
from deepfake_nb.data.splits import manifest_from_folder, read_manifest
from deepfake_nb.data.folders import is_result
from deepfake_nb.see.media import read_image, write_video
from deepfake_nb.data.tables import unspell_name

OPTIONS = dict(size=64, frames=3, face_detector="haar", progress=False)
SCRIPT = """
import sys
from deepfake_nb.data.splits import read_manifest
from deepfake_nb.data.extract import extract
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
    assert [o.name for o in place.iterdir()] == ["p1_000.jpg"]


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


# ---- whose label it is

@pytest.fixture(scope="module")
def couple(tmp_path_factory):
    "A film of two people, as real and as forged; a mask and boxes that name the one on the right, who is smaller."
    from matplotlib.cbook import get_sample_data
    folder = tmp_path_factory.mktemp("couple")
    portrait = read_image(get_sample_data("grace_hopper.jpg", asfileobj=False)).frames[0][:440, 30:470]
    small = np.full_like(portrait, 128)
    small[60:390, 60:390] = np.asarray(Image.fromarray(portrait).resize((330, 330)))
    frames = [np.roll(np.hstack([portrait, small]), i, 0) for i in range(6)]
    for label in ("real", "fake"):
        (folder / label).mkdir()
        write_video(folder / label / "two.mp4", frames, 10)
    changed = np.zeros_like(frames[0])
    changed[:, 440:] = 255
    write_video(folder / "mask.mp4", [changed] * 6, 10)
    return folder


def cut(couple, out, lines, **more):
    "The crops of a table: which half of the picture they come from, and their labels."
    (couple / "table.csv").write_text(lines)
    table = module.extract(read_manifest(couple / "table.csv"), out, workers=0, **OPTIONS, **more)
    return sorted({("right" if o.source_x > 430 else "left", o.label) for o in table.itertuples()}), table


def test_people_in_a_forged_film_are_not_labelled_by_guess(couple, tmp_path):
    "The film is forged, one of two is untouched: the largest, who would have been taken."
    assert cut(couple, tmp_path / "real", "path,label\nreal/two.mp4,real\n", max_people=2)[0] == [("left", 0), ("right", 0)]
    with pytest.raises(DeepfakeError, match="2 people are seen, the label is the file's"):
        cut(couple, tmp_path / "fake", "path,label\nfake/two.mp4,fake\n")
    assert list(pd.read_csv(tmp_path / "fake" / "failures.csv").reason) == ["SEVERAL_PEOPLE"]
    assert cut(couple, tmp_path / "all", "path,label\nfake/two.mp4,fake\n", max_people=2, label_everybody=True)[0] == [("left", 1), ("right", 1)]


def test_a_mask_names_the_forged_person(couple, tmp_path):
    found, table = cut(couple, tmp_path / "mask", "path,label,mask\nfake/two.mp4,fake,mask.mp4\nreal/two.mp4,real,\n")
    assert found == [("left", 0), ("right", 1)]
    assert set(table.label[table["mask"] == ""]) == {0} and set(table.label[table["mask"] != ""]) == {1}  # nothing was changed in a real film


def test_a_mask_is_cut_out_with_the_face(couple, tmp_path):
    "Where the mask begins is where the right half of the film begins, in each crop."
    _, table = cut(couple, tmp_path / "mask", "path,label,mask\nfake/two.mp4,fake,mask.mp4\n", margin=2.)
    size = Image.open(table.path[0]).size
    for o in table.itertuples():
        mask = np.asarray(Image.open(o.mask))
        assert mask.shape == size[::-1] and mask.dtype == np.uint8
        side = 2.*max(o.source_w, o.source_h)
        begins = (440 - (o.source_x + o.source_w/2 - side/2))*size[0]/side  # of the right half, in pixels of the crop
        bright = np.nonzero(mask.max(0) > 128)[0]
        if 4 < begins < size[0]: assert abs(bright.min() - begins) <= 4
        else: assert bright.min() <= 8
        assert mask[:, int(max(begins, 0)) + 8:].min() > 128
    written = read_manifest(tmp_path / "mask")
    assert list(written["mask"]) == list(table["mask"])
    assert pd.read_csv(tmp_path / "mask" / "manifest.csv")["mask"].str.startswith("crops/").all()  # so that the folder can be moved
    before = {o: o.stat().st_mtime_ns for o in (tmp_path / "mask").rglob("*.mask.png")}
    next(iter(before)).write_bytes(b"")  # a mask that was lost is cut anew, with its film
    cut(couple, tmp_path / "mask", "path,label,mask\nfake/two.mp4,fake,mask.mp4\n", margin=2.)
    assert all(o.stat().st_size for o in before) and len(before) == len(table)


def test_boxes_name_people_one_by_one(couple, tmp_path):
    right, left = "590,110,160,160", "120,70,220,220"
    header = "path,label,face_x,face_y,face_w,face_h\n"
    assert cut(couple, tmp_path / "one", f"{header}fake/two.mp4,fake,{right}\n")[0] == [("right", 1)]
    both, table = cut(couple, tmp_path / "both", f"{header}fake/two.mp4,fake,{right}\nfake/two.mp4,real,{left}\n", max_people=2)
    assert both == [("left", 0), ("right", 1)]
    with pytest.raises(DeepfakeError, match="Neither box nor mask"): cut(couple, tmp_path / "none", f"{header}fake/two.mp4,fake,0,0,20,20\n")


# ---- what is there already

def one(data): return manifest_from_folder(data).query("path.str.endswith('real/0.png')")


@pytest.mark.parametrize("damage", [lambda o: o.write_bytes(o.read_bytes()[:len(o.read_bytes()) // 2]), lambda o: o.write_bytes(b""), Path.unlink,
                                    lambda o: o.write_bytes(bytes(len(o.read_bytes())))], ids=["half", "empty", "gone", "zeros"])
def test_a_damaged_crop_is_cut_anew(data, tmp_path, damage):
    crop = Path(module.extract(one(data), tmp_path, workers=0, **OPTIONS).path[0])
    good = crop.read_bytes()
    damage(crop)
    module.extract(one(data), tmp_path, workers=0, **OPTIONS)
    assert crop.read_bytes() == good


def test_another_content_under_the_same_name_is_cut_anew(tmp_path, data):
    "Also where size and time are those of the file before, as after a restored backup."
    source, other = tmp_path / "d" / "real" / "a.bmp", data / "train" / "real" / "6.png"
    source.parent.mkdir(parents=True)
    Image.open(data / "train" / "real" / "0.png").save(source)
    times = (source.stat().st_atime_ns, source.stat().st_mtime_ns)
    first = module.extract(manifest_from_folder(tmp_path / "d"), tmp_path / "out", workers=0, **OPTIONS)
    before = Path(first.path[0]).read_bytes()
    Image.open(other).save(source)
    os.utime(source, ns=times)
    module.extract(manifest_from_folder(tmp_path / "d"), tmp_path / "out", workers=0, **OPTIONS)
    assert Path(first.path[0]).read_bytes() != before


def test_crops_are_no_data(tmp_path, data):
    "Crops below the data are left out of the next run, also while the first is not finished; those of the folder itself are refused."
    source, out = tmp_path / "d" / "real" / "a.png", tmp_path / "d" / "real" / "faces"
    source.parent.mkdir(parents=True)
    source.write_bytes((data / "train" / "real" / "0.png").read_bytes())
    module.extract(read_manifest(tmp_path / "d"), out, workers=0, **OPTIONS)
    again = read_manifest(tmp_path / "d")
    assert [Path(o).name for o in again.path] == ["a.png"]
    assert "a folder with results of this library" in again.attrs["notes"][0]
    assert len(module.extract(again, out, workers=0, **OPTIONS)) == 1
    with pytest.raises(ManifestError, match="a crop of an earlier run"): module.extract(read_manifest(out), out, workers=0, **OPTIONS)


def test_a_run_that_was_stopped_has_marked_its_folder(tmp_path, data, monkeypatch):
    def stop(job): raise KeyboardInterrupt
    monkeypatch.setattr(module, "_work", stop)
    with pytest.raises(KeyboardInterrupt): module.extract(one(data), tmp_path / "out", workers=0, **OPTIONS)
    assert is_result(tmp_path / "out")


def test_a_crop_is_written_completely_or_not_at_all(tmp_path, data, monkeypatch):
    "A disk that takes half of what it is given and says nothing."
    whole = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: whole(self, data[:len(data) // 2]))
    with pytest.raises(DeepfakeError, match="p1_000.jpg: what was written is not what is there"): module.extract(one(data), tmp_path, workers=0, **OPTIONS)
    assert not list(tmp_path.rglob("*.jpg"))


# ---- names and processes

def test_names_that_are_no_text(tmp_path, data):
    place = tmp_path / "d" / "real"
    place.mkdir(parents=True)
    for name in (b"caf\xe9.png", "two\nlines.png".encode(), b"NA.png"):
        Path(os.fsdecode(os.fsencode(place) + b"/" + name)).write_bytes((data / "train" / "real" / "0.png").read_bytes())
    (place / os.fsdecode(b"empty\xff.jpg")).touch()
    table = module.extract(read_manifest(tmp_path / "d"), tmp_path / "out", workers=0, **OPTIONS)
    assert len(table) == 3
    written = read_manifest(tmp_path / "out")
    assert sorted(os.path.basename(unspell_name(o)) for o in written.source_path) == sorted(["NA.png", os.fsdecode(b"caf\xe9.png"), "two\nlines.png"])
    assert [Path(unspell_name(o)).is_file() for o in written.path] == [True] * 3
    assert list(pd.read_csv(tmp_path / "out" / "failures.csv").reason) == ["UNREADABLE"]


def test_workers_are_the_cores_that_may_be_used(tmp_path, data, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "available_cores", lambda: 1)
    monkeypatch.setattr(module, "_in_processes", lambda jobs, workers, arguments: asked.append(workers) or module._in_this_process(jobs, (arguments[0], "haar")))
    module.extract(manifest_from_folder(data).query("path.str.contains('real/[0-6].png')"), tmp_path, **OPTIONS)
    assert asked == [1]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot be told to leave out the current folder")
def test_children_do_not_run_code_of_the_current_folder(data, tmp_path):
    (tmp_path / "here").mkdir()
    for name in ("select", "struct", "random", "tempfile"): (tmp_path / "here" / f"{name}.py").write_text("import os; os.write(2, b'mine'); os._exit(3)")
    (tmp_path / "run.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(tmp_path / "run.py"), str(data), str(tmp_path / "out")], capture_output=True, text=True, cwd=tmp_path / "here",
                          env=os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[1])}, timeout=240)
    assert done.returncode == 0 and "mine" not in done.stderr, done.stderr[-500:]
    assert "PYTHONSAFEPATH" not in os.environ
