"The HTTP API as other programs meet it: a real server and its engine, files in and verdicts out, whatever happens in between."
import io, json, os, re, shlex, signal, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
import pytest
from project import ROOT
from test_engine import PORTRAIT, alive, same_faces, tiny_weights, until, weights  # noqa: F401

for package in ("fastapi", "uvicorn", "python_multipart", "psutil", "nbconvert", "torch"): pytest.importorskip(package, reason=f"{package} is not installed: pip install 'deepfake_nb[api,dev]'")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are stopped and ended as POSIX does it")
KEY, PATIENCE = "the-key-of-this-test", 400  # seconds for whatever must come: a busy machine is slow, not wrong


@contextmanager
def serving(folder, weights, *arguments, **environment):
    "A server as pip's script starts it, with a folder of its own for temporary files."
    (scratch := folder / "scratch").mkdir()
    (script := folder / "deepfake-api").write_text("import sys\nfrom deepfake_nb.service import deepfake_api\nsys.exit(deepfake_api())\n")
    command = [sys.executable, str(script), "--port", "0", "--weights", str(weights), "--device", "cpu", *arguments]
    with open(folder / "log", "wb") as log: process = subprocess.Popen(command, cwd=folder, env=os.environ | dict(TMPDIR=str(scratch)) | environment, stderr=log, stdout=log)
    said = lambda: (folder / "log").read_text()
    try:
        url = until(lambda: re.search(r"http://[^/\s]+", said()) or process.poll() is not None, PATIENCE)
        assert process.poll() is None, said()
        yield dict(url=url[0], process=process, said=said, scratch=scratch, command=command)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(weights, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server"), weights, "--max-megabytes", "1", "--queue", "4") as served: yield served


@pytest.fixture(scope="module")
def strict(weights, tmp_path_factory, server):
    "A server with a key, whose patience with files is short; started with the other one, as engines take their time."
    with serving(tmp_path_factory.mktemp("strict"), weights, "--seconds", ".01", DEEPFAKE_NB_API_KEY=KEY) as served: yield served


@pytest.fixture
def client(server, strict):
    from deepfake_nb.serve.client import Client
    client = Client(server["url"], timeout=PATIENCE, patience=PATIENCE)
    until(lambda: is_ready(client), PATIENCE)
    return client


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    import numpy as np
    from PIL import Image
    from deepfake_nb.see.media import write_video
    with Image.open(PORTRAIT) as image: still = np.array(image.convert("RGB"))
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, [np.roll(still, 4 * i, axis=1) for i in range(6)], fps=4)
    return path


def is_ready(client):
    from deepfake_nb.serve.client import ApiError
    try: return client.ready()
    except ApiError as e: assert e.status == 503, e


def engine_of(server):
    "The process that judges."
    import psutil
    def command(process):
        try: return " ".join(process.cmdline())
        except psutil.Error: return ""  # it has just ended
    return next((o for o in psutil.Process(server["process"].pid).children() if "run_engine" in command(o)), None)


def uploads(server): return [o for o in server["scratch"].glob("deepfake-api-*/uploads/**/*") if o.is_file()]


def refused(ask, *arguments, **settings):
    "Status and sentence of a refusal."
    from deepfake_nb.serve.client import ApiError
    with pytest.raises(ApiError) as e: ask(*arguments, **settings)
    return e.value.status, str(e.value)


# ---- a file and its verdict

