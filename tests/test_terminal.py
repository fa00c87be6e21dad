"deepfake-predict at a terminal and behind a pipe: a table for people, JSON for programs, folders and patterns, Ctrl-C, and what is wrong told before anything is loaded."
import io, json, os, subprocess, sys, types
from pathlib import Path
import pytest
from PIL import Image
from deepfake_nb import shell
from deepfake_nb.core import FaceVerdict, Prediction, Unreadable
from deepfake_nb.shell import run_command
from deepfake_nb.terminal import text_width

HOSTILE = "bad\x1b[2J\u202egpj.png"


class Terminal(io.StringIO):
    "In place of standard output."
    def isatty(self): return True


class Judge:
    "In place of a detector."
    standing = "Faces were found by the second best of three methods."
    def standing_notes(self): return [self.standing]
    def predict_each(self, paths, progress=True):
        for path in map(str, paths):
            if "stop" in path: raise KeyboardInterrupt
            if "letter" in path: yield Unreadable(path, f"{path}: text, not a picture or video. Accepted: images and videos."); continue
            faces = [FaceVerdict(i, "FAKE" if i == 2 else "REAL", .5, (0, 0, 9, 9)) for i in (1, 2)]
            yield Prediction(path, "FAKE", .994, faces=faces, threshold=.98, notes=[self.standing, "39 of 300 frames were looked at."])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "Files to name, and a judge that needs no network."
    for name in ("a.jpg", "long/" + "very_" * 20 + "long.mp4", "long/顔写真.png", HOSTILE, ".hidden.jpg"):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_bytes(b"x")
    (tmp_path/"notes.txt").write_text("Dear Sir or Madam")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deepfake_nb.cli.make_detector", lambda *_, **__: Judge())
    return tmp_path


def at_terminal(monkeypatch, *arguments, width=80):
    "As `run_command`, with standard output at a terminal."
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setattr(shell, "io", types.SimpleNamespace(StringIO=Terminal))
        return run_command("deepfake_predict", *arguments)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_a_line_for_each_file_that_fits(folder, monkeypatch, width):
    code, out, error = at_terminal(monkeypatch, ".", "letter.mp4", "gone.jpg", width=width)
    lines = out.splitlines()
    assert code == 1 and lines[0].split() == ["FILE", "VERDICT", "SCORE", "FOUND"] and len(lines) == 1 + 6 + 2
    assert all(text_width(o) <= width for o in [*lines, *(o for o in error.splitlines()[3:] if "very_" not in o)])  # there names are whole
    at = lines[0].index("VERDICT")
    for line in lines[1:7]:  # columns stand below each other, however wide the letters are
        name = next(line[:i] for i in range(len(line)) if text_width(line[:i]) == at)
        assert line.removeprefix(name).split()[0] in ("FAKE", "not"), line
    assert "\x1b" not in out + error and "\u202e" not in out + error and r"\x1b[2J\u202e" in error
    assert sum("2 faces, FAKE: person 2" in o for o in lines) == 4 and sum("over 99%" in o for o in lines) == 4
    assert lines[-2:] == ["6 files: 4 FAKE, 2 not read.", "SCORE: probability of a forgery; FAKE from 98% on."]
    assert error.count(Judge.standing) == 1 and error.count("39 of 300 frames") == 1 and error.count("gone.jpg") == 1


def test_a_pipe_gets_the_json_of_ever(folder):
    "To the byte: an object for one file, an array for several, in the order that was asked for."
    one = [o.to_dict() for o in Judge().predict_each(["a.jpg"])]
    code, out, error = run_command("deepfake_predict", "a.jpg")
    assert (code, out) == (0, json.dumps(one[0], indent=2) + "\n") and error.splitlines()[0].startswith("[1/1] a.jpg: FAKE")
    missing = dict(path="gone.jpg", decision=None, probability=None, heatmap=None, error=gone("gone.jpg"))
    code, out, error = run_command("deepfake_predict", "gone.jpg", "a.jpg")
    assert (code, out) == (1, f"[\n{json.dumps(missing, indent=2)}\n,{json.dumps(one[0], indent=2)}\n]\n")
    assert error.splitlines()[0] == missing["error"] and error.count("gone.jpg") == 1


def gone(path):
    "What the reader says of a file that is not there."
    from deepfake_nb.core import MediaError
    from deepfake_nb.see.files import sniff_format
    with pytest.raises(MediaError) as raised: sniff_format(path)
    return str(raised.value)


def test_json_is_asked_for_on_a_terminal_as_well(folder, monkeypatch):
    names = ("a.jpg", HOSTILE)
    assert at_terminal(monkeypatch, *names, "--json")[1] == run_command("deepfake_predict", *names)[1]
    lines = at_terminal(monkeypatch, *names, "--jsonl")[1].splitlines()
    assert [json.loads(o) for o in lines] == json.loads(run_command("deepfake_predict", *names)[1])
    code, out, error = run_command("deepfake_predict", "a.jpg", "--json", "--jsonl")
    assert (code, out) == (2, "") and "Accepted: one of them" in error


