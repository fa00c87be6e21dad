"What a file says of its own origin stands beside the verdict, each with how far it can be believed, and is never the verdict."
import html, json
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image
from PIL.PngImagePlugin import PngInfo

pytest.importorskip("torch", reason="torch is not installed")
SETTINGS = "a portrait\nSteps: 30, Sampler: Euler a, CFG scale: 7, Seed: 1"
CAMERA = {271: "Canon", 272: "Canon EOS R5"}


@pytest.fixture(scope="module")
def detector():
    import torch
    from deepfake_nb.judge.predict import Detector
    from deepfake_nb.model.scorer import create_scorer
    torch.manual_seed(0)
    return Detector(create_scorer("test_efficientnet", "mean", image_size=64, name="random"), "cpu", frames=4, face_detector="haar")


@pytest.fixture(scope="module")
def portrait():
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image: return image.convert("RGB").resize((256, 300))


def png(path, portrait, **texts):
    info = PngInfo()
    for k, v in texts.items(): info.add_itxt(k, v)
    portrait.save(path, pnginfo=info)
    return path


def same_but_for_claims(a, b):
    "Are two records the same in all that a look at faces gives?"
    left_out = {"path", "sha256", "created", "claims", "marked", "notes"}
    return {k: v for k, v in a.to_dict().items() if k not in left_out} == {k: v for k, v in b.to_dict().items() if k not in left_out}


def test_a_text_is_a_note_and_changes_nothing(detector, portrait, tmp_path):
    plain = detector.predict(png(tmp_path / "plain.png", portrait))
    made = detector.predict(png(tmp_path / "made.png", portrait, parameters=SETTINGS))
    assert plain.claims == [] and plain.marked is None
    [claim] = made.claims
    assert (claim.kind, claim.belief, claim.by, claim.where) == ("GENERATED", "UNSIGNED", "Stable Diffusion", "text 'parameters'")
    assert claim.text in made.notes and "anyone can write that" in claim.text and made.marked is None
    assert same_but_for_claims(plain, made) and [o for o in made.notes if o != claim.text] == plain.notes


def test_nobody_is_real_by_the_name_of_a_camera(detector, portrait, tmp_path):
    exif = Image.Exif()
    exif.update(CAMERA)
    portrait.save(tmp_path / "plain.jpg")
    portrait.save(tmp_path / "camera.jpg", exif=exif)
    plain, camera = (detector.predict(tmp_path / o) for o in ("plain.jpg", "camera.jpg"))
    assert [o.kind for o in camera.claims] == ["CAPTURED"] and same_but_for_claims(plain, camera)
    assert camera.notes == plain.notes  # it stands among the claims; a note would repeat it with every photograph


def test_page_and_report_say_the_same(detector, portrait, tmp_path):
    pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    from deepfake_nb.serve.app import verdict_html
    from deepfake_nb.tell.claimed import NOTHING_SAID
    from deepfake_nb.tell.report import make_report
    made = detector.predict(path := png(tmp_path / "made.png", portrait, parameters="<script>alert(1)</script>\n" + SETTINGS, Software="<b onclick='x'>Midjourney"))
    report = make_report(made, file=path)
    page, app = report.to_html(), verdict_html(made)
    for o in made.claims:
        assert o.text in html.unescape(page) and html.unescape(app).count(o.text) == 1  # not among the notes once more
    assert len(made.claims) == 2 and "<script" not in page + app and "<b onclick" not in page + app
    record = json.loads(json.dumps(report.to_dict()))
    assert [o["text"] for o in record["prediction"]["claims"]] == [o.text for o in made.claims] and record["prediction"]["marked"] is None
    plain = detector.predict(path := png(tmp_path / "plain.png", portrait))
    assert NOTHING_SAID in make_report(plain, file=path).to_html() and NOTHING_SAID in verdict_html(plain)


def test_a_saved_prediction_comes_back(detector, portrait, tmp_path):
    from deepfake_nb.core import DeepfakeError
    from deepfake_nb.tell.report import load_prediction
    made = detector.predict(png(tmp_path / "made.png", portrait, parameters=SETTINGS))
    (tmp_path / "prediction.json").write_text(made.to_json())
    assert load_prediction(tmp_path / "prediction.json").claims == made.claims
    for change in (dict(belief="CERTAIN"), dict(kind=3), dict(text=None), dict(further=1)):
        record = made.to_dict()
        record["claims"][0] |= change
        (tmp_path / "prediction.json").write_text(json.dumps(record))
        with pytest.raises(DeepfakeError, match=r"claims\[0\]"): load_prediction(tmp_path / "prediction.json")
    record = made.to_dict()
    del record["claims"], record["marked"]  # of an older version
    (tmp_path / "prediction.json").write_text(json.dumps(record))
    assert load_prediction(tmp_path / "prediction.json").claims is None


def test_a_film_says_it_in_its_tags(detector, portrait, tmp_path):
    import av
    with av.open(str(tmp_path / "a.mp4"), "w", options=dict(movflags="use_metadata_tags")) as out:
        out.metadata.update(software="FaceFusion 3.4")
        stream = out.add_stream("mpeg4", 5, width=256, height=300, pix_fmt="yuv420p")
        for i in range(6): out.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(np.asarray(portrait), i, 1), "rgb24")))
        out.mux(stream.encode())
    found = detector.predict(tmp_path / "a.mp4")
    assert [(o.kind, o.by, o.where) for o in found.claims] == [("FACE_CHANGED", "FaceFusion", "tag 'software'")]
    assert found.claims[0].text in found.notes