def test_a_picture_becomes_the_verdict_that_the_library_gives(server, client, weights, tmp_path):
    from PIL import Image
    from deepfake_nb.core import sha256_file
    from deepfake_nb.judge.predict import Detector
    from deepfake_nb.tell.page import find_browser
    from deepfake_nb.tell.verify import verify_report
    here, job = Detector(weights, "cpu").predict(PORTRAIT), client.predict(PORTRAIT)
    assert not uploads(server)  # judged, and gone
    assert (job.name, job.prediction.path, job.prediction.decision) == (PORTRAIT.name, PORTRAIT.name, here.decision)
    assert job.prediction.probability == pytest.approx(here.probability, abs=1e-5) and job.prediction.sha256 == sha256_file(PORTRAIT)
    assert set(job.prediction.to_dict()) == set(here.to_dict())  # the record of deepfake-predict --json
    files = client.report(job, tmp_path)
    assert {"html", "json", "heatmap"} <= set(files) and ("pdf" in files or not find_browser())
    with Image.open(files["heatmap"]) as image: assert image.format == "JPEG"
    assert (result := verify_report(files["json"], PORTRAIT)).ok and {"report.html"} <= {o.what for o in result.checks}, result
    client.cancel(job)
    assert refused(client.job, job.id)[0] == 404 and refused(client.report, job, tmp_path, "html")[0] == 404


def test_a_film_is_a_job_that_says_how_far_it_is(client, film):
    job = client.submit(film, report=False)
    assert job.state in ("queued", "running") and 0 <= job.share <= 1 and job.text and job.prediction is None
    job = client.wait(job)
    assert job.prediction.kind == "video" and job.share == 1 and set(job.links) == {"self"}
    assert refused(client.report, job, "nowhere", "html") == (409, "film.mp4 was judged without a report, as was asked. Accepted: to send it with report=true.")


def test_who_asks_in_between_gets_a_sentence(server, client, film):
    engine = engine_of(server)
    engine.suspend()
    try:
        job = client.submit(film)
        assert refused(client.report, job, "nowhere", "html") == (409, "film.mp4 is still being looked at. Accepted: to ask again when its state is succeeded.")
    finally: engine.resume()
    assert client.wait(job).prediction


# ---- files and requests that are not accepted

def test_what_cannot_be_judged_is_told_and_not_kept(server, client, tmp_path):
    (tmp_path / "letter.jpg").write_text("Dear Sir or Madam")
    (tmp_path / "large.mp4").write_bytes(bytes(1_000_001))
    (tmp_path / "huge.mp4").write_bytes(bytes(30_000_000))  # refused before its end, and the sentence arrives all the same
    (tmp_path / "empty.png").write_bytes(b"")
    status, sentence = refused(client.predict, tmp_path / "letter.jpg")
    assert status == 422 and sentence.startswith("letter.jpg: text, not a picture or video. Accepted: ")
    for name in ("large.mp4", "huge.mp4"): assert refused(client.predict, tmp_path / name) == (413, f"{name}: this file is too large. Accepted: at most 1 MB.")
    assert refused(client.predict, tmp_path / "empty.png")[0] == 422
    assert refused(client.predict, PORTRAIT, weights="other") == (422, "There are no weights 'other'. Accepted: random.")
    assert refused(client.predict, PORTRAIT, threshold=2)[0] == 422
    assert not uploads(server) and client.ready()["in_line"] == 0


def test_names_of_files_are_harmless_in_reports(client, tmp_path):
    (tmp_path / "<img src=x onerror=alert(1)>.jpg").write_bytes(PORTRAIT.read_bytes())
    job = client.predict(tmp_path / "<img src=x onerror=alert(1)>.jpg")
    page = client.report(job, tmp_path, "html")["html"].read_text()
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;.jpg" in page


def test_weights_are_listed(client, weights):
    from deepfake_nb.core import sha256_file
    assert client.weights() == [dict(name="random", threshold=.5, sha256=sha256_file(weights), default=True)]


# ---- an engine that falls over