def test_lines_come_as_each_file_is_done(folder, monkeypatch):
    seen, out = [], Terminal()
    class Slow(Judge):
        def predict_each(self, paths, progress=True):
            for path in paths:
                seen.append(out.getvalue().count("\n"))
                yield from super().predict_each([path])
    monkeypatch.setattr(sys, "stdout", out)
    from deepfake_nb.cli import judge_files
    judge_files(Slow(), ["a.jpg"] * 3, form="jsonl")
    assert seen == [0, 1, 2] and out.getvalue().count("\n") == 3
    del seen[:]
    judge_files(Slow(), ["a.jpg"] * 3, form="table", quiet=True)
    assert seen == [4, 5, 6]  # the head, and a line for each


def test_quiet_tells_errors_only(folder, monkeypatch):
    for run in (lambda *a: run_command("deepfake_predict", *a), lambda *a: at_terminal(monkeypatch, *a)):
        assert run(".", "--quiet")[2] == ""
        code, _, error = run("a.jpg", "gone.jpg", "--quiet")
        assert code == 1 and error == gone("gone.jpg") + "\n"
    Path("letter.mp4").touch()
    assert run_command("deepfake_predict", "letter.mp4", "a.jpg", "--quiet")[2].startswith("[1/2] letter.mp4: text")


def test_folders_and_patterns_are_taken_and_what_is_left_out_is_counted(folder):
    code, out, error = run_command("deepfake_predict", str(folder))
    assert code == 0 and [Path(o["path"]).name for o in json.loads(out)] == ["a.jpg", HOSTILE, "very_" * 20 + "long.mp4", "顔写真.png"]
    assert "1 left out (hidden)" in error and "1 left out (not an image or video), for instance" in error and "notes.txt" in error
    one = json.loads(run_command("deepfake_predict", "long/*.mp4")[1])
    assert [o["path"] for o in one] == ["long/" + "very_" * 20 + "long.mp4"]  # an array, however many fit
    assert len(json.loads(run_command("deepfake_predict", "**/*.*")[1])) == 4
    (folder/"none").mkdir()
    for wrong, said in (("none", "none: a folder without an image or a video"), ("*.mov", "fits this pattern")):
        code, out, error = run_command("deepfake_predict", wrong)
        assert code == 1 and said in error and "Accepted: images" in json.loads(out)[0]["error"]


def test_a_folder_of_many_names_the_command_for_many(folder, monkeypatch):
    monkeypatch.setattr("deepfake_nb.cli.MANY", 4)
    assert "4 files: deepfake-scan" in run_command("deepfake_predict", ".")[2]
    assert "deepfake-scan" not in run_command("deepfake_predict", "long")[2]


def test_a_report_is_named_uncut(folder, monkeypatch):
    from deepfake_nb.shell import result_folder
    monkeypatch.setattr("deepfake_nb.judge.explain.explain", lambda *_: None)
    monkeypatch.setattr("deepfake_nb.cli.write_report", lambda prediction, explanation, folder, weights: [f"report: {folder}/report.html", "No PDF: no fonts."])
    path = f"evidence/{result_folder('a.jpg')}/report.html"
    narrow, wide = (at_terminal(monkeypatch, "a.jpg", "--out", "evidence", "--report", width=o) for o in (70, 100))
    assert f"  report: {path}" in narrow[1].splitlines() and "No PDF: no fonts." in narrow[2]
    assert wide[1].splitlines()[0].endswith("REPORT") and wide[1].splitlines()[1].endswith(path)


@pytest.mark.parametrize("form", ["--json", "--jsonl", "table"])
def test_ctrl_c_ends_with_what_is_done(folder, monkeypatch, form):
    names = "a.jpg", "a.jpg", "stop.jpg", "a.jpg"
    Path("stop.jpg").touch()
    code, out, error = at_terminal(monkeypatch, *names, *([] if form == "table" else [form]))
    assert code == 130 and error.splitlines()[-1] == "deepfake-predict: error: stopped by Ctrl-C when 2 of 4 files were done; what they gave is above"
    if form == "table": assert out.splitlines()[-2] == "2 files: 2 FAKE." and len(out.splitlines()) == 5
    else: assert len(json.loads(out) if form == "--json" else out.splitlines()) == 2


SCRIPT = """import sys
from deepfake_nb.cli import deepfake_predict
if __name__ == '__main__':
    code = deepfake_predict()
    import resource
    used = resource.getrusage(resource.RUSAGE_SELF)
    loaded = [o for o in ('torch', 'cv2', 'numpy', 'av', 'PIL') if o in sys.modules]
    print(code, used.ru_utime + used.ru_stime, *loaded, file=sys.stderr)
"""


def test_a_missing_file_is_told_before_anything_is_loaded(tmp_path):
    "In processor time, which a busy machine does not stretch."
    (tmp_path/"deepfake-predict").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "deepfake-predict", "gone.jpg"], cwd=tmp_path, capture_output=True, text=True)
    *told, (code, seconds, *loaded) = [o.split() for o in done.stderr.splitlines()]
    assert (code, loaded) == ("1", []) and float(seconds) < .5 and " ".join(told[0]) == gone("gone.jpg"), done.stderr
    assert json.loads(done.stdout)["error"] == gone("gone.jpg")


