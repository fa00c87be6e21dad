"Files and names made to do harm: each ends in a sentence or in a verdict, and nothing of them runs or leaks."
import base64, io, json, re, struct, zipfile, zlib
import pytest
from project import ROOT

for package in ("nbconvert", "torch"): pytest.importorskip(package, reason=f"{package} is not installed")
PORTRAIT = ROOT / "deepfake_nb" / "assets" / "app" / "sample_real.jpg"
NAMES = ("<img src=x onerror=alert(1)>.jpg", "holiday\u202egpj.exe.jpg", "x" * 300 + ".jpg", "a\nb\r\tc\0d.jpg", "'; rm -rf ~ #.jpg", "../../etc/passwd",
         "\udcff\udc80.jpg", "\u202e\u2066\u200f.jpg", "{{7*7}}{% raw %}.jpg", "</title><script>alert(1)</script>.jpg", ".jpg", "-rf.jpg", "مرحبا שלום 芳.jpg")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    import torch
    from deepfake_nb.serve.engine import Engine
    from deepfake_nb.model.scorer import create_scorer, save_scorer
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_scorer(create_scorer("test_efficientnet", "mean", image_size=64, name="random"), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFAKE_NB_FACE_DETECTOR", "haar")
        yield Engine([path], "cpu", frames=4)


def small(path):
    "A portrait that is quickly judged."
    from PIL import Image
    with Image.open(PORTRAIT) as image:
        image.thumbnail((256, 256))
        image.save(path)
    return path


def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    "A PNG of a few kilobytes that unpacks to width x height pixels."
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 + width // 8)) for _ in range(height)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def zipped(name="mimetype", data=b"hello"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z: z.writestr(name, data)
    return buffer.getvalue()


def film_bytes(folder):
    import numpy as np
    from deepfake_nb.see.media import write_video
    write_video(folder / "whole.mp4", [np.full((120, 160, 3), 20 * i, np.uint8) for i in range(8)], fps=4)
    return (folder / "whole.mp4").read_bytes()


BAD = dict(zip_as_jpg=lambda folder: zipped(), empty=lambda folder: b"", html=lambda folder: b"<html><script>alert(1)</script></html>", svg=lambda folder: b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
           bomb=lambda folder: bomb(40_000, 40_000), header_only=lambda folder: bomb(64, 64)[:40], truncated_mp4=lambda folder: film_bytes(folder)[:600],
           playlist=lambda folder: b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n", concat=lambda folder: b"ffconcat version 1.0\nfile /etc/passwd\n",
           elf=lambda folder: b"\x7fELF" + bytes(2000), pickle=lambda folder: b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.", noise=lambda folder: bytes(range(256)) * 40)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_gets_a_sentence(kind, engine, tmp_path):
    from deepfake_nb.serve.engine import EngineError
    path = tmp_path / "upload.jpg"
    path.write_bytes(BAD[kind](tmp_path))
    for work in (engine.preview, engine.examine):
        with pytest.raises(EngineError) as caught: work(path, "mine.jpg")
        sentence = str(caught.value)
        assert sentence.startswith("mine.jpg") and str(tmp_path) not in sentence and "Traceback" not in sentence and "unexpected" not in sentence, sentence
        assert "Accepted" in sentence and len(sentence) < 600


def test_two_things_at_once(engine, tmp_path):
    "A picture that is a zip archive and a web page too is a picture here, and what comes after it is not read."
    path = tmp_path / "upload.jpg"
    path.write_bytes(PORTRAIT.read_bytes() + b"<script>alert(1)</script>" + zipped("evil.html", b"<script>alert(2)</script>"))
    seen = engine.examine(path, "mine.jpg")
    assert seen.prediction.faces and "alert(" not in seen.page and "<script" not in seen.page


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_are_text(name, engine, tmp_path):
    from deepfake_nb.serve.app import report_name, verdict_html
    path = small(tmp_path / "upload.jpg")
    look, seen = engine.preview(path, name), engine.examine(path, name)
    for text in (look.text, seen.prediction.path):
        assert text.isprintable() and "/" not in text.replace(" / ", "") and len(text) < 300, text
    pages = seen.page + verdict_html(seen.prediction)
    assert "<script" not in pages and not re.search(r"<img [^>]*onerror", pages) and str(tmp_path) not in pages and pages.count("</title>") == 1
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\0]", pages)
    assert re.fullmatch(r"deepfake-report-[\w.-]{1,60}\.pdf", report_name(name, "pdf"), re.ASCII)
    json.dumps(seen.record, allow_nan=False).encode()


def test_metadata_is_text(engine, tmp_path):
    from PIL import Image, PngImagePlugin
    evil, turned = "<script>alert('exif')</script>", "\u202egpj.exe\0\n"
    exif = Image.Exif()
    exif[271], exif[305], exif[270], exif[315] = evil, turned, "x" * 50_000, '" onmouseover="alert(3)'
    with Image.open(PORTRAIT) as image:
        image.save(tmp_path / "upload.jpg", exif=exif)
        texts = PngImagePlugin.PngInfo()
        texts.add_text(evil[:70], evil * 2)
        texts.add_text("XML:com.adobe.xmp", f"<x:xmpmeta xmp:CreatorTool='{evil}'/>")
        texts.add_text("long", "y" * 900_000, zip=True)
        image.save(tmp_path / "upload.png", pnginfo=texts)
    for path in (tmp_path / "upload.jpg", tmp_path / "upload.png"):
        page = engine.examine(path, path.name).page
        assert "&lt;script&gt;" in page and "<script" not in page and not re.search(r"<[^>]*\sonmouseover", page) and "\u202e" not in page
        assert "x" * 400 not in page and "y" * 400 not in page and len(page) < 2_000_000


def test_verify_finds_any_change(engine, tmp_path, capsys):
    "What belongs together passes; one changed byte anywhere does not."
    from deepfake_nb.cli import deepfake_report
    from deepfake_nb.core import DeepfakeError
    from deepfake_nb.serve.engine import record_file
    path = small(tmp_path / "upload.jpg")
    seen, pdf = engine.examine(path, "portrait.jpg"), b"%PDF-1.7 pretended"
    parts = {"report.html": seen.page.encode(), "report.pdf": pdf, "report.json": record_file(seen.record, seen.page, pdf), path.name: path.read_bytes()}
    for name, data in parts.items(): (tmp_path / name).write_bytes(data)
    def fits():
        try: return not deepfake_report.__wrapped__(verify=str(tmp_path / "report.json"), input=str(path))
        except (DeepfakeError, SystemExit) as e: return not getattr(e, "code", 1)
    assert fits()
    heatmap = next(o for o in seen.pictures if o.name == "heatmap")
    place = parts["report.html"].index(base64.b64encode(heatmap.data)) + 200
    for name, places in {"report.html": [10, place], "report.pdf": [3], "report.json": range(5, len(parts["report.json"]), len(parts["report.json"]) // 15), path.name: [0, 5000, -1]}.items():
        for i in places:
            data = bytearray(parts[name])
            data[i] ^= 1
            (tmp_path / name).write_bytes(data)
            assert not fits(), (name, i)
            if i == place: assert "DIFFERENT  heatmap in report.html" in capsys.readouterr().out
        (tmp_path / name).write_bytes(parts[name])
    assert fits()


@pytest.mark.parametrize("name", ["report.html", "report.pdf", "heatmap.png"])
@pytest.mark.parametrize("instead", ["nothing", "folder", "fifo", "link to nothing"])
def test_what_was_recorded_and_cannot_be_read_is_different(name, instead, tmp_path):
    "A page that somebody removed or replaced is no page that fits."
    import os
    from deepfake_nb.core import Prediction, sha256_file
    from deepfake_nb.tell.report import Report, written
    from deepfake_nb.tell.verify import verify_report
    file = tmp_path / "a.jpg"
    file.write_bytes(b"a picture")
    record = Report(Prediction("a.jpg", "REAL", .1, sha256=sha256_file(file))).to_dict()
    (tmp_path / name).write_bytes(b"a page")
    (tmp_path / "report.json").write_text(written(record | dict(files={name: sha256_file(tmp_path / name)})))
    assert verify_report(tmp_path / "report.json", file).ok
    (tmp_path / name).unlink()
    if instead == "folder": (tmp_path / name).mkdir()
    if instead == "fifo":
        if not hasattr(os, "mkfifo"): pytest.skip("no pipes with names here")
        os.mkfifo(tmp_path / name)
    if instead == "link to nothing": (tmp_path / name).symlink_to(tmp_path / "gone")
    found = verify_report(tmp_path / "report.json", file)
    assert not found.ok and f"DIFFERENT  {name}" in str(found)
