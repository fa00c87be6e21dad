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


# ---- signed records

MIMES = {"a.jpg": "image/jpeg", "a.png": "image/png", "a.webp": "image/webp", "a.mp4": "video/mp4"}


@pytest.fixture(scope="module")
def plain(portrait, tmp_path_factory):
    "The portrait in four kinds of files, of which none says anything."
    from deepfake_nb.see.media import write_video
    folder = tmp_path_factory.mktemp("plain")
    for name in ("a.jpg", "a.png", "a.webp"): portrait.save(folder / name)
    write_video(folder / "a.mp4", [np.roll(np.asarray(portrait), i, 1) for i in range(6)], 5)
    return folder


@pytest.fixture(scope="module")
def signers(tmp_path_factory):
    "A maker whose authority is on the list, and a stranger."
    pytest.importorskip("c2pa", reason="c2pa-python is not installed")
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    from signing import certificate, pem
    authority, path = certificate("Authority"), tmp_path_factory.mktemp("trust") / "trusted.pem"
    path.write_bytes(pem(authority[0]))
    return path, certificate("Maker <i>", authority), certificate("Maker <i>", certificate("Authority"))


@pytest.fixture(scope="module")
def trusting(detector, signers):
    from deepfake_nb.judge.predict import Detector
    return Detector(detector.scorer, "cpu", frames=4, face_detector=detector.face_detector, trust=signers[0])


@pytest.mark.parametrize("name", MIMES)
def test_a_trusted_mark_stands_above_the_verdict(name, plain, signers, detector, trusting, tmp_path):
    from signing import says, signed
    path, maker, stranger = signers
    for word, kind in (("trainedAlgorithmicMedia", "GENERATED"), ("digitalCapture", "CAPTURED")):
        for signer, judge, belief in ((maker, trusting, "TRUSTED"), (stranger, trusting, "SIGNED"), (maker, detector, "SIGNED")):
            (tmp_path / name).write_bytes(signed((plain / name).read_bytes(), MIMES[name], says(word), signer))
            found = judge.predict(tmp_path / name)
            [claim] = found.claims
            assert (claim.kind, claim.belief, claim.signer) == (kind, belief, "Maker <i>") and "unchanged since" in claim.text
            marks = kind == "GENERATED" and belief == "TRUSTED"
            assert found.marked == (claim.text if marks else None) and (claim.text in found.notes) == (kind == "GENERATED" and not marks)
            if name == "a.png": assert (found.decision, found.probability) == (lambda o: (o.decision, o.probability))(judge.predict(plain / name))


