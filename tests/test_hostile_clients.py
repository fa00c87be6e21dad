"Clients that want to do harm, over real connections to this computer: malformed, slow, oversize, half-open, and those who go on after they were refused."
import contextlib, json, os, re, resource, shutil, signal, socket, subprocess, sys, threading, time
from pathlib import Path
import pytest
from project import ROOT
from test_engine import PORTRAIT, same_faces, until, weights  # noqa: F401
from test_api import KEY, PATIENCE, engine_of, is_ready, serving

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are stopped and ended as POSIX does it")
HALF_OPEN = 1100


@pytest.fixture(scope="module")
def server(weights, tmp_path_factory):
    "A service without a key, for one megabyte and four files."
    with serving(tmp_path_factory.mktemp("server"), weights, "--max-megabytes", "1", "--queue", "4") as served:
        from deepfake_nb.serve.client import Client
        until(lambda: is_ready(Client(served["url"])), PATIENCE)
        yield served


@pytest.fixture(scope="module")
def locked(weights, tmp_path_factory):
    "A service with a key."
    with serving(tmp_path_factory.mktemp("locked"), weights, DEEPFAKE_NB_API_KEY=KEY) as served: yield served


def connect(server, timeout=30):
    host, port = server["url"].removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout)


def ask(server, head, body=b"", timeout=30):
    "Status, headers and body of the answer to a raw request; it is read until the server closes."
    with connect(server, timeout) as link:
        link.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return answer_of(link)


def answer_of(link):
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := link.recv(65536): found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    return int((lines[0].split() + ["0", "0"])[1]), {k.lower(): v for k, _, v in (o.partition(": ") for o in lines[1:])}, body


def healthy(server):
    "Seconds until another client has its answer."
    start = time.monotonic()
    status, _, _ = ask(server, "GET /v1/health HTTP/1.1\nHost: localhost\nConnection: close")
    assert status == 200
    return time.monotonic() - start


def push(link, piece, most, seconds):
    "Go on sending; how many bytes went before the connection was cut."
    sent, end = 0, time.monotonic() + seconds
    link.settimeout(seconds)
    try:
        while sent < most and time.monotonic() < end:
            link.sendall(piece)
            sent += len(piece)
    except OSError: return sent
    raise AssertionError(f"{sent} bytes were taken in {seconds:g} seconds")


# ---- headers

def test_a_header_without_an_end_is_refused_at_once(server):
    "Sixty megabytes, of which a few are taken; meanwhile others are served."
    start, slowest = time.monotonic(), 0
    with connect(server) as link:
        link.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        sent = push(link, b"a" * (1 << 20), 60 << 20, 20)
        slowest = healthy(server)
        assert time.monotonic() - start < 5 and sent < 20 << 20 and slowest < 2, (sent, slowest)
    status, headers, body = ask(server, "GET /v1/health HTTP/1.1\nHost: localhost\nX-Long: " + "a" * 100_000)
    assert (status, headers["content-type"], headers["connection"]) == (431, "application/problem+json", "close")
    assert json.loads(body)["detail"] == "The headers of the request are too long. Accepted: at most 32768 bytes."


@pytest.mark.parametrize("words", ["GARBAGE", "GET /v1/health HTTP/1.1", "GET /v1/health HTTP/1.1\nHost: a\nHost: b", "POST /v1/predictions HTTP/1.1\nHost: localhost\nContent-Length: -1", "POST /v1/predictions HTTP/1.1\nHost: localhost\nContent-Length: 3\nContent-Length: 4", "\0" * 50, "GET /v1/health HTTP/1.1\nHost: [", "GET /v1/\u00e4 HTTP/1.1\nHost: localhost"])
def test_what_is_not_http_gets_a_problem_and_an_end(server, words):
    status, headers, body = ask(server, words)
    assert status == 400 and headers["connection"] == "close", (status, body)
    assert "Accepted: " in json.loads(body)["detail"] and "/tmp" not in body.decode()
    assert healthy(server) < 2


def test_a_chunk_that_lies_ends_an_upload(server):
    head = "POST /v1/predictions HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=b\nTransfer-Encoding: chunked"
    assert ask(server, head, b"ffffffffffffffffffffffffffffff\r\nabc")[0] == 400
    assert ask(server, head, b"5\r\nabcdefgh\r\nzzz\r\n")[0] in (400, 422)
    assert healthy(server) < 2 and "Traceback" not in server["said"]()


def test_half_open_connections_leave_others_served(server):
    "Each sends half a request and waits; they are more than the service takes."
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < HALF_OPEN + 200: pytest.skip(f"at most {hard} open files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HALF_OPEN + 200), hard))
    with contextlib.ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(HALF_OPEN):
            link = opened.enter_context(connect(server))
            link.sendall(b"POST /v1/predictions HTTP/1.1\r\nHost: loc")
        times = [healthy(server) for _ in range(10)]
        assert max(times) < 2, times
        from deepfake_nb.serve.client import Client
        assert Client(server["url"], timeout=PATIENCE).predict(PORTRAIT, report=False).prediction


def test_headers_that_drip_come_to_an_end(server):
    "A byte now and then is no request."
    with connect(server) as link:
        start = time.monotonic()
        with contextlib.suppress(OSError):
            for o in b"GET /v1/health HTTP/1.1\r\nX-Slow: " + b"a" * 60:
                link.send(bytes([o]))
                time.sleep(.4)
                if link.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK): break
        with contextlib.suppress(OSError):
            link.setblocking(False)
            while True:
                try: link.recv(1, socket.MSG_PEEK); break
                except BlockingIOError: time.sleep(.2); assert time.monotonic() - start < 30
        assert 8 < time.monotonic() - start < 25


