"The app as somebody meets it who has no browser and speaks to its socket: every shared state is set, every message is malformed, every page is asked for; no limit moves, nothing of the inside is told."
import asyncio, contextlib, json, os, re, struct, subprocess, sys, time, urllib.error, urllib.request, uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import pytest
from project import ROOT

for package in ("voila", "anywidget", "tornado", "psutil", "torch"): pytest.importorskip(package, reason=f"{package} is not installed: pip install 'deepfake_nb[app,dev]'")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the server is ended as a process group, which Windows does not have")
from test_engine import PORTRAIT, same_faces, tiny_weights, until, weights  # noqa: F401

PATIENCE, MEGABYTES, VISITORS = 120, 2, 3  # seconds for whatever must come; of a file; places
INSIDE = re.compile(r"Traceback|File \"|deepfake_nb/|site-packages|/tmp/|/root/|/home/", re.IGNORECASE)


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def server(weights, tmp_path_factory):
    "The command, as pip's script starts it."
    folder, port = tmp_path_factory.mktemp("app"), free_port()
    (script := folder / "deepfake-app").write_text("import sys\nfrom deepfake_nb.cli import deepfake_app\nsys.exit(deepfake_app())\n")
    command = [sys.executable, str(script), "--port", str(port), "--no-browser", "--weights", str(weights), "--device", "cpu", "--max-megabytes", str(MEGABYTES), "--preheated", "1"]
    if "visitors" in (ROOT / "nbs" / "94_cli.ipynb").read_text(): command += ["--visitors", str(VISITORS)]
    with open(folder / "log", "wb") as log: process = subprocess.Popen(command, cwd=folder, env=os.environ | dict(TMPDIR=str(folder), OMP_NUM_THREADS="1"), stdout=log, stderr=log, start_new_session=True)
    address, said = f"http://127.0.0.1:{port}/", lambda: (folder / "log").read_text()
    try:
        until(lambda: "is running at" in said() or process.poll() is not None, PATIENCE)
        assert process.poll() is None, said()
        yield dict(address=address, folder=folder, said=said, process=process)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired): process.wait(30)
        with contextlib.suppress(ProcessLookupError): os.killpg(process.pid, 9)
        process.wait()
    assert not list(folder.glob("deepfake-app-*")), "files of visitors stayed behind"


def get(address, timeout=PATIENCE, **headers):
    "Status and page."
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=timeout) as answer: return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e: return e.code, e.read().decode()


def kernel_of(page): return re.search(r'"kernelId":\s*"([0-9a-f-]{36})"|kernel[_-]?id["\']?\s*[:=]\s*["\']([0-9a-f-]{36})', page)


def open_page(server):
    "A page, and the process behind it; waits until there is a place."
    end = time.monotonic() + PATIENCE
    while True:
        status, page = get(server["address"])
        if status == 200 and (found := kernel_of(page)): return next(filter(None, found.groups()))
        assert time.monotonic() < end, (status, page[:500])
        time.sleep(2)


