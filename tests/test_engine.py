"The app's engine among other processes, and after a thousand files: nothing it says depends on what came before, nothing stays."
import io, os, random, signal, subprocess, sys, time
from pathlib import Path
import pytest
from project import ROOT

for package in ("anywidget", "nbconvert", "torch"): pytest.importorskip(package, reason=f"{package} is not installed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="memory and processes are looked at as POSIX shows them")
PORTRAIT = ROOT / "deepfake_nb" / "assets" / "app" / "sample_real.jpg"
UPLOADS = int(os.environ.get("DEEPFAKE_NB_UPLOADS", 40))  # 1000 by hand: some minutes
WARM = min(100, UPLOADS // 2)  # uploads after which memory must be flat


def tiny_weights(folder):
    "A scorer whose verdicts mean nothing, and that is quick."
    import torch
    from deepfake_nb.model.scorer import create_scorer, save_scorer
    torch.manual_seed(0)
    save_scorer(create_scorer("test_efficientnet", "mean", image_size=64, name="random"), folder / "random.safetensors")
    return folder / "random.safetensors"


@pytest.fixture(scope="module")
def weights(tmp_path_factory): return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module", autouse=True)
def same_faces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFAKE_NB_FACE_DETECTOR", "haar")
        yield


@pytest.fixture(scope="session")
def cases(shared):
    "Films that once were judged by the memory of another one."
    folder = shared / "cases"
    if not (folder / "2_fakeil.mp4").is_file(): pytest.skip(f"no cases in {folder}")
    return folder


# ---- what came before

def told(engine, path):
    "What a visitor would read of a file."
    from deepfake_nb.serve.engine import EngineError
    try: seen = engine.examine(path, path.name)
    except EngineError as e: return str(e)
    o = seen.prediction
    return o.decision, o.probability, [(f.decision, [s.probability for s in f.timeline]) for f in o.faces], [p.sha256 for p in seen.pictures if p.name == "picture"]


def test_what_the_engine_says_does_not_depend_on_what_was_judged_before(cases):
    "A real film, the same flagged as interlaced, and one with a rare colour tag: in every order, from the first film on, the same words, figures and pictures."
    from deepfake_nb.serve.engine import Engine
    names = ("base_real.mp4", "2_fakeil.mp4", "base_forged.mp4", "2_fs_ictcp.mp4")
    engine, orders = Engine(device="cpu", frames=8), [names, names[::-1]]
    seen = {name: [] for name in names}
    for order in orders:
        for name in order: seen[name].append(told(engine, cases / name))
    for name, answers in seen.items(): assert answers[0] == answers[1], name
    decision = lambda name: seen[name][0][0]
    assert "FAKE" not in (decision("base_real.mp4"), decision("2_fakeil.mp4"))  # the same film, and a flag is no forgery
    assert decision("2_fs_ictcp.mp4") != "REAL"


# ---- a process of its own

def alive(pid):
    try: os.kill(pid, 0)
    except ProcessLookupError: return False
    return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes() if Path(f"/proc/{pid}/stat").exists() else True


def until(what, seconds=120):
    "Waits for something that must come; how long it takes does not matter."
    end = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(.1)
    return result


@pytest.fixture(scope="module")
def kept(weights, tmp_path_factory):
    "An engine in a process of its own, started in a folder of strangers' modules, with a long path for temporary files."
    from deepfake_nb.serve.server import EngineProcess, engine_address
    downloads, place = tmp_path_factory.mktemp("downloads"), tmp_path_factory.mktemp("a long name for temporary files " * 4)
    for name in ("random", "queue", "token", "types", "secrets", "select", "struct"): (downloads / f"{name}.py").write_text("raise SystemExit('a stranger module ran')")
    with pytest.MonkeyPatch.context() as patch, engine_address(place) as address:
        patch.chdir(downloads)
        engine = EngineProcess(place, address, [weights], "cpu")
        try:
            until(lambda: engine._ready.exists() or engine.failed.is_set())
            yield engine
        finally: engine.close()
    assert not Path(address).exists() and not list(place.glob("[!r]*")), list(place.iterdir())


def remote(kept):
    from deepfake_nb.serve.engine import RemoteEngine
    key, address = kept.environment["DEEPFAKE_NB_ENGINE"].split(" ", 1)
    return RemoteEngine(address, bytes.fromhex(key))


def test_an_engine_with_a_long_path_among_foreign_modules(kept):
    assert kept.starts == 1 and not kept.failed.is_set()
    assert remote(kept).examine(PORTRAIT, "a.jpg").prediction.kind == "image"


def test_an_engine_that_falls_over_is_started_again(kept):
    first = kept._process.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: kept.starts == 2 and kept._ready.exists())
    assert remote(kept).examine(PORTRAIT, "a.jpg").prediction.kind == "image" and not kept.failed.is_set()


def test_a_server_that_cannot_work_ends_in_a_sentence_before_it_serves(weights, tmp_path):
    "A device that is not there, weights that are none: exit code 2, and no port was opened."
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    for arguments, sentence in ((["--device", "abacus"], "device 'abacus' cannot be used. Accepted here: cpu"), (["--weights", str(tmp_path / "bad.safetensors")], "bad.safetensors")):
        script = "from deepfake_nb.cli import deepfake_app; import sys; sys.exit(deepfake_app())"
        (tmp_path / "deepfake-app").write_text(script)
        done = subprocess.run([sys.executable, str(tmp_path / "deepfake-app"), "--port", "0", "--no-browser", *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_press_ends_with_its_process(tmp_path):
    "A browser that was kept open for the next report does not outlive whoever kept it, however that ended."
    from deepfake_nb.tell.page import find_browser
    if find_browser() is None: pytest.skip("no Chromium: apt-get install chromium")
    code = f"""if 1:
        from deepfake_nb.tell.page import _pool, to_pdf
        to_pdf("<h1>A page</h1>", {str(tmp_path / "a.pdf")!r})
        print(_pool.press._process.pid, flush=True)
        input()"""
    keeper = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    browser = int(keeper.stdout.readline())
    assert alive(browser)
    keeper.kill()
    keeper.communicate()
    until(lambda: not alive(browser))


# ---- a thousand files

def bring(folder, number):
    "Small files of many kinds, one in three of them bad; the same number gives the same file."
    import numpy as np
    from PIL import Image
    from deepfake_nb.see.media import write_video
    chance, path = random.Random(number), folder / "made"
    with Image.open(PORTRAIT) as image: picture = image.convert("RGB").resize((200 + 8 * chance.randrange(12), 240))
    kind = ("jpg", "png", "webp", "gif", "tiff", "bmp", "mp4", "broken", "text", "empty", "cut film", "no face")[number % 12]
    if kind in ("mp4", "cut film"):
        write_video(folder / "made.mp4", [np.roll(np.array(picture), 3 * i, axis=1) for i in range(6)], fps=4)
        data = (folder / "made.mp4").read_bytes()
        return ("film.mp4", data) if kind == "mp4" else ("cut.mp4", data[:chance.randrange(len(data) * 9 // 10)])
    if kind == "text": return "letter.jpg", b"Dear Sir or Madam, " * chance.randrange(1, 500)
    if kind == "empty": return "empty.png", b""
    if kind == "no face": picture = Image.new("RGB", (120, 90), (chance.randrange(256), 90, 60))
    picture.save(buffer := io.BytesIO(), dict(jpg="JPEG", broken="JPEG").get(kind, "PNG" if kind == "no face" else kind.upper()))
    data = buffer.getvalue()
    return f"picture.{kind.split()[0]}", data[:chance.randrange(20, len(data))] if kind == "broken" else data


def megabytes(pid):
    "Resident memory of a process."
    import psutil
    return psutil.Process(pid).memory_info().rss / 1e6


def everything(*folders): return sorted(str(o) for folder in folders for o in Path(folder).rglob("*"))


def test_uploads_leave_nothing_behind(kept, tmp_path, monkeypatch):
    "Pictures, films and bad files through upload, engine and reports, as the page does it: memory and disk are flat."
    pytest.importorskip("psutil", reason="psutil is not installed")
    from deepfake_nb.serve.app import DetectorApp
    from deepfake_nb.tell.page import find_browser
    (place := tmp_path / "visitors").mkdir()
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setenv("DEEPFAKE_NB_APP_FOLDER", str(place))
    until(lambda: kept._ready.exists())
    app, rows, verdicts, started = DetectorApp(remote(kept), max_megabytes=1, background=False), [], {}, kept.starts
    app.engine.print_page = lambda page, really=app.engine.print_page: really(page) if number % 25 == 0 else b"%PDF-"  # a PDF takes a second: now and then is enough
    say = lambda kind, data=None, **more: app.upload._message(None, dict(kind=kind, upload=1, **more), [data] if data else [])
    left = lambda: [o for o in everything(place) if not Path(o).name.startswith(".")]
    for number in range(UPLOADS):
        name, data = bring(scratch, number)
        say("start", name=name, size=len(data))
        for start in range(0, len(data), 50_000): say("piece", data[start:start + 50_000], **{"from": start})
        assert len(left()) == (3 if app.file else 1), (number, name, left())  # the visitor's folder, and the one file that is there
        if app.file:
            app.detect()
            assert app.result and (number % 25 or not find_browser() or "application/pdf" in app.downloads.value), (number, name, app.status.text)
        outcome = app.result.prediction.decision if app.result else "refused"
        verdicts[outcome] = verdicts.get(outcome, 0) + 1
        assert app.status.text and "unexpected" not in app.status.text, (number, name, app.status.text)
        if number % 3 == 0: app.remove()
        if number + 1 in (WARM, UPLOADS) or (number + 1) % 100 == 0:
            rows.append((number + 1, megabytes(kept._process.pid), megabytes(os.getpid()), len(everything(kept._ready.parent))))
            print("after {} uploads: engine {:.0f} MB, page {:.0f} MB, {} files of the engine".format(*rows[-1]), flush=True)
    app.remove()
    assert len(left()) == 1
    app.close_session()
    assert not app.folder.exists() and kept.starts == started
    print(verdicts)
    assert verdicts["refused"] >= UPLOADS // 6 and sum(verdicts.values()) == UPLOADS
    first, last = next(o for o in rows if o[0] == WARM), rows[-1]
    assert last[1] - first[1] < 80 and last[2] - first[2] < 80 and last[3] - first[3] <= 2, rows  # megabytes; files
