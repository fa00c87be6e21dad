"The proxy that the README shows: its figures fit those of the services, nginx takes it, and a service behind it works."
import json, os, re, shutil, socket, subprocess, time, urllib.error, urllib.request
from pathlib import Path
import pytest
from project import ROOT

CONF = ROOT / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx") or next((o for o in ("/usr/sbin/nginx", "/usr/local/sbin/nginx") if os.path.exists(o)), None)


def said(name):
    "What a directive says, wherever it stands."
    return re.findall(rf"^\s*{name}\s+([^;]+);", CONF.read_text(), re.MULTILINE)


def seconds(text): return int(text[:-1]) * dict(s=1, m=60)[text[-1]]


def test_the_proxy_fits_the_services():
    import inspect
    pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'deepfake_nb[api]'")
    from deepfake_nb.cli import deepfake_app
    from deepfake_nb.service import deepfake_api
    from deepfake_nb.serve.api import LONGEST_WAIT, Limits
    from deepfake_nb.serve.connections import Patience
    from deepfake_nb.serve.intake import LONGEST_HEADERS, SILENCE
    api, app = (inspect.signature(o).parameters for o in (deepfake_api, deepfake_app))
    assert re.findall(r"server 127\.0\.0\.1:(\d+)", CONF.read_text()) == [str(api["port"].default), str(app["port"].default)]
    size = int(said("client_max_body_size")[0].split("m")[0]) * 2**20
    assert api["max_megabytes"].default * 1e6 + LONGEST_HEADERS <= size < api["max_megabytes"].default * 1.2e6
    patience = Patience()
    assert seconds(said("client_header_timeout")[0]) <= patience.header_seconds and seconds(said("client_body_timeout")[0]) <= SILENCE
    number, each = said("large_client_header_buffers")[0].split()
    assert int(number) * int(each[:-1]) * 1024 <= patience.header_bytes
    assert all(seconds(o.split("s")[0] + "s" if o.endswith("s") else o) > LONGEST_WAIT for o in said("proxy_read_timeout"))
    assert int(said("limit_conn")[0].split()[1]) < patience.connections and Limits().upload_seconds >= 60
    for option in re.findall(r"--([a-z-]+)", "\n".join(o for o in CONF.read_text().splitlines() if o.startswith("#"))):
        name = option.removeprefix("no-").replace("-", "_")
        assert name in api or name in app, option


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def proxy(tmp_path):
    "nginx with this file, but at a free port of this computer, without encryption; gives its settings a home of their own."
    if NGINX is None: pytest.skip("nginx is not installed: apt-get install nginx-light")
    def start(api, app=9):
        port, text = free_port(), CONF.read_text()
        text = re.sub(r"\n\s*ssl_[^;]+;", "", text).replace("listen 443 ssl;", f"listen 127.0.0.1:{port};").replace("server 127.0.0.1:8000;", f"server 127.0.0.1:{api};").replace("server 127.0.0.1:8866;", f"server 127.0.0.1:{app};")
        for o in ("client", "proxy", "fastcgi", "uwsgi", "scgi"): (tmp_path / o).mkdir()
        places = "".join(f"{o}_temp_path {tmp_path / o};\n" for o in ("proxy", "fastcgi", "uwsgi", "scgi")) + f"client_body_temp_path {tmp_path / 'client'};\n"
        (tmp_path / "nginx.conf").write_text(f"daemon off;\nuser {__import__('getpass').getuser()};\npid {tmp_path / 'pid'};\nerror_log {tmp_path / 'error.log'};\nevents {{ worker_connections 512; }}\nhttp {{\naccess_log off;\n{places}{text}\n}}\n")
        command = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        process = subprocess.Popen(command)
        started.append(process)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try: socket.create_connection(("127.0.0.1", port), 1).close(); break
            except OSError: time.sleep(.1)
        return f"http://127.0.0.1:{port}"
    started = []
    yield start
    for o in started:
        o.terminate()
        o.wait(30)


def test_a_service_behind_the_proxy(proxy, tmp_path):
    "Health, a small file, one that is too large, a header that never ends, and links that lead back through the proxy."
    pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'deepfake_nb[api]'")
    import tempfile, threading, uvicorn
    from types import SimpleNamespace
    from deepfake_nb.core import Prediction
    from deepfake_nb.serve.api import Limits, Service, Weights, create_api
    from deepfake_nb.serve.client import ApiError, Client
    from deepfake_nb.serve.engine import Examination
    from deepfake_nb.serve.hosting import server_settings
    from deepfake_nb.serve.jobs import Jobs
    examine = lambda file, name, say, **settings: Examination(Prediction(name, "REAL", .25), [], [], "<h1>Report</h1>")
    jobs, port = Jobs(SimpleNamespace(examine=examine, print_page=lambda page: b"%PDF-")), free_port()
    api = create_api(Service(jobs, Path(tempfile.mkdtemp(dir=tmp_path)), [Weights(name="random", threshold=.5, sha256="0" * 64, default=True)], Limits(), None), (), "/api", ["example.org", "127.0.0.1"])
    server = uvicorn.Server(uvicorn.Config(api, port=port, **server_settings()))
    threading.Thread(target=server.run, daemon=True).start()
    url = proxy(port)
    try:
        client = Client(url + "/api", timeout=60, patience=0)
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until: time.sleep(.05)
        assert client.ready()["limits"]["megabytes"] == 200
        (tmp_path / "film.mp4").write_bytes(bytes(50_000_000))
        job = client.predict(tmp_path / "film.mp4")
        assert job.prediction.decision == "REAL" and job.links["self"].startswith("/api/v1/predictions/")
        assert b"<h1>" in urllib.request.urlopen(url + job.links["report_html"]).read()
        with open(tmp_path / "huge.mp4", "wb") as f: f.truncate(250_000_000)
        with pytest.raises(ApiError) as e: client.predict(tmp_path / "huge.mp4")
        assert e.value.status == 413
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), 60) as slow:
            start = time.monotonic()
            slow.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: example.org\r\nX-Slow: ")
            assert urllib.request.urlopen(url + "/api/v1/health").status == 200 and time.monotonic() - start < 5
            assert slow.recv(10) in (b"", b"HTTP/1.1 4") and time.monotonic() - start < 40
    finally:
        server.should_exit = True
        jobs.close()