def test_a_full_line_refuses_and_a_killed_engine_loses_nothing(server, client):
    "With the engine held, one file is in hand and four wait: the sixth is refused. Then the engine is killed, and all five get their verdicts."
    from deepfake_nb.serve.client import ApiError, Client
    engine = engine_of(server)
    engine.suspend()
    jobs = [client.submit(PORTRAIT, report=False)]
    until(lambda: client.job(jobs[0].id).state == "running")
    jobs += [client.submit(PORTRAIT, report=False) for _ in range(4)]
    with pytest.raises(ApiError) as e: Client(server["url"], patience=0).submit(PORTRAIT)
    assert e.value.status == 429 and e.value.retry_after >= 1 and str(e.value).startswith("4 files are in line, and no more are taken. Accepted: to try again in ")
    assert len(uploads(server)) == 5
    client.cancel(jobs[4])
    assert refused(client.job, jobs[4].id)[0] == 404 and len(uploads(server)) == 4  # a place is free again
    jobs[4] = client.submit(PORTRAIT, report=False)
    engine.kill()
    with ThreadPoolExecutor(5) as threads: verdicts = list(threads.map(lambda o: client.wait(o).prediction, jobs))
    assert len({o.probability for o in verdicts}) == 1 and {o.path for o in verdicts} == {PORTRAIT.name}
    assert engine_of(server).pid != engine.pid and not uploads(server)


# ---- a key, and a time limit

def test_only_who_has_the_key_is_heard(strict):
    import psutil
    from deepfake_nb.serve.client import Client
    asks = lambda key: Client(strict["url"], key=key, patience=0)
    for key, word in (("", "No"), ("wrong", "A wrong"), (KEY + "x", "A wrong")):
        for ask in (lambda o: o.weights(), lambda o: o.submit(PORTRAIT), lambda o: o.job("a")):
            assert refused(ask, asks(key)) == (401, f"{word} key was shown. Accepted: Authorization: Bearer, with the key of this service.")
    assert asks(KEY).weights()[0]["name"] == "random" and refused(asks(KEY).job, "a")[0] == 404
    assert b'"ok"' in asks("")._ask("GET", "/v1/health")
    engine = until(lambda: engine_of(strict))
    assert KEY not in engine.environ().values() and KEY not in " ".join(engine.cmdline() + psutil.Process(strict["process"].pid).cmdline()) and KEY not in strict["said"]()


def test_a_file_that_takes_too_long_ends_and_so_does_a_server_that_is_killed(strict, server):
    "A time limit that no file can keep; then the server is killed, and leaves nothing that the next one does not sweep up."
    from deepfake_nb.serve.client import Client
    from deepfake_nb.serve.owned import sweep
    client = Client(strict["url"], key=KEY, timeout=PATIENCE)
    engine = until(lambda: is_ready(client) and engine_of(strict), PATIENCE)
    job = client.submit(PORTRAIT)
    assert refused(client.wait, job) == (422, f"{PORTRAIT.name}: not examined within 0.01 seconds. Accepted: a shorter or smaller file.")
    assert not uploads(strict)
    until(lambda: not alive(engine.pid))
    engine = until(lambda: engine_of(strict))
    strict["process"].kill()
    strict["process"].wait()
    until(lambda: not alive(engine.pid))
    folders = list(strict["scratch"].glob("deepfake-api-*"))
    sweep("dn-", "/tmp")  # of its socket
    assert len(folders) == 1 and sweep("deepfake-api-", strict["scratch"]) == folders and not list(strict["scratch"].iterdir())


# ---- the description

@pytest.fixture
def described():
    "The API with an engine that judges at once whatever it is given."
    import tempfile, uvicorn
    from types import SimpleNamespace
    from deepfake_nb.core import Prediction
    from deepfake_nb.serve.api import Limits, Service, Weights, create_api
    from deepfake_nb.serve.engine import Examination
    from deepfake_nb.serve.jobs import Jobs
    from deepfake_nb.tell.page import Picture
    def examine(file, name, say, weights, threshold, evidence):
        return Examination(Prediction(name, "REAL", .25), *(([Picture("heatmap", "", b"\xff\xd8")], [], "<h1>Report</h1>", {}) if evidence else ([], [], "")))
    jobs = Jobs(SimpleNamespace(examine=examine, print_page=lambda page: b"%PDF-"))
    with tempfile.TemporaryDirectory() as folder:
        api = create_api(Service(jobs, Path(folder), [Weights(name="random", threshold=.5, sha256="0" * 64, default=True)], Limits(), KEY))
        server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="error", lifespan="off"))
        threading.Thread(target=server.run, daemon=True).start()
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/openapi.json"
        server.should_exit = True
        jobs.close()
        assert not list(Path(folder).iterdir())


