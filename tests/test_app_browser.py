"The app as people meet it: a real server, a real browser, files in and verdicts out."
import io, json, os, re, shutil, signal, socket, subprocess, sys, time, urllib.error, urllib.request, uuid, zipfile
from contextlib import contextmanager
from pathlib import Path
import pytest
from project import ROOT

for package in ("playwright", "voila", "anywidget", "pypdf"): pytest.importorskip(package, reason=f"{package} is not installed: pip install 'deepfake_nb[app,dev]'")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None: pytest.skip("no Chromium: apt-get install chromium", allow_module_level=True)
if os.name != "posix": pytest.skip("the server is ended as a process group, which Windows does not have", allow_module_level=True)
PATIENCE = 120_000  # milliseconds, the longest wait for a step of the page, three times as long for a kernel or a verdict: a busy machine is slow, not wrong
SHOTS = os.environ.get("DEEPFAKE_NB_SCREENSHOTS")  # a folder for pictures of the page; none are taken without
AXE = os.environ.get("DEEPFAKE_NB_AXE")  # axe.min.js of axe-core, which looks for what a screen reader or weak eyes stumble over; not asked without


@contextmanager
def ended(process, seconds=30):
    "A process that was started in a session of its own: it and all its children are gone afterwards, however the test went."
    try: yield process
    finally:
        process.terminate()
        try: process.wait(seconds)
        except subprocess.TimeoutExpired: pass
        try: os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError: pass
        process.wait(seconds)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    "One file of each kind that visitors bring."
    import numpy as np
    from PIL import Image, ImageDraw
    from deepfake_nb.see.media import write_video
    folder = tmp_path_factory.mktemp("files")
    portrait = ROOT / "deepfake_nb" / "assets" / "app" / "sample_real.jpg"
    with Image.open(portrait) as image: pixels = np.array(image)
    exif = Image.Exif()
    exif[271] = "<script>document.title='hacked'</script>"
    Image.fromarray(pixels).save(folder / "portrait.jpg", exif=exif)
    write_video(folder / "film.mp4", [np.roll(pixels, 4 * i, axis=1) for i in range(8)], fps=4)
    shutil.copy(folder / "film.mp4", folder / "<img src=x onerror=alert(1)>.mp4")
    whole = (folder / "film.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[:len(whole) // 2])
    (folder / "letter.jpg").write_text("Dear Sir or Madam")
    (folder / "empty.png").write_bytes(b"")
    (folder / "holiday\u202egpj.exe.jpg").write_bytes(b"MZ" + bytes(500))
    with zipfile.ZipFile(folder / "zip.jpg", "w") as z: z.writestr("evil.html", "<script>alert(1)</script>")
    (folder / "big.mp4").write_bytes(bytes(6_500_000))
    Image.new("RGB", (320, 200), "seagreen").save(folder / "wall.png")
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    "The default weights, or where there are none a tiny scorer whose verdicts mean nothing."
    from deepfake_nb.core import WeightsError
    from deepfake_nb.model.weightsfile import default_weights
    try: return default_weights()
    except WeightsError: pass
    import torch
    from deepfake_nb.model.scorer import create_scorer, save_scorer
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_scorer(create_scorer("mobilenetv2_100", "mean", image_size=64, name="random"), path)
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


STRANGERS = ("random", "queue", "token", "types", "report", "secrets", "select")  # modules that lie in many a folder of downloads


@pytest.fixture(scope="session")
def server(weights, tmp_path_factory):
    "Its address, folder for temporary files, and log. The folder has too long a name for sockets, and the server is started among modules of strangers."
    port, folder, downloads = free_port(), tmp_path_factory.mktemp("a long name for temporary files " * 4), tmp_path_factory.mktemp("downloads")
    for name in STRANGERS: (downloads / f"{name}.py").write_text(f"raise SystemExit('mine: {name}')")
    script = tmp_path_factory.mktemp("bin") / "deepfake-app"  # as pip makes it: the current folder is no place for modules to it
    script.write_text(f"import sys; from deepfake_nb.serve.server import serve_app; sys.exit(serve_app({port}, weights=[{str(weights)!r}], max_megabytes=6, preheated=1))")
    environment = os.environ | dict(TMPDIR=str(folder), DEEPFAKE_NB_FACE_DETECTOR="haar", OMP_NUM_THREADS="1")
    log = folder / "log.txt"
    with open(log, "w") as out: process = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=out, stderr=out, cwd=downloads, start_new_session=True)
    address, end = f"http://127.0.0.1:{port}/", time.time() + PATIENCE / 1000
    with ended(process):
        while True:
            try: urllib.request.urlopen(address, timeout=30).close(); break
            except OSError:
                assert process.poll() is None and time.time() < end, log.read_text()[-3000:]
                time.sleep(.3)
        yield dict(address=address, folder=folder)
    assert not list(folder.glob("deepfake-app-*")), "files of visitors stayed behind"
    assert "mine:" not in log.read_text(), "code of the current folder was run"
    inside = re.findall(r'File "[^"]*deepfake_nb/[\w/]+\.py", line \d+.*', log.read_text())  # Voila's own page for "not found" fails in Voila's log
    assert not inside, (inside, log.read_text()[-3000:])


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=PATIENCE)
        try: yield browser
        finally: browser.close()