def test_a_real_terminal_gets_the_table(tmp_path):
    pty = pytest.importorskip("pty", reason="no terminals of this kind here")
    (tmp_path/"deepfake-predict").write_text(SCRIPT)
    ours, theirs = pty.openpty()
    done = subprocess.Popen([sys.executable, "deepfake-predict", "gone.jpg"], cwd=tmp_path, stdout=theirs, stderr=subprocess.DEVNULL, env=os.environ | dict(COLUMNS="60"))
    os.close(theirs)
    shown = b""
    while b"not read." not in shown: shown += os.read(ours, 4096)
    os.close(ours)
    done.wait(10)
    assert shown.decode().splitlines()[:3] == ["FILE      VERDICT       SCORE     FOUND", "gone.jpg  not read      -         there is no such file", "1 file: 1 not read."]


COMMANDS = ["deepfake_" + o for o in "doctor predict extract train evaluate calibrate finetune report app api export scan stream".split()]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_is_meant_and_not_its_type(command):
    code, out, _ = run_command(command, "--help")
    assert code == 0 and not [o for o in ("(int)", "(str)", "(float)", "(default: False)", "(default: '')") if o in out]
    for option, word in (("--weights", "FILE"), ("--seconds", "SECONDS"), ("--frames", "N"), ("--threshold", "P"), ("--port", "N")):
        if f"[{option} " in out: assert f"[{option} {word}]" in out, (option, word)
    assert "--version" in out


def test_options_of_a_training_are_in_groups():
    from deepfake_nb.learn.settings import TRAINING_GROUPS
    out = run_command("deepfake_train", "--help")[1].split("\noptions:\n")[1]
    for title, names in TRAINING_GROUPS.items():
        listed = out.split(f"\n{title}:\n")[1].split("\n\n")[0]
        own = {line.split()[0] for line in listed.splitlines() if line.startswith("  --")}
        assert own == {"--" + o.replace("_", "-") for o in names} - {"--inside", "--whole"}
    assert [o.split()[0] for o in out.split("\n\n")[0].splitlines()] == ["-h,", "--version"]


def test_one_name_for_all_commands(folder):
    verb = lambda *arguments: run_command("deepfake", *arguments, module="deepfake_nb.verbs")
    code, out, error = verb()
    lines = {o.split()[0]: o for o in out.splitlines() if o.startswith("  ")}
    assert (code, error) == (0, "") and {"deepfake_" + o for o in lines} == set(COMMANDS) and all(len(o) <= 110 and o.endswith(".") for o in lines.values())
    assert verb("predict", "a.jpg", "gone.jpg") == run_command("deepfake_predict", "a.jpg", "gone.jpg")
    assert verb("predict", "--help")[1].startswith("usage: deepfake predict [-h]") and "deepfake predict --help lists" in verb("predict", "--colour", "red")[2]
    assert verb("trian")[::2] == (2, "deepfake: error: no such verb: trian. Accepted: train, or what deepfake alone lists.\n")
    assert verb("--version")[1] == run_command("deepfake_predict", "--version")[1].replace("deepfake-predict", "deepfake")


@pytest.mark.parametrize("command", ["deepfake_extract gone.csv faces", "deepfake_train gone.csv", "deepfake_evaluate gone.csv", "deepfake_calibrate gone.csv", "deepfake_report gone.csv",
                                     "deepfake_finetune w.safetensors --pool gone.csv --replay a --val b --test c", "deepfake_predict a.jpg --weights gone.csv", "deepfake_evaluate a --weights gone.csv", "deepfake_calibrate a --weights gone.csv", "deepfake_train a --weights gone.csv"])
def test_what_is_not_there_is_told_before_anything_is_loaded(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"): (tmp_path/name).mkdir()
    for name in ("a.jpg", "w.safetensors"): (tmp_path/name).touch()
    for name in "judge.predict learn.bound learn.finetune tell.report measure.recalibrate data.extract".split(): monkeypatch.setitem(sys.modules, f"deepfake_nb.{name}", None)
    code, out, error = run_command(*command.split())
    assert code in (1, 2) and out == "" and len(error.splitlines()) == 1 and "gone.csv: there is no such file" in error and "Accepted: " in error, error


def test_ctrl_c_waits_for_no_thread(monkeypatch):
    "A film that another thread is in is given up; where there is none, the process ends as ever."
    import threading
    ended, go_on = [], threading.Event()
    monkeypatch.setattr(shell.os, "_exit", ended.append)
    monkeypatch.setattr(shell.atexit, "_run_exitfuncs", lambda: ended.append("cleaned"))
    monkeypatch.setattr(sys, "argv", ["deepfake-try"])
    def deepfake_try(): raise KeyboardInterrupt
    run = shell.call_parse(shell.command(deepfake_try))
    others = [o for o in threading.enumerate() if not o.daemon and o is not threading.main_thread()]
    assert run.from_shell() == 130 and (others or ended == [])
    del ended[:]
    threading.Thread(target=go_on.wait).start()
    try: assert run.from_shell() == 130 and ended == ["cleaned", 130]
    finally: go_on.set()