# ---- after a refusal

@pytest.mark.parametrize("head, status", [("POST /v1/predictions HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=b\nContent-Length: 9000000000", 401), ("GET /v1/weights HTTP/1.1\nHost: localhost\nContent-Length: 9000000000", 401), ("POST /v1/health HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked", 405)])
def test_who_goes_on_after_a_refusal_is_cut(locked, head, status):
    with connect(locked) as link:
        link.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        answer = link.recv(65536).decode()
        assert answer.startswith(f"HTTP/1.1 {status} ") and "connection: close" in answer.lower()
        assert push(link, b"8000\r\n" + b"a" * 0x8000 + b"\r\n", 100 << 20, 20) < 30 << 20
    assert healthy(locked) < 2


def test_a_file_that_says_it_is_too_large_is_refused_before_it_came(server):
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="film.mp4"\r\n\r\n'
    head = "POST /v1/predictions HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=b\nContent-Length: 900000000"
    start = time.monotonic()
    status, headers, body = ask(server, head, part)
    assert (status, json.loads(body)["detail"]) == (413, "film.mp4: this file is too large. Accepted: at most 1 MB.") and time.monotonic() - start < 10


# ---- names

def test_nobody_is_sent_elsewhere_and_no_foreign_name_is_served(server):
    status, headers, body = ask(server, "GET /v1/weights/ HTTP/1.1\nHost: localhost\nConnection: close")
    assert status == 404 and "location" not in headers
    for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example"):
        status, headers, body = ask(server, f"GET /v1/weights HTTP/1.1\nHost: {host}\nConnection: close")
        assert status == 400 and host not in str(headers) + body.decode() and "location" not in headers, host
    for host in ("localhost", "127.0.0.1:9", "[::1]:8000", "LocalHost"):
        assert ask(server, f"GET /v1/weights HTTP/1.1\nHost: {host}\nConnection: close")[0] == 200, host


# ---- slow bodies, and folders that go away

def test_the_line_says_how_long_what_arrives_will_take(server):
    "Four uploads that drip fill the line: nobody is told to come again in a second."
    head = b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp4\"\r\n\r\n"
    with contextlib.ExitStack() as opened:
        for link in [opened.enter_context(connect(server)) for _ in range(4)]: link.sendall(head)
        time.sleep(1.5)
        status, headers, body = ask(server, "GET /v1/ready HTTP/1.1\nHost: localhost\nConnection: close")
        assert status == 429 and int(headers["retry-after"]) > 60, (headers, body)
        assert f"in {headers['retry-after']} seconds" in json.loads(body)["detail"]
    until(lambda: ask(server, "GET /v1/ready HTTP/1.1\nHost: localhost\nConnection: close")[0] == 200)


def test_a_folder_that_was_cleaned_away_is_made_again(server):
    from deepfake_nb.serve.client import Client
    for folder in server["scratch"].glob("deepfake-api-*/uploads"): shutil.rmtree(folder)
    assert Client(server["url"], timeout=PATIENCE, patience=0).predict(PORTRAIT, report=False).prediction
    for folder in server["scratch"].glob("deepfake-api-*/uploads"): assert folder.stat().st_mode & 0o077 == 0


def test_a_full_disk_is_said_before_and_after(weights, tmp_path):
    "Where this may be tried: a small file system of its own, which is filled."
    (disk := tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True).returncode: pytest.skip("no file system can be mounted here")
    try:
        with serving(disk, weights, "--max-megabytes", "1") as served:
            from deepfake_nb.serve.client import ApiError, Client
            client = Client(served["url"], timeout=PATIENCE, patience=0)
            until(lambda: is_ready(client), PATIENCE)
            job = client.predict(PORTRAIT)
            with pytest.raises(OSError), open(disk / "filler", "wb", buffering=0) as filler:
                while True: filler.write(bytes(4096))
            status, _, body = ask(served, "GET /v1/ready HTTP/1.1\nHost: localhost\nConnection: close")
            assert status == 503 and "No space left" in body.decode() and str(disk) not in body.decode()
            with pytest.raises(ApiError) as e: client.submit(PORTRAIT)
            assert e.value.status == 507 and str(disk) not in str(e.value)
            status, _, body = ask(served, f"GET /v1/predictions/{job.id}/report.pdf HTTP/1.1\nHost: localhost\nConnection: close", timeout=PATIENCE)
            assert status == 200 or str(disk) not in body.decode() and "/tmp" not in body.decode(), body
            (disk / "filler").unlink()
            assert client.ready() and client.predict(PORTRAIT, report=False).prediction
    finally: subprocess.run(["umount", "-l", str(disk)])


# ---- the end, in the middle of work

def test_a_service_that_is_told_to_stop_while_it_judges_is_quiet(weights, tmp_path):
    import numpy as np
    from PIL import Image
    from deepfake_nb.see.media import write_video
    with Image.open(PORTRAIT) as image: still = np.array(image.convert("RGB"))
    film = write_video(tmp_path / "film.mp4", [np.roll(still, i, axis=1) for i in range(200)], fps=25)
    with serving(tmp_path, weights) as served:
        from deepfake_nb.serve.client import Client
        client = Client(served["url"], timeout=PATIENCE)
        until(lambda: is_ready(client), PATIENCE)
        job = client.submit(film)
        until(lambda: client.job(job.id).state == "running" and client.job(job.id).share > .1)
        served["process"].terminate()
        assert served["process"].wait(PATIENCE) == 0
        assert "FATAL" not in served["said"]() and "Traceback" not in served["said"](), served["said"]()