class Visitor:
    "A page and what one does with it."
    def __init__(self, browser, server, **settings):
        self.context = browser.new_context(accept_downloads=True, **settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.requests, self.server = [], server
        self.page.on("request", lambda o: self.requests.append(o.url))
        self.page.on("dialog", lambda o: pytest.fail(f"a script from a file ran: {o.message}"))
        self.page.goto(server["address"], wait_until="commit", timeout=3 * PATIENCE)
        self.page.wait_for_selector(".dn-drop input", state="attached", timeout=3 * PATIENCE)  # a kernel starts
        self.page.wait_for_selector("text=Try a real portrait")

    def status(self): return self.page.inner_text(".dn-status")
    def wait(self, *words):
        "Until the status starts with one of these words."
        self.page.wait_for_function("words => words.some(o => document.querySelector('.dn-status')?.textContent.startsWith(o))", arg=list(words), timeout=3 * PATIENCE)
    def bring(self, path):
        self.page.set_input_files(".dn-drop input", path)
    def click(self, text): self.page.get_by_role("button", name=text, exact=True).click()
    def judge(self, path, name=None):
        self.bring(path)
        self.page.wait_for_function("name => document.querySelector('.dn-preview')?.textContent.startsWith(name)", arg=path.name)
        self.wait("Ready")
        if name: self.shoot(f"{name}-preview")
        self.click("Detect Deepfake")
        if name: self.shoot(f"{name}-progress")
        self.wait("Done")
        return self.page.inner_text(".dn-verdict h2")
    def refused(self, path):
        "The sentence that a bad file gets."
        self.bring(path)
        self.page.wait_for_function("name => document.querySelector('.dn-problem')?.textContent.includes(name)", arg=path.name.replace("\u202e", "\\u202e"))
        return self.status()
    def download(self, text):
        with self.page.expect_download() as waiting: self.page.get_by_role("link", name=text).click()
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()
    def shoot(self, name):
        "A picture to look at, and a small copy for the docs."
        if not SHOTS: return
        from PIL import Image
        self.page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)
        with Image.open(f"{SHOTS}/{name}.png") as image:
            small = image.convert("RGB").crop((0, 0, image.width, min(image.height, 4 * image.width)))
            small.thumbnail((min(760, image.width), 10_000), Image.Resampling.LANCZOS)
            for quality in (85, 75, 65, 55, 45, 35, 25):
                small.save(f"{SHOTS}/{name}.jpg", quality=quality, optimize=True)
                if os.path.getsize(f"{SHOTS}/{name}.jpg") < 80_000: break
    def check_for_all(self):
        "Everything has a name, and where axe-core is at hand it finds nothing."
        unnamed = "[...document.querySelectorAll('.dn-app th, .dn-app button, .dn-app [role=slider], .dn-app input')].filter(o => !(o.textContent.trim() || o.getAttribute('aria-label') || o.labels?.length || o.type === 'number')).map(o => o.outerHTML)"
        self.page.wait_for_function(f"!{unnamed}.length && document.querySelectorAll('[role=main]').length === 1")
        if not AXE: return
        self.page.evaluate(Path(AXE).read_text())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert not found, [(o["id"], o["help"], [n["html"] for n in o["nodes"]]) for o in found]
    def leave(self):
        "Close the tab, as people do."
        self.page.goto("about:blank")
        self.context.close()
    def overflow(self): return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@pytest.fixture
def visitor(browser, server):
    opened = []
    def open_page(**settings):
        opened.append(Visitor(browser, server, **dict(viewport=dict(width=1100, height=900)) | settings))
        return opened[-1]
    yield open_page
    for o in filter(lambda o: o.context.pages, opened):
        outside = [url for url in o.requests if not url.startswith((server["address"], "data:", "blob:", server["address"].replace("http", "ws")))]
        o.leave()
        assert not outside, f"the page asked others: {outside}"


