"People have one number, the same everywhere, and their heat maps one scale."
import json, re
from types import SimpleNamespace
import numpy as np, pytest, torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from deepfake_nb.core import prediction_from_dict
from deepfake_nb.see.look import Look
from deepfake_nb.judge.explain import explain
from deepfake_nb.judge.predict import Detector
from deepfake_nb.model.scorer import create_scorer
from deepfake_nb.see.detect import FaceDetector
from deepfake_nb.see.faces import Face, extract_clips
from deepfake_nb.see.files import Media
from deepfake_nb.see.follow import Follower
from deepfake_nb.tell.report import make_report

BOXES = (300, 20, 60, 80), (20, 40, 90, 120), (480, 30, 110, 150), (160, 10, 20, 25)  # from left to right: 2, 4, 1, 3; the last one too small to judge
NUMBERS = [4, 1, 3, 2]  # of the same, the largest first, and who is too small at the end


class There(FaceDetector):
    "Finds the faces that it was told of, those of each frame."
    name, sha256, note, relation, first_side = "there", "0"*64, None, (0, 0, 1, 1), 640
    def __init__(self, frames): self.frames = list(frames)
    def detect(self, frames): return [[Face(tuple(map(float, o)), 1.) for o in boxes] for boxes in self.frames]


@pytest.fixture(scope="module")
def scorer():
    torch.manual_seed(0)
    return create_scorer("test_efficientnet", "mean", clip_length=4, image_size=64)


def crowd(width=640, height=240):
    "A picture with grain."
    return np.random.default_rng(0).integers(60, 200, (height, width, 3), np.uint8)


def judged(scorer, frames, kind="image", **settings):
    "The prediction on a picture, or a film of a frame each half second."
    finder = There(frames)
    detector = Detector(scorer, "cpu", face_detector=finder, second_look=0, **settings)
    media = Media("a file", kind, [crowd() for _ in frames], [i/2 for i in range(len(frames))], 640, 240, 1., len(frames),
                  len(frames)/2 if kind == "video" else 0., "PNG", [])
    return detector, detector.verdict(Look(media, finder, finder.detect(media.frames)))


def test_people_of_a_picture_are_numbered_from_left_to_right(scorer):
    "The first one of the list is the largest, as ever: the verdict's main person does not hang on numbers."
    _, found = judged(scorer, [BOXES])
    by_size = sorted(found.faces, key=lambda o: -o.face_size)
    assert found.faces == by_size and [o.box[0] for o in by_size] == [480, 20, 300, 160]
    assert [o.person for o in sorted(found.faces, key=lambda o: o.box[0])] == [1, 2, 3, 4]
    assert [o["person"] for o in json.loads(found.to_json())["faces"]] == [o.person for o in found.faces] == [4, 1, 3, 2]
    assert [o.person for o in found.evidence] == [4, 1, 3]


def test_people_of_a_film_are_numbered_by_where_they_were_seen_first(scorer):
    left, right, late = (40, 40, 90, 120), (420, 40, 100, 130), (240, 40, 80, 110)
    moved = lambda box, by: (box[0] + by, *box[1:])
    frames = [[moved(left, 6*i), moved(right, -6*i)] + [late]*(i >= 5) for i in range(10)]
    _, found = judged(scorer, frames, "video")
    assert [(o.person, round(o.timeline[0].box[0])) for o in found.faces] == [(3, 420), (1, 40), (2, 240)]
    assert {o.person for o in found.segments} <= {1, 2, 3}


def test_tables_pictures_and_report_say_the_same_number_in_order(scorer):
    detector, found = judged(scorer, [BOXES])
    numbers = lambda page, cell: [int(o) for o in re.findall(cell, page)]
    assert numbers(found._repr_html_(), r"<tr><td>(\d+)</td>") == [1, 2, 3, 4]
    explanation = explain(detector, found)
    report = make_report(found, explanation)
    assert numbers(report.people(), r"<tr><td>(\d+)</td>") == [1, 2, 3, 4]
    assert repr(explanation).count("person 4 in 1 frames") == 1 and "person 0" not in repr(explanation)


def test_clips_that_are_cut_for_training_have_the_same_numbers():
    media = SimpleNamespace(frames=[crowd()], times=[0.], notes=[])
    clips, dropped = extract_clips(media, There([BOXES]), 32, max_people=5, min_frames=1, min_face=40)
    assert [o.person for o in clips] == [4, 1, 3] and [o["person"] for o in dropped] == [2]


def test_who_comes_together_into_a_live_picture_is_numbered_from_left_to_right():
    class Finder:
        def detect(self, frames): return [[Face(tuple(map(float, o)), 1.) for o in BOXES[:3]]]
    follower = Follower(Finder(), every=1)
    for i in range(4): seen = follower.update(crowd(), i/10)
    assert {round(o.face.box[0]): o.number for o in seen} == {20: 1, 300: 2, 480: 3}


def test_a_record_of_an_older_version_is_read(scorer):
    "It counted from 0; its own pictures said 1 for that."
    _, found = judged(scorer, [BOXES])
    record = json.loads(found.to_json())
    for i, o in enumerate(record["faces"]): o["person"] = i
    record["segments"] = [dict(person=1, start=0., end=1., probability=.9, frames=3)]
    old = prediction_from_dict(record)
    assert [o.person for o in old.faces] == [1, 2, 3, 4] and old.segments[0].person == 2
    assert prediction_from_dict(json.loads(found.to_json())).faces == found.faces


