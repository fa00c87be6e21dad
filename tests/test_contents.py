"What else is in a picture's file: said in notes and record, in the verdict where it matters, and never a reason to refuse what is whole."
import io, struct, zlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageFile
from deepfake_nb.core import DeepfakeError, MediaError
from deepfake_nb.see.media import Limits, read_media, sniff_kind


@pytest.fixture(scope="module")
def portrait():
    "A real face, public domain."
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image: return image.convert("RGB").resize((400, 460))


def encoded(image, format, **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, format, **kwargs)
    return buffer.getvalue()


def chunk(name, data): return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def read(folder, data, name="picture.bin"):
    (folder / name).write_bytes(data)
    return read_media(folder / name)


# ---- damage

JPEGS = dict(baseline={}, progressive=dict(progressive=True), restarts=dict(restart_marker_rows=1), fine=dict(quality=95, subsampling=0), optimised=dict(optimize=True, quality=70))


def spoilt(data, how, at):
    at, n = int(len(data) * at), 400
    new = dict(zero=bytes(n), ones=b"\xfe" * n, other=data[-at:][:n], gone=b"", noise=np.random.default_rng(at).integers(0, 256, n, np.uint8).tobytes())[how]
    return data[:at] + new + data[at + n:]


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("how", ["zero", "ones", "other", "gone", "noise"])
def test_a_damaged_jpeg_says_so(tmp_path, portrait, kind, how):
    data = encoded(portrait, "JPEG", **dict(quality=85) | JPEGS[kind])
    assert read(tmp_path, data).notes == []
    whole = np.asarray(portrait, int)
    for at in (.35, .6):
        try: media = read(tmp_path, spoilt(data, how, at))
        except MediaError: continue  # told as well
        if (np.abs(media.frames[0] - whole).max(2) > 60).mean() < .01: continue  # nobody would see it
        assert media.contents.reasons() == ["PICTURE_DAMAGED"], (at, media.notes)
        assert "damaged" in media.notes[0] and media.looked_at["contents"][0]["code"] == "DAMAGE"


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_damage_in_grey_and_in_ink(tmp_path, portrait, mode):
    data = encoded(portrait.convert(mode), "JPEG", quality=85)
    assert "DAMAGE" not in read(tmp_path, data).contents
    assert "DAMAGE" in read(tmp_path, spoilt(data, "zero", .5)).contents


def test_a_shift_of_brightness_is_damage_too(tmp_path, portrait):
    "One bit of a difference: from there on everything is too bright, and no decoder has a word for it."
    data, found = encoded(portrait, "JPEG", quality=90), 0
    whole = np.asarray(Image.open(io.BytesIO(data)), int)
    for at in range(2000, len(data) - 2000, 997):
        for bit in (4, 64):
            flipped = bytearray(data)
            flipped[at] ^= bit
            media = read(tmp_path, bytes(flipped))
            if (np.abs(media.frames[0] - whole).max(2) > 60).mean() > .05:
                assert "DAMAGE" in media.contents, at
                found += 1
    assert found > 3


def test_what_cameras_write_is_no_damage(tmp_path, portrait):
    data = encoded(portrait, "JPEG", quality=85)
    for more in (b"\0", b"\0" * 40, b"\xff" * 5): assert "DAMAGE" not in read(tmp_path, data[:-2] + more + data[-2:]).contents
    black_and_white = Image.fromarray(np.kron(np.indices((12, 12)).sum(0) % 2, np.full((8, 8), 255)).astype(np.uint8))
    for quality in (5, 50, 90, 100): assert "DAMAGE" not in read(tmp_path, encoded(black_and_white.convert("RGB"), "JPEG", quality=quality)).contents