def uploads(server): return sorted(o.name for o in server["folder"].glob("deepfake-app-*/visitor-*/*/upload*"))


def check_html(data, name):
    text = data.decode()
    assert name in text and "<script" not in text and "default-src 'none'" in text
    assert not re.findall(r"(?:https?:)?//\w", re.sub(r"base64,[^\"']*", "", text))
    return text


def test_an_image_from_upload_to_report(visitor, files, server, tmp_path):
    from pypdf import PdfReader
    from deepfake_nb.tell.verify import verify_report
    v = visitor()
    v.shoot("app-start")
    v.check_for_all()
    assert v.page.get_by_role("button", name="Detect Deepfake").is_disabled()
    v.page.locator(".dn-app summary").click()
    v.shoot("app-limits")
    v.page.locator(".dn-app summary").click()
    verdict = v.judge(files / "portrait.jpg", "app")
    assert verdict in ("REAL", "FAKE", "INCONCLUSIVE")
    assert re.search(r"\d+%|under 1%|over 99%", v.page.inner_text(".dn-verdict"))
    for o in (10, 90):
        v.page.locator(".dn-compare input").fill(str(o))
        assert v.page.evaluate("getComputedStyle(document.querySelector('.dn-stack img + img')).clipPath") == f"inset(0px {100 - o}% 0px 0px)"
    assert v.page.locator(".dn-pictures img").count() == 2 and not v.page.get_by_role("button", name="Next frame").is_visible()
    assert v.page.title() != "hacked"
    name, page = v.download("Download report (HTML)")
    assert name == "deepfake-report-portrait.html" and verdict in check_html(page, "portrait.jpg") and b"&lt;script&gt;" in page
    name, pdf = v.download("Download report (PDF)")
    pages = PdfReader(io.BytesIO(pdf)).pages
    assert name.endswith(".pdf") and len(pages) >= 2 and "Deepfake check of portrait.jpg" in " ".join(pages[0].extract_text().split())
    name, record = v.download("Evidence for checking (JSON)")
    for ending, data in dict(html=page, pdf=pdf, json=record).items(): (tmp_path / f"{Path(name).stem}.{ending}").write_bytes(data)
    assert verify_report(tmp_path / name, files / "portrait.jpg").ok  # what was downloaded belongs together
    assert not verify_report(tmp_path / name, files / "wall.png").ok
    v.shoot("app-image")
    v.click("Remove my file")
    v.wait("Your file was removed")
    assert not uploads(server) and not v.page.locator(".dn-verdict").count()


def test_a_video_after_an_image_on_a_phone(visitor, files, server):
    "The second file needs no reload; the name is hostile; the page is narrow."
    v = visitor(viewport=dict(width=390, height=844))
    v.click("Try a real portrait")
    v.wait("Ready")
    v.judge(files / "<img src=x onerror=alert(1)>.mp4")
    assert "<img src=x onerror=alert(1)>.mp4" in v.page.inner_text(".dn-preview")
    handle, figure = v.page.locator(".noUi-handle").locator("visible=true"), v.page.locator(".dn-frame figcaption")
    assert int(float(handle.get_attribute("aria-valuemax"))) == 8
    handle.focus()
    v.page.keyboard.press("Home")
    v.page.wait_for_function("document.querySelector('.dn-frame figcaption').textContent.startsWith('0.00')")
    before = figure.inner_text()
    v.click("Next frame")
    v.page.wait_for_function("before => document.querySelector('.dn-frame figcaption').textContent != before", arg=before)
    assert figure.inner_text().startswith("0.25 seconds. Person 1:")
    curve, place = v.page.locator(".dn-curve"), "document.querySelector('.dn-app video').currentTime"
    assert v.page.evaluate("document.querySelector('.dn-app video').src").startswith("blob:")  # the file that is in the browser already
    curve.press("End")  # keyboard and mouse seek in the film, and the nearest frame is shown
    v.page.wait_for_function("document.querySelector('.dn-frame figcaption').textContent.startsWith('1.75')")
    assert v.page.evaluate(place) > 1.5 and curve.get_attribute("aria-valuemax") == "2"
    curve.click(position=dict(x=curve.bounding_box()["width"] * 60 / 700, y=20))
    v.page.wait_for_function(f"{place} < .1 && document.querySelector('.dn-frame figcaption').textContent.startsWith('0.00')")
    assert v.overflow() <= 0, "wider than the screen"
    v.check_for_all()
    check_html(v.download("Download report (HTML)")[1], "&lt;img src=x onerror=alert(1)&gt;.mp4")
    v.shoot("app-phone")


