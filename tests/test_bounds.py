"Files that are read whole: a look at the file first, so that neither its size nor its kind can stop the reader; tables that no spreadsheet takes for formulas; what a weights file keeps."
import json, os, resource, subprocess, sys
from pathlib import Path
import pandas as pd
import pytest
from project import ROOT

torch = pytest.importorskip("torch", reason="torch is not installed")
from deepfake_nb.data.manifest import write_manifest
from deepfake_nb.data.splits import read_manifest
from deepfake_nb.model.scorer import create_scorer, load_scorer, save_scorer
from deepfake_nb.see.media import write_video


def sparse(path, start=b"", size=100 << 30):
    "A file of a hundred gigabytes that takes no room."
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)
    return path


READERS = """
import sys
from deepfake_nb.core import DeepfakeError
from deepfake_nb.model.scorer import load_scorer
from deepfake_nb.model.export import load_engine
from deepfake_nb.measure.calibrationfile import read_calibration
from deepfake_nb.tell.report import load_prediction
from deepfake_nb.tell.verify import read_record
from deepfake_nb.data.journal import read_lines
from deepfake_nb.data.lists import list_files
from deepfake_nb.learn.mining import read_failures
from deepfake_nb.see.detect import load_face_detector
from deepfake_nb.see.media import read_media
readers = (load_scorer, lambda o: load_scorer(o, arch="resnet18"), load_engine, read_calibration, load_prediction, read_record, read_lines, lambda o: list(list_files([o])), read_failures, load_face_detector, read_media)
for i, path in enumerate(sys.argv[1:]):
    try: print(path, "was read", readers[i % len(readers)](path))
    except DeepfakeError as e: print(e)
"""
NAMES = "a.safetensors b.pth c.onnx d.json e.json f.json g.jsonl h.json i.json j.onnx k.jpg".split()


STARTS = [b"", b"\x10\0\0\0\0\0\0\0{}", b"PK\3\4", b"\x80\2}", b"[1,\n", b"\xff\xd8\xff\xe0"]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    "What each reader says of each strange file, in one process that may not take much memory."
    folder, paths = tmp_path_factory.mktemp("strange"), []
    for i, start in enumerate(STARTS):
        (folder / f"large{i}").mkdir()
        paths += [sparse(folder / f"large{i}" / o, start) for o in NAMES]
    for kind in ("pipe", *["kernel"] * Path("/proc/kmsg").exists()):
        (folder / kind).mkdir()
        paths += [folder / kind / o for o in NAMES]
        for o in NAMES: os.mkfifo(folder / kind / o) if kind == "pipe" else (folder / kind / o).symlink_to("/proc/kmsg")
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
    done = subprocess.run([sys.executable, "-c", READERS, *paths], capture_output=True, text=True, timeout=500, preexec_fn=limit)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(paths), done.stdout[-1000:] + done.stderr[-2000:]
    return {f"{o.parent.name}/{o.name}": line for o, line in zip(paths, lines)}


def test_a_hundred_gigabytes_are_a_sentence(sentences):
    for place, line in sentences.items():
        if place.startswith("large"): assert place in line and "Accepted: " in line and "was read" not in line, line


def test_only_regular_files_are_read(sentences):
    for place, line in sentences.items():
        if place.startswith("pipe"): assert place in line and "not a regular file" in line, line


def test_files_of_the_kernel_are_not_waited_for(sentences):
    for place, line in sentences.items():
        if place.startswith("kernel") and "jsonl" not in place: assert place in line and ("an empty file" in line or "cannot be opened" in line), line


# ---- tables

FORMULAS = ["=1+1", "+49 170", "-x", "@SUM(A1)", " =HYPERLINK(\"x\")"]


def test_no_field_is_a_formula(tmp_path):
    for i in range(len(FORMULAS)): write_video(tmp_path / f"{i}.mp4", [__import__("numpy").zeros((32, 32, 3), "uint8")] * 2, fps=2)
    table = pd.DataFrame(dict(path=[str(tmp_path / f"{i}.mp4") for i in range(len(FORMULAS))], label=[0, 1, 0, 1, 0], split="train", group=[o.strip() for o in FORMULAS],
                              dataset="=d", method=["real", "@m", "real", "@m", "real"], note=["-1+1", "b", "c", "d", "e"], time=[-.5, 0., 1., 2., 3.]))
    path = write_manifest(table, tmp_path / "manifest.csv")
    import csv
    with path.open() as file: fields = [o for row in csv.reader(file) for o in row]
    assert not [o for o in fields if o.strip()[:1] in tuple("=+-@") and o != "-0.5"] and {"REAL", "FAKE"} <= set(fields)
    back = read_manifest(path)
    assert back.group.tolist() == table.group.tolist() and back.method.tolist() == table.method.tolist() and back.note.tolist() == table.note.tolist() and back.time.tolist() == table.time.tolist()


def test_failures_spell_labels_as_manifests_do(tmp_path):
    from deepfake_nb.data.extract import extract
    from PIL import Image
    Image.new("RGB", (64, 64)).save(tmp_path / "none.png")
    with Image.open(ROOT / "deepfake_nb" / "assets" / "app" / "sample_real.jpg") as image: image.save(tmp_path / "face.jpg")
    table = pd.DataFrame(dict(path=[str(tmp_path / "none.png"), str(tmp_path / "face.jpg")], label=[1, 0], split="train", group=["=1+1", "b"], dataset="d", method=["swap", "real"]))
    extract(table, tmp_path / "out", size=64, workers=0, face_detector="haar", progress=False)
    failures = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert failures.label.tolist() == ["FAKE"] and failures.group.tolist() == ["\\x3d1+1"]
    assert pd.read_csv(tmp_path / "out" / "manifest.csv").label.unique().tolist() == ["REAL"]


# ---- what a weights file keeps

def test_figures_leave_the_mask_head_where_it_is(tmp_path):
    from types import SimpleNamespace
    from deepfake_nb.judge.predict import Detector
    from deepfake_nb.measure.heldout import stamp_weights
    scorer = create_scorer("test_efficientnet", "mean", image_size=64, name="w")
    scorer.mask_head = {16: dict(weight=torch.ones(1, 8, 1, 1), bias=torch.zeros(1))}
    path = save_scorer(scorer, tmp_path / "w.safetensors")
    stamp_weights(path, SimpleNamespace(name="p", sha256="0" * 64))
    assert load_scorer(path, mask_head=True).mask_head[16]["weight"].sum() == 8
    again = save_scorer(Detector(path, "cpu", face_detector="haar").scorer, tmp_path / "again.safetensors")  # as calibrating does
    assert load_scorer(again, mask_head=True).mask_head[16]["weight"].sum() == 8


# ---- cores and memory of a container

def test_one_reading_of_cores_and_memory(monkeypatch):
    from deepfake_nb.learn import canvases, loaders
    monkeypatch.setattr(loaders, "available_cores", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert loaders._place(torch.device("cpu"), None)[1] == 1
    monkeypatch.setattr(canvases, "available_memory", lambda: 1000)
    assert canvases.spare_memory("cpu") == 1000.