def test_a_changed_file_has_a_broken_signature(plain, signers, tmp_path):
    from deepfake_nb.see.claims import read_claims
    from deepfake_nb.see.credentials import load_trust
    from signing import says, signed
    for name, mime in MIMES.items():
        before = (plain / name).read_bytes()
        made = bytearray(signed(before, mime, says("trainedAlgorithmicMedia"), signers[1]))
        made[made.index(before[len(before) // 2:][:12])] ^= 1
        (tmp_path / name).write_bytes(made)
        [claim] = read_claims(tmp_path / name, load_trust(signers[0]))
        assert claim.belief == "BROKEN" and "changed since Maker <i> signed it" in claim.text and "They said" in claim.text, name


def test_pages_rows_and_records_show_the_mark_first(plain, signers, trusting, tmp_path):
    pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from deepfake_nb.serve.app import verdict_html
    from deepfake_nb.serve.ledger import file_row, rows_table
    from deepfake_nb.tell.report import make_report
    from signing import says, signed
    (tmp_path / "a.jpg").write_bytes(signed((plain / "a.jpg").read_bytes(), "image/jpeg", says("trainedAlgorithmicMedia"), signers[1]))
    found = trusting.predict(tmp_path / "a.jpg")
    report = make_report(found, file=tmp_path / "a.jpg")
    for page in (report.to_html(), verdict_html(found)):
        body = page[page.index("<main"):] if "<main" in page else page
        assert "Maker <i>" not in page and "Imager <b>" not in page  # markup in names stays text
        assert 'class="stamp"' in page or 'class="dn-mark"' in page  # and not "mark", which is the threshold on the scale
        assert 0 < html.unescape(body).index(found.marked) < body.index(f">{found.decision}<")
    setup = dict(weights=dict(name="random", sha256="0" * 64), threshold=.5, face_detector=dict(name="haar"), version="1")
    row = file_row(found, 1., setup)
    assert row["marked"] == found.marked and row["claims"] == [found.marked] and row["decision"] == found.decision
    assert rows_table([row]).column_names.index("marked") < rows_table([row]).column_names.index("decision")
    from deepfake_nb.serve.ledger import Ledger
    from deepfake_nb.serve.summary import summarise
    with Ledger(tmp_path / "scan", setup) as ledger: ledger.add(row)
    summary = summarise(tmp_path / "scan")
    page = summary.save_html(tmp_path / "summary.html").read_text()
    assert summary.marks == 1 and "1 marked as made or changed" in str(summary) and "Maker <i>" not in page
    assert html.unescape(page).index(found.marked) < page.index("1 files")
    record = json.loads(found.to_json())
    assert list(record).index("marked") < list(record).index("decision") and record["marked"] == found.marked
    assert record["settings"]["trust"]["name"] == "trusted.pem" and len(record["settings"]["trust"]["sha256"]) == 64


def test_nothing_is_fetched(plain, signers, trusting, tmp_path):
    "A record that lies elsewhere is asked for by nobody: a server that would have it hears nothing."
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from signing import says, signed
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self): asked.append(self.path)
        do_HEAD = do_GET

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/a.c2pa"
        (tmp_path / "a.jpg").write_bytes(signed((plain / "a.jpg").read_bytes(), "image/jpeg", says("trainedAlgorithmicMedia"), signers[1], address))
        [claim] = trusting.predict(tmp_path / "a.jpg").claims
        server.shutdown()
    assert (claim.kind, claim.belief, claim.value) == ("SILENT", "UNCHECKED", address) and "127.0.0.1: they were not fetched" in claim.text and not asked


def test_a_list_that_is_none_is_wrong_usage(signers, tmp_path, monkeypatch):
    from deepfake_nb.shell import run_command
    (tmp_path / "list.pem").write_text("hello")
    code, _, error = run_command("deepfake_predict", "a.jpg", "--trust", str(tmp_path / "list.pem"))
    assert code == 2 and "--trust" in error and "no certificate in it" in error
    monkeypatch.setenv("DEEPFAKE_NB_TRUST", str(signers[0]))
    from deepfake_nb.see.credentials import named_trust
    assert named_trust(None).count == 1


# ---- reports that are signed

PDF = (b"%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Kids[3 0 R]/Count 1>>\nendobj\n3 0 obj\n"
       b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>\nendobj\nxref\n0 4\n0000000000 65535 f \n0000000009 00000 n \n0000000054 00000 n \n"
       b"0000000105 00000 n \ntrailer\n<</Size 4/Root 1 0 R>>\nstartxref\n166\n%%EOF\n")


def test_a_signed_report_says_who_wrote_it(detector, portrait, signers, tmp_path, monkeypatch):
    pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    pytest.importorskip("weasyprint", reason="weasyprint is not installed")
    from deepfake_nb.shell import run_command
    from deepfake_nb.tell import report as module
    from signing import certificate, key_pem, pem
    monkeypatch.setattr(module, "to_pdf", lambda page, path, notes: path.write_bytes(PDF))  # what prints it is tried elsewhere
    file = png(tmp_path / "a.png", portrait)
    (tmp_path / "prediction.json").write_text(detector.predict(file).to_json())
    authority = certificate("Newsroom authority")
    editor = certificate("Editor <b>", authority)
    for name, data in {"editor.pem": pem(editor[0]), "editor.key": key_pem(editor[1]), "list.pem": pem(authority[0])}.items(): (tmp_path / name).write_bytes(data)

    def run(*arguments):
        code, out, error = run_command("deepfake_report", *map(str, arguments))
        return code, out + error

    made = run(tmp_path / "prediction.json", "--input", file, "--out", tmp_path, "--sign", tmp_path / "editor.pem", tmp_path / "editor.key")
    assert made[0] == 0, made
    verify = "--verify", tmp_path / "report.pdf", "--input"
    code, said = run(*verify, file, "--trust", tmp_path / "list.pem")
    assert code == 0 and "signed by Editor <b>, unchanged since" in said and "on the list" in said
    assert run(*verify, file)[0] == 0 and "anybody can sign in any name" in run(*verify, file)[1]
    assert run(*verify, file, "--trust", signers[0])[0] == 1  # somebody else's list
    (tmp_path / "b.png").write_bytes(file.read_bytes() + b"0")
    assert run(*verify, tmp_path / "b.png")[0] == 1 and "about another file" in run(*verify, tmp_path / "b.png")[1]
    assert run("--verify", tmp_path / "report.json", "--input", file)[0] == 0  # the hashes are those of the signed PDF
    signed, changed = (tmp_path / "report.pdf").read_bytes(), PDF.index(b"MediaBox")
    (tmp_path / "report.pdf").write_bytes(signed[:changed] + b"mediaBox" + signed[changed + 8:])
    assert run(*verify, file)[0] == 1 and "changed since Editor <b> signed it" in run(*verify, file)[1]
    (tmp_path / "report.pdf").write_bytes(PDF)
    assert run(*verify, file) == (1, "The report carries no signature.\n")
    again = tmp_path / "prediction.json", "--input", file, "--out", tmp_path, "--sign", tmp_path / "editor.pem"
    (tmp_path / "other.key").write_bytes(key_pem(authority[1]))
    for key, words in (("list.pem", "no private key in it"), ("other.key", "cannot be signed with")):
        code, said = run(*again, tmp_path / key)
        assert code == 1 and words in said, said