def test_several_files_at_once(visitor, files, server, tmp_path):
    "A row for each, a bad one among them; each is shown, and all are taken home in one page and one table."
    import csv
    v = visitor()
    (hostile := tmp_path / "<img src=x onerror=alert(1)>.jpg").write_text("Dear Sir or Madam")
    v.page.set_input_files(".dn-drop input", [files / "portrait.jpg", hostile, files / "wall.png"])
    v.wait("Ready. 2 of 3 files can be judged")
    rows = v.page.locator(".dn-files tbody tr")
    assert rows.count() == 3 and "text, not a picture or video" in rows.nth(1).inner_text() and rows.locator("img").count() == 2
    v.click("Detect Deepfake")
    v.wait("Done. 3 files: ")
    v.shoot("app-several")
    v.page.get_by_role("button", name="Score").click()
    assert v.page.get_by_role("columnheader", name="Score").get_attribute("aria-sort") == "ascending" and "portrait.jpg" in rows.nth(2).inner_text()  # those without a score come first
    v.click("Show what was found in wall.png")
    v.page.wait_for_function("document.activeElement.classList.contains('dn-results') && document.querySelector('.dn-verdict')")
    assert v.page.locator(".dn-results h2").first.inner_text() == "What was found in wall.png"
    v.check_for_all()
    def fetch(text):
        with v.page.expect_download() as waiting: v.click(text)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()
    name, page = fetch("Download overview report (HTML)")
    assert name == "deepfake_nb-overview.html" and check_html(page, "&lt;img src=x onerror=alert(1)&gt;.jpg").count('href="#file-') == 2
    name, table = fetch("Download table (CSV)")
    assert [o[0] for o in csv.reader(io.StringIO(table.decode("utf-8-sig")))][1:] == ["portrait.jpg", hostile.name, "wall.png"]
    v.click("Remove my files")
    v.wait("Your files were removed")
    assert not uploads(server) and not rows.count()


def test_files_from_the_wild(visitor, shared):
    "An image and a video of public data sets, where they are at hand."
    import csv
    with open(shared / "data" / "eval" / "manifest.csv", newline="") as f: rows = list(csv.DictReader(f))
    v = visitor()
    for dataset in ("openforensics", "ffpp_video"):
        path = min((shared / "data" / "eval" / o["path"] for o in rows if o["dataset"] == dataset), key=lambda o: o.stat().st_size)
        assert v.judge(path) in ("REAL", "FAKE", "INCONCLUSIVE")
        check_html(v.download("Download report (HTML)")[1], path.name)


def test_bad_files_get_a_sentence(visitor, files, server):
    v = visitor()
    assert "text, not a picture or video" in v.refused(files / "letter.jpg")
    assert "empty file" in v.refused(files / "empty.png")
    v.shoot("app-problem")
    assert "Accepted" in v.refused(files / "broken.mp4")
    assert "Accepted" in v.refused(files / "zip.jpg")
    turned = v.refused(files / "holiday\u202egpj.exe.jpg")
    assert "\\u202e" in turned and "\u202e" not in turned
    assert "At most 6 MB" in v.refused(files / "big.mp4")
    assert not uploads(server) and "/" not in v.status()
    assert v.judge(files / "wall.png") == "INCONCLUSIVE"
    assert "No face was found" in v.page.inner_text(".dn-verdict") and "%" not in v.page.inner_text(".dn-verdict h2")
    v.shoot("app-no-face")


def test_the_server_keeps_the_limit_too(visitor, files, server):
    "A browser that does not ask how large a file may be is stopped all the same."
    v = visitor()
    v.page.evaluate("""() => { const slice = File.prototype.slice; Object.defineProperty(File.prototype, "size", { get() { return 5; } }); }""")
    v.bring(files / "big.mp4")
    v.page.wait_for_selector(".dn-problem")
    assert "broke off" in v.status() and not uploads(server)