class Socket:
    "A page's socket, without a page."
    def __init__(self, server, kernel): self.server, self.kernel, self.comms, self.heard = server, kernel, {}, []

    async def __aenter__(self):
        from tornado.websocket import websocket_connect
        self.session = uuid.uuid4().hex
        url = self.server["address"].replace("http", "ws") + f"api/kernels/{self.kernel}/channels?session_id={self.session}"
        self.link = await websocket_connect(url, max_message_size=1 << 28)
        self._reader = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *_):
        self._reader.cancel()
        self.link.close()

    @property
    def closed(self): return self._reader.done()

    async def _read(self):
        while (message := await self.link.read_message()) is not None:
            if isinstance(message, bytes):
                count = struct.unpack("!i", message[:4])[0]
                offsets = [*struct.unpack(f"!{count}I", message[4:4 * (count + 1)]), len(message)]
                message = message[offsets[0]:offsets[1]].decode()
            self.heard.append(message)
            self._note(json.loads(message))

    def _note(self, message):
        content, kind = message.get("content", {}), message.get("header", {}).get("msg_type")
        if kind == "comm_open": self.comms[content["comm_id"]] = content["data"].get("state", {})
        if kind == "comm_msg":
            data = content.get("data", {})
            for comm, o in data.get("states", {}).items(): self.comms[comm] = o["state"]
            if data.get("method") == "update" and content["comm_id"] in self.comms: self.comms[content["comm_id"]] |= data["state"]

    def message(self, kind, content, **more):
        header = dict(msg_id=uuid.uuid4().hex, msg_type=kind, session=self.session, username="", version="5.3", date="2026-01-01T00:00:00Z")
        return dict(channel="shell", header=header, parent_header={}, metadata=dict(version="1.0.0"), content=content) | more

    async def say(self, kind, buffers=(), **content):
        message = self.message(kind, content)
        if not buffers: return await self.link.write_message(json.dumps(message))
        parts = [json.dumps(message).encode(), *buffers]
        offsets, at = [], 4 * (len(parts) + 1)
        for o in parts: offsets.append(at); at += len(o)
        await self.link.write_message(struct.pack(f"!{len(parts) + 1}I", len(parts), *offsets) + b"".join(parts), binary=True)

    async def ask_states(self):
        await self.say("comm_open", comm_id="control", target_name="jupyter.widget.control", data={})
        await self.say("comm_msg", comm_id="control", data=dict(method="request_states"))
        await self.wait(lambda: len(self.comms) > 10)

    async def pause(self):
        "Until all was heard that was said so far."
        before = sum('"comm_info_reply"' in o for o in self.heard)
        await self.say("comm_info_request")
        await self.wait(lambda: sum('"comm_info_reply"' in o for o in self.heard) > before)

    async def set(self, comm, **state): await self.say("comm_msg", comm_id=comm, data=dict(method="update", state=state, buffer_paths=[]))
    async def tell(self, comm, buffers=(), **content): await self.say("comm_msg", buffers, comm_id=comm, data=dict(method="custom", content=content))

    async def wait(self, what, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end and not self.closed, (self.closed, self.heard[-3:])
            await asyncio.sleep(.05)
        return found

    def find(self, **known):
        "The comm whose state has these values; a value that is callable is asked."
        fits = lambda state: all(k in state and (v(state[k]) if callable(v) else state[k] == v) for k, v in known.items())
        return next(k for k, v in self.comms.items() if fits(v))

    def state(self, comm): return self.comms[comm]
    @property
    def status(self): return self.state(self.find(problem=lambda o: True, share=lambda o: True))["text"]

    async def upload(self, name, data, size=None, piece=1 << 20):
        "As the page does it, but whatever size is claimed; how much of it was taken."
        field, number, sent = self.find(accept=lambda o: True, hint=lambda o: True), uuid.uuid4().hex, 0
        line, before = self.state(self.find(problem=lambda o: True, share=lambda o: True)), self.status
        await self.tell(field, kind="start", upload=number, name=name, size=len(data) if size is None else size)
        while sent < len(data):
            asks = lambda: [o for o in self.heard if number in o and f'"from": {sent}' in o]
            await self.wait(lambda: asks() or (line["problem"] and line["text"] != before))
            if not asks(): break
            await self.tell(field, [data[sent:sent + piece]], **{"kind": "piece", "upload": number, "from": sent})
            sent += len(data[sent:sent + piece])
        return sent


def with_page(server, play):
    "Open a page, play on its socket, and close it as a browser does."
    async def run():
        kernel = await asyncio.to_thread(open_page, server)
        try:
            async with Socket(server, kernel) as socket:
                await socket.ask_states()
                await play(socket)
                return socket
        finally:
            with contextlib.suppress(OSError): await asyncio.to_thread(urllib.request.urlopen, urllib.request.Request(server["address"] + f"voila/api/shutdown/{kernel}", method="POST"))
    with ThreadPoolExecutor(1) as pool: socket = pool.submit(asyncio.run, run()).result()  # a browser of other tests may leave a loop running here
    told = [o for o in socket.heard if INSIDE.search(o) and '"_esm"' not in o]
    assert not told, told[0][:3000]
    return socket


def on_disk(server): return sum(o.stat().st_size for o in server["folder"].glob("deepfake-app-*/visitor-*/*/upload*"))


OTHER = {bool: [True, False], int: [10**12, -1, 0], float: [1e9, -1e9, 0.], str: ["/etc/passwd", "x" * 1000], list: [[], ["x"]], dict: [{}, {"x": 1}], type(None): [None, 5, "x"]}


def test_no_shared_state_is_a_limit(server):
    "Every trait of every widget of the page is set to all sorts of values; a file above the limit is refused all the same, and nothing of it stays."
    async def play(page):
        seen = set()
        for comm, state in list(page.comms.items()):
            if (kind := state.get("_model_name")) in seen and kind.endswith(("LayoutModel", "StyleModel")): continue  # one of each will do
            seen.add(kind)
            for name, value in list(state.items()):
                if name in ("_esm", "_css", "_anywidget_id") or name.startswith(("_model", "_view")): continue
                for other in OTHER[type(value)]:
                    await page.set(comm, **{name: other})
                    await asyncio.sleep(.02)
        await page.pause()
        for comm in [k for k, v in page.comms.items() if "accept" in v]:
            for name in ("max_bytes", "busy", "folder", "shown_limit", "shown_busy", "receiver", "limit", "_busy"): await page.set(comm, **{name: 10**12})
        await page.upload("large.mp4", bytes(6_000_000))
        assert on_disk(server) == 0 and f"At most {MEGABYTES} MB are accepted" in page.status, page.status
        await page.upload("liar.mp4", bytes(6_000_000), size=100)
        assert on_disk(server) == 0 and "broke off" in page.status, page.status
    with_page(server, play)


def test_one_file_is_looked_at_at_a_time_whatever_is_pressed(server):
    "Detect, Remove and the samples are pressed again and again while a file is looked at."
    async def play(page):
        buttons = {v["description"]: k for k, v in page.comms.items() if v.get("_model_name") == "ButtonModel"}
        press = lambda name: page.tell(buttons[name], event="click")
        await press("Try a real portrait")
        await page.wait(lambda: page.status.startswith("Ready"))
        field = page.find(accept=lambda o: True, hint=lambda o: True)
        begun = len(page.heard)
        for _ in range(5):
            await press("Detect Deepfake")
            for comm in buttons.values(): await page.set(comm, disabled=False)
            for name in ("busy", "shown_busy"): await page.set(field, **{name: False})
            await press("Remove my file")
        await page.wait(lambda: page.status.startswith("Done"))
        await asyncio.sleep(2)
        looked = [o for o in page.heard[begun:] if "Reading the file and looking for faces" in o]
        assert len(looked) == 1 and page.status.startswith("Done"), (len(looked), page.status)
    with_page(server, play)


def test_messages_that_no_page_sends_tell_nothing(server):
    "Each on a socket of its own, as one that sends nonsense may be cut; the page works on."
    async def play(page):
        slider, field = page.find(_model_name="IntSliderModel"), page.find(accept=lambda o: True, hint=lambda o: True)
        for buttons in [k for k, v in page.comms.items() if v.get("_model_name") == "ButtonModel"]: await page.tell(buttons, event="click") if "frame" in page.comms[buttons]["description"] else None
        await page.set(slider, max=10**6, value=10**5)
        await page.set(slider, value="x")
        await page.set(page.find(_model_name="DropdownModel"), index=7, _options_labels=["a"])
        await page.set(page.find(_model_name="ToggleButtonModel"), value=True)
        for content in (dict(kind="start"), dict(kind="start", name={"a": 1}, size="x"), dict(kind="start", name="a", size=10**300), dict(kind="piece"), dict(kind=["x"]), dict(kind="said", text={}), {}): await page.tell(field, **content)
        await page.say("comm_msg", comm_id=field, data=dict(method="update", state=dict(title=5), buffer_paths=[["title"]]))
        nonsense = [b"", b"\0", b"\xff" * 40, struct.pack("!i", -5), struct.pack("!2I", 1, 10**9), "", "[", "null", "7", "{}", '"x"', json.dumps(dict(channel="shell", header=None)), json.dumps(page.message("execute_request", dict(code="import os; os.getcwd()", silent=False))),
                    json.dumps(page.message("comm_open", dict(comm_id="evil", target_name="jupyter.widget", data=dict(state={"_model_name": "x"})))), json.dumps(page.message("comm_open", dict(comm_id="evil2", target_name="no.such.target", data={}))),
                    json.dumps(page.message("comm_msg", dict(comm_id=7, data=5))), json.dumps(page.message("comm_msg", dict(comm_id=slider, data=dict(method="nonsense")))), json.dumps(page.message("comm_msg", dict(comm_id=slider, data={}))), json.dumps(page.message("comm_msg", {})), json.dumps(page.message("inspect_request", {})),
                    json.dumps(page.message("comm_msg", dict(comm_id=slider, data=dict(method="update", state=dict(value={}), buffer_paths=[["a", "b"], 5]))))]
        for o in nonsense:
            async with Socket(server, page.kernel) as other:
                await other.link.write_message(o, binary=isinstance(o, bytes))
                await asyncio.sleep(.2)
                told = [m for m in other.heard if INSIDE.search(m) and '"_esm"' not in m]
                assert not told, (o, told[0][:2000])
        await page.upload("face.jpg", PORTRAIT.read_bytes())
        await page.wait(lambda: page.status.startswith("Ready"))
    with_page(server, play)


def test_a_flood_is_cut(server):
    async def play(page):
        async with Socket(server, page.kernel) as other:
            with contextlib.suppress(Exception):
                for _ in range(5000):
                    await other.link.write_message("{}")
                    if other.closed: break
                    await asyncio.sleep(0)
            await asyncio.wait_for(asyncio.shield(other._reader), 60)
        await page.ask_states()
    with_page(server, play)


def test_places_are_few_and_that_is_said(server):
    "Pages are asked for in a loop and never opened: a sentence, and no more processes than places; later there are places again."
    import psutil
    kernels = lambda: [o for o in psutil.Process(server["process"].pid).children(recursive=True) if "ipykernel_launcher" in " ".join(o.cmdline())]
    answers = [get(server["address"]) for _ in range(VISITORS + 6)]
    refused = [page for status, page in answers if status == 503]
    assert len(refused) >= 6 and all(f"it has {VISITORS}" in o and "Accepted: to open the page again" in o for o in refused), [o[0] for o in answers]
    assert len(kernels()) <= VISITORS + 1  # and one that waits
    assert open_page(server)  # those who never opened theirs give way


def test_half_open_connections_leave_visitors_served(server):
    import resource, socket
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1400: pytest.skip(f"at most {hard} open files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1400), hard))
    host, port = server["address"].removeprefix("http://").strip("/").split(":")
    with contextlib.ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100): opened.enter_context(socket.create_connection((host, int(port)), 30)).sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert get(server["address"], timeout=30)[0] in (200, 503)
    with contextlib.suppress(ConnectionError): assert get(server["address"] + "x" * 40_000)[0] in (400, 404, 414, 431)


def test_a_port_that_is_taken_is_said_in_one_sentence(server, weights):
    port = server["address"].rstrip("/").rsplit(":", 1)[1]
    code = "import sys; from deepfake_nb.cli import deepfake_app; sys.argv[0] = 'deepfake-app'; from deepfake_nb.shell import run_command; print(*run_command('deepfake_app', *sys.argv[1:]), sep='|')"
    done = subprocess.run([sys.executable, "-c", code, "--port", port, "--no-browser", "--weights", str(weights)], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    said = done.stdout.strip() + done.stderr.strip()
    assert done.stdout.startswith("2|") and "Address already in use" in said and said.count("\n") == 0, said