def test_a_png_whose_checksum_does_not_fit(tmp_path, portrait):
    data = bytearray(encoded(portrait, "PNG", compress_level=0))  # stored: what was changed still unpacks
    data[len(data) // 2:len(data) // 2 + 3000] = bytes(3000)
    try: media = read(tmp_path, bytes(data))
    except MediaError: return
    assert media.contents.reasons() == ["PICTURE_DAMAGED"]


@pytest.mark.parametrize("switch", [False, True])
def test_how_much_is_missing_decides(tmp_path, portrait, monkeypatch, switch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", switch)
    large = portrait.resize((800, 920))
    for options in (dict(), dict(progressive=True)):
        data = encoded(large, "JPEG", quality=85, **options)
        whole = read(tmp_path, data).frames[0]
        for cut in (1, 2):
            media = read(tmp_path, data[:-cut])
            assert (media.frames[0] == whole).all() and not media.contents.reasons() and "its picture is whole" in media.notes[0]
        for kept in (.3, .6, .9):
            with pytest.raises(MediaError, match="truncated"): read(tmp_path, data[:int(len(data) * kept)])
    media = read(tmp_path, encoded(large, "JPEG", quality=85)[:-200])
    assert "at the lower edge, is missing" in media.notes[0] and not media.contents.reasons()


def test_a_damaged_picture_is_judged_neither_real_nor_fake(tmp_path, portrait):
    torch = pytest.importorskip("torch")
    from deepfake_nb.judge.predict import Detector
    from deepfake_nb.measure.calibrate import AbstentionRule
    from deepfake_nb.model.scorer import create_scorer
    torch.manual_seed(0)
    data, path = encoded(portrait, "JPEG", quality=85), tmp_path / "a.jpg"
    for threshold in (.01, .99):
        detector = Detector(create_scorer("test_efficientnet", "mean", image_size=64), "cpu", threshold=threshold, face_detector="haar", abstention=AbstentionRule(min_face=0, min_sharpness=0))
        path.write_bytes(data)
        assert detector.predict(path).decision == ("FAKE" if threshold < .5 else "REAL")
        path.write_bytes(spoilt(data, "zero", .8))
        damaged = detector.predict(path)
        assert damaged.decision == "INCONCLUSIVE" and "PICTURE_DAMAGED" in damaged.reasons and any("damaged" in o for o in damaged.notes)
        assert damaged.to_dict()["looked_at"]["contents"][0]["reason"] == "PICTURE_DAMAGED"


def test_a_damaged_picture_is_no_training_face(tmp_path, portrait):
    pytest.importorskip("torch")
    from deepfake_nb.learn.crops import check_pictures
    (tmp_path / "whole.jpg").write_bytes(encoded(portrait, "JPEG", quality=85))
    (tmp_path / "bad.jpg").write_bytes(spoilt((tmp_path / "whole.jpg").read_bytes(), "zero", .5))
    table = pd.DataFrame(dict(path=["whole.jpg", "bad.jpg"], label=[0, 1]))
    check_pictures(table.iloc[:1], tmp_path)
    with pytest.raises(DeepfakeError, match="bad.jpg: a damaged picture"): check_pictures(table, tmp_path)


def test_a_damaged_picture_gives_no_crops(tmp_path, portrait):
    pytest.importorskip("torch")
    from deepfake_nb.data.extract import extract
    (tmp_path / "whole.jpg").write_bytes(encoded(portrait, "JPEG", quality=85))
    (tmp_path / "bad.jpg").write_bytes(spoilt((tmp_path / "whole.jpg").read_bytes(), "zero", .8))
    table = pd.DataFrame(dict(path=[str(tmp_path / "whole.jpg"), str(tmp_path / "bad.jpg")], label=[0, 1], split=["train", "train"], group=["a", "b"], dataset="d", method=["real", "swap"]))
    crops = extract(table, tmp_path / "out", size=64, workers=0, face_detector="haar", progress=False)
    failures = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert set(crops.source_path) == {str(tmp_path / "whole.jpg")} and failures.reason.tolist() == ["PICTURE_DAMAGED"]


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_damage_that_a_stricter_decoder_reports(tmp_path, portrait, format):
    if format == "HEIF": pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(portrait, format, quality=80)
    assert read(tmp_path, data).notes == []
    found = 0
    for at in np.linspace(.25, .9, 8):
        try: found += "DAMAGE" in read(tmp_path, spoilt(data, "zero", at)).contents
        except MediaError: found += 1
    assert found == 8 if format == "AVIF" else found >= 2


# ---- which way is up

XMP = (b"<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
       b"<rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation=\"6\"/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("exif", [None, 1, 3])
def test_text_turns_no_picture(tmp_path, portrait, format, exif):
    "Orientation in XMP is a claim by whoever edited the text; EXIF or the container counts."
    if format == "HEIF": pytest.importorskip("pillow_heif").register_heif_opener()
    small, options = portrait.resize((64, 48)), {}
    small.paste((255, 0, 0), (0, 0, 64, 16))
    if exif: options["exif"] = Image.Exif(); options["exif"][0x0112] = exif; options["exif"][271] = "camera"
    if format == "PNG":
        data = encoded(small, format, **options)
        data = data[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + data[33:]
    elif format == "TIFF":
        data = encoded(small, format, tiffinfo={700: XMP} | ({274: exif} if exif else {}))
    elif format == "HEIF":  # its encoder would obey the text
        data = encoded(small, format, xmp=XMP.replace(b'="6"', b'="1"'), **options).replace(b'tiff:Orientation="1"', b'tiff:Orientation="6"')
        assert b'tiff:Orientation="6"' in data
    else: data = encoded(small, format, xmp=XMP, **options)
    frame = read(tmp_path, data).frames[0]
    assert frame.shape == (48, 64, 3)
    top, bottom = (o.mean((0, 1)) for o in (frame[:12], frame[-12:]))
    red, turned = (lambda o: o[0] - o[1] > 120), exif == 3 and format != "HEIF"  # of a HEIC, irot counts
    assert red(bottom if turned else top) and not red(top if turned else bottom)


# ---- films and pictures behind the picture

FILM = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(400)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "AVIF", "HEIF"])
def test_what_lies_behind_is_said(tmp_path, portrait, format):
    if format == "HEIF": pytest.importorskip("pillow_heif").register_heif_opener()
    small = portrait.resize((96, 112))
    data, second = encoded(small, format), encoded(small, "JPEG")
    assert read(tmp_path, data).notes == []
    media = read(tmp_path, data + (struct.pack(">I", 8 + len(FILM)) + b"mpvd" if format in ("AVIF", "HEIF") else b"") + FILM)
    assert "A film lies behind the picture" in media.notes[0] and media.contents.reasons() == [] and media.kind == "image"
    assert media.looked_at["contents"] == [dict(code="FILM", text=media.notes[0], reason="")]
    if format not in ("AVIF", "HEIF"):
        media = read(tmp_path, data + second)
        assert "1 more JPEG picture " in media.notes[0] and "FURTHER_PICTURE" in media.contents


def test_the_other_eye(tmp_path, portrait):
    media = read(tmp_path, encoded(portrait, "MPO", save_all=True, append_images=[portrait.rotate(5)]))
    assert "1 more JPEG picture" in media.notes[0] and (media.kind, sniff_kind(tmp_path / "picture.bin")) == ("image", "image")


def test_several_pictures_are_no_animation(tmp_path, portrait):
    heif = pytest.importorskip("pillow_heif")
    file = heif.from_pillow(portrait.resize((96, 112)))
    file.add_from_pillow(portrait.resize((64, 64)))
    file.save(tmp_path / "two.heic")
    media = read_media(tmp_path / "two.heic")
    assert media.kind == "image" and "1 more picture beside the one" in media.notes[0] and not any("nimation" in o for o in media.notes)


def test_pages(tmp_path, portrait):
    pages = [portrait.resize((96, 112)), portrait.resize((96, 112)).rotate(90)]
    media = read(tmp_path, encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert media.notes == ["Only the first of its pages was looked at."] and "FURTHER_PICTURE" in media.contents


# ---- what a reader cannot do is not called damage

@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("size", [1 << 16, 3 << 20])
@pytest.mark.parametrize("behind", [False, True])
def test_megabytes_of_text_in_a_png(tmp_path, portrait, name, size, behind):
    text = b"x" * size
    content = dict(tEXt=b"prompt\0" + text, zTXt=b"prompt\0\0" + zlib.compress(text), iTXt=b"prompt\0\1\0\0\0" + zlib.compress(text))[name.decode()]
    data = encoded(portrait, "PNG")
    at = len(data) - 12 if behind else 33
    media = read(tmp_path, data[:at] + chunk(name, content) * 3 + data[at:])
    assert (media.frames[0] == np.asarray(portrait)).all() and media.notes == []


def test_a_colour_profile_that_unpacks_to_megabytes(tmp_path, portrait):
    data = encoded(portrait, "PNG")
    media = read(tmp_path, data[:33] + chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(200 << 20))) + data[33:])
    assert "colour profile has more than" in media.notes[0] and "LIMIT" in media.contents


def big_tiff(pixels):
    "An uncompressed BigTIFF."
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).tobytes()
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 3, 8 | 8 << 16 | 8 << 32), 259: (3, 1, 1), 262: (3, 1, 2), 273: (16, 1, 16), 277: (3, 1, 3), 278: (4, 1, height), 279: (16, 1, len(data))}
    table = struct.pack("<Q", len(tags)) + b"".join(struct.pack("<HHQQ", k, kind, n, v) for k, (kind, n, v) in sorted(tags.items())) + struct.pack("<Q", 0)
    return b"II+\0\x08\0\0\0" + struct.pack("<Q", 16 + len(data)) + data + table