def test_two_visitors_see_only_their_own(visitor, files, server):
    a, b = visitor(), visitor()
    a.bring(files / "portrait.jpg")
    b.bring(files / "film.mp4")
    for o in (a, b): o.wait("Ready")
    for o in (a, b): o.click("Detect Deepfake")
    for o in (a, b): o.wait("Done")
    b.shoot("app-video")
    assert "portrait.jpg" in a.page.inner_text(".dn-preview") and "film.mp4" not in a.page.content()
    assert "film.mp4" in b.page.inner_text(".dn-preview") and "portrait.jpg" not in b.page.content()
    folders = {o.parent.parent for o in server["folder"].glob("deepfake-app-*/visitor-*/*/upload*")}
    assert len(folders) == 2 and all(o.stat().st_mode & 0o077 == 0 for o in folders)
    own = str(next(server["folder"].glob("deepfake-app-*/visitor-*/*/upload.jpg")))
    places = [f"voila/files/{o}" for o in ("app.ipynb", "sample_real.jpg", "voila.json", own, "..%2f..%2fapp.py", own.replace("/", "%2f"))]
    places += ["api/contents", "api/kernels", "api/sessions", "api/terminals", "tree", "lab", f"api/kernels/{uuid.uuid4()}", f"api/kernels/{uuid.uuid4()}/channels", "files/app.ipynb", "view/app.ipynb"]
    for place in places:  # no file, no list of others, no kernel by a guess
        request = b.context.request.get(server["address"] + place)
        assert request.status in (400, 403, 404, 405) and not re.search(b"DetectorApp|Traceback", request.body()), place
    a.leave()  # takes the file away
    end = time.time() + 60
    while len(uploads(server)) > 1 and time.time() < end: time.sleep(.5)
    assert uploads(server) == ["upload.mp4"]


def test_a_killed_page_leaves_nothing_behind(visitor, files, server):
    "A kernel that is killed cannot clean up; the server does, while it runs."
    psutil = pytest.importorskip("psutil", reason="psutil is not installed")
    v = visitor()
    v.bring(files / "portrait.jpg")
    v.wait("Ready")
    path = next(server["folder"].glob("deepfake-app-*/visitor-*/*/upload.jpg"))
    owner = path.parents[1] / ".owner"
    holds = lambda o: any(f.path == str(owner) for f in o.open_files())
    for o in psutil.process_iter():
        try:
            if holds(o): o.kill()
        except psutil.Error: pass  # somebody else's process
    end = time.time() + 60
    while path.parents[1].exists() and time.time() < end: time.sleep(.5)
    assert not path.parents[1].exists()


def test_keyboard_alone(visitor, files):
    "From the sample to the report without a mouse; the order of the stops is the order of the page."
    v = visitor()
    stops = []
    def tab_to(text):
        for _ in range(25):
            v.page.keyboard.press("Tab")
            stops.append(v.page.evaluate("document.activeElement ? document.activeElement.textContent?.trim() || document.activeElement.type || '' : ''"))
            if text in stops[-1]: return
        raise AssertionError(f"{text!r} cannot be reached: {stops}")
    v.page.focus("body")
    tab_to("file")
    ring = v.page.evaluate("(o => [o.outlineStyle, parseFloat(o.outlineWidth), parseFloat(o.outlineOffset)])(getComputedStyle(document.querySelector('.dn-drop')))")
    assert ring[0] == "solid" and ring[1] >= 2 and ring[2] <= -ring[1], f"a ring that something clips: {ring}"
    tab_to("Try a forged portrait")
    v.page.keyboard.press("Enter")
    v.wait("Ready")
    tab_to("Detect Deepfake")
    v.page.keyboard.press("Enter")
    v.wait("Done")
    assert v.page.evaluate("document.activeElement.textContent") == "Detect Deepfake"  # the focus stayed
    v.shoot("app-forged")
    tab_to("Advanced settings")
    v.page.keyboard.press("Space")
    v.page.get_by_text("FAKE from", exact=True).wait_for()
    tab_to("Download report (HTML)")
    with v.page.expect_download() as waiting: v.page.keyboard.press("Enter")
    assert waiting.value.suggested_filename == "deepfake-report-sample_forged.html"
    unnamed = v.page.evaluate("[...document.querySelectorAll('.dn-app img:not([alt]), .dn-app button:empty, .dn-app svg[role=img]:not([aria-label])')].length")
    assert unnamed == 0 and v.page.locator("[role=status]").count() == 1
    assert v.page.evaluate("document.documentElement.lang") == "en" and v.page.title() == "Deepfake check"
    v.shoot("app-advanced")


def test_the_page_shown_is_the_notebook():
    "Voila serves the copy in the package; it is the notebook that people see in nbs."
    cells = [[(o["cell_type"], "".join(o["source"])) for o in json.loads(p.read_text())["cells"] if o["cell_type"] == "code"]
             for p in (ROOT / "nbs" / "app.ipynb", ROOT / "deepfake_nb" / "assets" / "voila" / "app.ipynb")]
    assert cells[0] == cells[1]