# ---- heat maps on one scale

def reddened(explanation, person):
    "How far the hottest place of somebody's strip is from the picture, in grey levels."
    clip, i = person.clip, person.positions[0]
    plain = explanation.strip(person).astype(int)
    person.maps, maps = person.maps*0, person.maps
    cold = explanation.strip(person).astype(int)
    person.maps = maps
    return int(abs(plain - cold).max())


def test_a_real_face_is_pale_beside_a_forged_one(scorer):
    "Strength follows the score; where the network looked stays as it was."
    detector, found = judged(scorer, [BOXES[:3]])
    explanation = explain(detector, found)
    before = [o.maps.copy() for o in explanation.people]
    strength = {}
    for p in (.005, .04, .3, .7, .99):
        for o in explanation.people:
            o.maps = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (1, 64, 1))
            o.face.timeline[0].probability = o.face.probability = p
        strength[p] = max(reddened(explanation, o) for o in explanation.people)
        whole = explanation.whole_picture()
        for o in explanation.people: o.maps = o.maps*0
        changed = abs(whole.astype(int) - explanation.whole_picture()).max()
        assert abs(int(changed) - strength[p]) <= 40  # the whole picture is drawn on the same scale
    assert strength[.005] == 0 and strength[.04] <= 2 < 10 < strength[.3] < strength[.7] < strength[.99] and strength[.99] > 80
    assert all(o.max() == 0 or o.max() > .98 for m in before for o in m)  # of itself, each map has a scale of its own


def test_two_faces_of_one_picture_are_on_one_scale(scorer):
    detector, found = judged(scorer, [BOXES[:3]])
    explanation = explain(detector, found)
    for o, p in zip(explanation.people, (.99, .04, .04)):
        o.maps = np.ones_like(o.maps)
        o.face.timeline[0].probability = p
    whole = explanation.whole_picture().astype(int)
    for o in explanation.people: o.maps = o.maps*0
    cold = explanation.whole_picture().astype(int)
    levels = []
    for o in explanation.people:
        x, y, w, h = (round(v) for v in o.face.box)
        levels.append(abs(whole - cold)[y + h//3:y + 2*h//3, x + w//3:x + 2*w//3].max())
    assert levels[0] > 80 and max(levels[1:]) <= 2


def test_the_picture_of_the_readme_is_what_the_library_draws_today(tmp_path):
    "The program that made it makes it again, but for the few pixels by which detectors of faces differ."
    import subprocess, sys
    from project import ROOT
    subprocess.run([sys.executable, str(ROOT/".ci"/"example.py"), str(tmp_path/"again.jpg")], check=True, cwd=tmp_path, timeout=300)
    kept, again = (np.array(Image.open(o)).astype(int) for o in (ROOT/"nbs"/"images"/"example.jpg", tmp_path/"again.jpg"))
    assert kept.shape == again.shape and abs(kept - again).mean() < 3


# ---- reports on paper

def pages_of(pdf):
    "The text of each page, its lines without the page number."
    pypdf = pytest.importorskip("pypdf")
    return [[o.strip() for o in page.extract_text().splitlines() if o.strip() and not re.fullmatch(r"\d+ / \d+", o.strip())] for page in pypdf.PdfReader(pdf).pages]


HEADINGS = ("What the tool looked at", "Each person", "How far to trust this", "Where the file says it comes from", "Technical annex", "The file",
            "Pictures in this report", "The network and its measured figures", "To repeat it", "To check this report", "Settings and software")


@pytest.fixture(scope="module")
def paper(scorer):
    "A report of a picture with pictures beside each other, made longer step by step so that every heading meets the end of a page once."
    detector, found = judged(scorer, [BOXES])
    return make_report(found, explain(detector, found))


@pytest.mark.parametrize("printer", ["weasyprint", "browser"])
def test_no_heading_stands_alone_at_the_end_of_a_page(paper, printer, tmp_path):
    from deepfake_nb.tell.page import find_browser, print_with_browser, print_with_weasyprint
    if printer == "browser" and not find_browser(): pytest.skip("no browser is installed")
    page = paper.to_html()
    for lines in range(0, 30, 6):
        longer = page.replace("</h1>", "</h1>" + "<p>one line more</p>"*lines)
        if printer == "browser": print_with_browser(longer, tmp_path/"a.pdf", find_browser())
        else: print_with_weasyprint(longer, tmp_path/"a.pdf")
        for page_lines in pages_of(tmp_path/"a.pdf")[:-1]: assert page_lines[-1].rstrip("\N{PILCROW SIGN}") not in HEADINGS, (lines, page_lines[-3:])


def test_settings_come_last_and_are_short(paper):
    from html import unescape
    page = paper.to_html()
    headings = [unescape(re.sub("<[^>]+>", "", o)).rstrip("\N{PILCROW SIGN}") for o in re.findall(r"<h[23][^>]*>(.*?)</h[23]>", page)]
    assert headings[-1] == "Settings and software" and set(headings) >= set(HEADINGS) - {"Each person"}
    table = page[page.rindex("Settings and software"):]
    assert table.count("<tr>") <= 10
    for name in paper.prediction.settings: assert name in table.lower() or name.capitalize() in table