def test_big_tiff(tmp_path, portrait):
    pixels = np.asarray(portrait)
    media = read(tmp_path, big_tiff(pixels))
    assert media.format == "TIFF" and (media.frames[0] == pixels).all() and media.notes == []


def test_floating_point_is_named(tmp_path, portrait):
    grey = np.asarray(portrait.convert("L"), np.float32)
    assert np.abs(read(tmp_path, encoded(Image.fromarray(grey / 255), "TIFF")).frames[0][..., 0] - grey).max() <= 1
    import cv2
    for pixels in (grey * 10, np.dstack([grey] * 3) / 255):
        cv2.imwrite(str(tmp_path / "float.tif"), pixels)
        with pytest.raises(MediaError, match="floating-point numbers") as caught: read_media(tmp_path / "float.tif")
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("masks", [(0xf800, 0x07e0, 0x001f), (0x7c00, 0x03e0, 0x001f)])
def test_five_bits_of_red_are_not_sixteen(tmp_path, masks):
    size, rows = (16, 8), np.full((8, 16), masks[0], "<u2").tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, *size, 1, 16, 3, len(rows), 2835, 2835, 0, 0) + struct.pack("<III", *masks)
    media = read(tmp_path, b"BM" + struct.pack("<IHHI", 14 + len(head) + len(rows), 0, 0, 14 + len(head)) + head + rows)
    assert media.notes == [] and (media.frames[0][0, 0] >= (247, 0, 0)).all() and media.frames[0][0, 0, 1] == 0


def test_a_file_of_the_kernel_is_never_waited_for(tmp_path):
    "Some of them are regular files by name, and empty; reading one may wait for ever."
    import os, subprocess, sys
    from pathlib import Path
    if not Path("/proc/kmsg").exists(): pytest.skip("a system without /proc/kmsg")
    (tmp_path / "link.jpg").symlink_to("/proc/kmsg")
    os.mkfifo(tmp_path / "pipe.jpg")
    code = "import sys\nfrom deepfake_nb.see.media import read_media\nfor o in sys.argv[1:]:\n    try: read_media(o)\n    except Exception as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "link.jpg", tmp_path / "pipe.jpg"], capture_output=True, text=True, timeout=60)
    assert "link.jpg: an empty file" in done.stdout or "cannot be opened" in done.stdout
    assert "pipe.jpg: not a regular file" in done.stdout


def test_pillow_heif_belongs_to_the_base():
    from configparser import ConfigParser
    from project import ROOT
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT / "settings.ini")
    base = settings["DEFAULT"]["requirements"]
    assert "pillow-heif>=" in base and "simplejpeg>=" in base