def test_the_description_holds_for_all_that_schemathesis_thinks_of(described, tmp_path):
    pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install 'deepfake_nb[dev]'")
    command = [sys.executable, "-m", "schemathesis.cli", "run", described, "-H", f"Authorization: Bearer {KEY}", "--max-examples", "3", "--seed", "1", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | dict(COLUMNS="200"), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"11 selected / 11 total", done.stdout) and int(re.search(r"(\d+) generated, \1 passed", done.stdout)[1]) > 50, done.stdout[-3000:]


def test_clients_need_no_network_and_servers_no_torch(tmp_path):
    for module, without in (("client", "torch numpy PIL cv2 fastapi uvicorn pydantic anywidget"), ("hosting", "torch cv2 matplotlib pandas anywidget voila")):
        code = f"import sys, deepfake_nb.serve.{module}; print(*{{o.split('.')[0] for o in sys.modules}})"
        found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        assert not set(found) & set(without.split()), module


# ---- the container

def test_the_container_starts_what_there_is(capsys):
    "Nothing here builds it, so its words are compared with what they stand for."
    import configparser
    from deepfake_nb.shell import run_command
    lines = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text()).splitlines()
    said = [(k, v) for k, v in (o.split(None, 1) for o in lines if o and not o.startswith("#"))]
    words = lambda key: [v for k, v in said if k == key]
    assert said[-1][0] == "ENTRYPOINT" and [k for k, _ in said].index("USER") < len(said) - 1 and words("USER")[-1] not in ("root", "0")
    for copied in words("COPY"):
        for source in [o for o in shlex.split(copied) if not o.startswith("--")][:-1]: assert "--from" in copied or (ROOT / source).exists(), source
    settings = configparser.ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT / "settings.ini")
    extras = re.findall(r"\[([\w,]+)\]", " ".join(words("RUN")))
    assert extras and all(f"{o}_requirements" in settings["DEFAULT"] for extra in extras for o in extra.split(","))
    command = json.loads(words("ENTRYPOINT")[-1])
    assert f"{command[0]}=deepfake_nb.service:deepfake_api" in settings["DEFAULT"]["console_scripts"]
    options = run_command("deepfake_api", "--help")[1]
    assert all(o in options for o in command[1:] if o.startswith("--"))
    port = command[command.index("--port") + 1]
    assert words("EXPOSE") == [port] and f"127.0.0.1:{port}/v1/health" in words("HEALTHCHECK")[-1]
    assert not re.search(r"(?i)(key|token|password|secret)\s*=", "\n".join(lines))


# ---- the end; the last test, as no server is left behind

def test_a_server_that_is_stopped_answers_everybody_and_leaves_nothing(server, client):
    engine = engine_of(server)
    engine.suspend()
    running = client.submit(PORTRAIT)
    until(lambda: client.job(running.id).state == "running")
    from deepfake_nb.serve.client import Client
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(refused, Client(server["url"], timeout=PATIENCE, patience=0).submit, PORTRAIT, wait=60) for _ in range(2)]
        until(lambda: client.ready()["in_line"] == 2)
        server["process"].terminate()
        for status, sentence in (o.result(PATIENCE) for o in waiting): assert (status, sentence) == (503, f"{PORTRAIT.name} was not examined: the service is being stopped. Accepted: to send it again later.")
    engine.resume()
    assert server["process"].wait(PATIENCE) == 0
    assert not alive(engine.pid) and not list(server["scratch"].iterdir()), list(server["scratch"].rglob("*"))
    assert "Traceback" not in server["said"]() and PORTRAIT.name not in server["said"](), server["said"]()
