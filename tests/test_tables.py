"Tables and folders say what they hold, or are refused: nothing is guessed, nothing is passed over in silence."
import os
from pathlib import Path
import pytest
from PIL import Image
from deepfake_nb.core import FAKE, REAL, ManifestError
from deepfake_nb.data.splits import check_leaks, join_manifests, read_manifest
from deepfake_nb.data.folders import find_media
from deepfake_nb.data.manifest import check_labels, check_pairs, write_manifest
from deepfake_nb.data.tables import fake_means, unspell_name

SHARED = Path(__file__).parents[1] / ".." / "shared"
shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the project's data is not here")


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file: Image.new("RGB", (16, 16), (shade, shade, shade)).save(file, "PNG")
    return path


def table(folder, text, *names):
    "A table in a folder in which the named pictures lie."
    for i, name in enumerate(names): picture(folder / name, i)
    (folder / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return lambda: read_manifest(folder / "t.csv")


# ---- labels

def test_one_may_mean_real_and_then_the_table_is_refused(tmp_path):
    "A published list: AUC 0.000 without a word, and real pictures written as forged ones."
    names = [f"test/{kind}/{i}.jpg" for kind in ("real", "fake") for i in range(2)]
    rows = [f"{int(name.startswith('test/real'))},{name.split('/')[1]},{name}" for name in names]
    read = table(tmp_path, "label,label_str,path\n" + "\n".join(rows), *names)
    with pytest.raises(ManifestError, match=r"4 of 4 rows \(all of them: perhaps 1 means real in this table\): line 2, test/real/0.jpg: FAKE, but the column label_str says REAL"): read()
    read = table(tmp_path, "label,path\n" + "\n".join(o.split(",")[0] + "," + o.split(",")[2] for o in rows))
    with pytest.raises(ManifestError, match="but the folder says REAL"): read()
    right = table(tmp_path, "label,label_str,path\n" + "\n".join(str(1 - int(o[0])) + o[1:] for o in rows))()
    assert list(right.label) == [REAL, REAL, FAKE, FAKE]


@pytest.mark.parametrize("header,real,fake", [("label", "real", "Fake"), ("label", "bonafide", "spoof"), ("label", "Bona Fide", "Spoofed"), ("label", "genuine", "generated"), ("Label", "authentic", "synthetic"),
    ("class", "ORIGINAL", "manipulated"), ("Ground Truth", "Real", "Deepfake"), ("target", "0_real", "1_fake"), ("label", "pristine", "AI-generated"),
    ("is_fake", "0", "1"), ("is_fake", "False", "True"), ("isFake", "no", "yes"), ("fake", "0.0", "1.0"), ("Forged", "false", "TRUE"), ("is real", "1", "0"), ("real", "True", "False"), ("bonafide", "yes", "no"), ("is_original", "1.0", "0.0")])
def test_labels_as_people_write_them(tmp_path, header, real, fake):
    assert list(table(tmp_path, f"path,{header}\na.png,{fake}\nb.png,{real}\n", "a.png", "b.png")().label) == [FAKE, REAL]


@pytest.mark.parametrize("real,fake", [("0", "1"), ("1", "0"), ("0.0", "1.0"), ("False", "True"), ("no", "yes"), ("real", "1")])
def test_numbers_alone_are_never_guessed(tmp_path, real, fake):
    "Half of all tables mean one thing by 1 and half the other."
    read = table(tmp_path, f"path,label\na.png,{fake}\nb.png,{real}\n", "a.png", "b.png")
    with pytest.raises(ManifestError, match=r"numbers in the column label, and nothing that says which of them is forged. Accepted: words such as real and fake; .*--fake-is 1"): read()
    assert list(read_manifest(tmp_path / "t.csv", fake_is=fake).label) == [FAKE, REAL]
    with fake_means(fake): assert list(read().label) == [FAKE, REAL]
    with pytest.raises(ManifestError, match="nothing that says"): read()  # what was said holds only as long as it was said


def test_a_table_may_say_itself_what_its_numbers_mean(tmp_path):
    assert list(table(tmp_path, "path,label,method\na.png,1,FaceSwap\nb.png,0,real\n", "a.png", "b.png")().label) == [FAKE, REAL]
    assert list(table(tmp_path, "path,label,is_real\na.png,1,no\nb.png,0,yes\n")().label) == [FAKE, REAL]
    assert list(table(tmp_path, "path,label\nfake/a.png,1\nb.png,0\n", "fake/a.png")().label) == [FAKE, REAL]
    with pytest.raises(ManifestError, match="2 of 2 rows .*line 2, a.png: FAKE, but the column bonafide says REAL"): table(tmp_path, "path,is_fake,bonafide\na.png,1,1\nb.png,0,0\n")()
    with pytest.raises(ManifestError, match="a column called is_fake, and 0 said to mean FAKE"): read_manifest(tmp_path / "t.csv", fake_is=0)


def test_any_word_may_be_said_to_mean_fake(tmp_path):
    read = table(tmp_path, "path,label\na.png,Attack\nb.png,normal\n", "a.png", "b.png")
    with pytest.raises(ManifestError, match="line 2: 'Attack'. Accepted: a label: words such as real and fake"): read()
    assert list(read_manifest(tmp_path / "t.csv", fake_is="attack").label) == [FAKE, REAL]
    with pytest.raises(ManifestError, match="the word 'real' said to mean FAKE"):
        table(tmp_path, "path,label\na.png,real\nb.png,fake\n")
        read_manifest(tmp_path / "t.csv", fake_is="real")


def test_a_file_with_two_labels_is_told_before_the_work(tmp_path):
    with pytest.raises(ManifestError, match="1 files are both real and fake, for instance .*a.png in rows 0, 1"):
        table(tmp_path, "path,label\na.png,real\n./a.png,fake\n", "a.png")()
    one, other = (table(tmp_path, f"path,label\na.png,{o}\n")() for o in ("real", "fake"))
    with pytest.raises(ManifestError, match="both real and fake"): join_manifests(one, other)


def test_doubled_rows_are_told(tmp_path):
    twice = table(tmp_path, "path,label\na.png,real\nb.png,fake\na.png,real\n", "a.png", "b.png")()
    assert len(twice) == 2 and "1 rows are there twice" in twice.attrs["notes"][0]
    again = table(tmp_path, "path,label,split\na.png,real,train\na.png,real,test\n")()
    assert len(again) == 2 and "name a file that an earlier row names too" in again.attrs["notes"][0]
    assert not check_leaks(again, pictures=False).ok


# ---- names

def test_a_person_called_NA_is_a_person(tmp_path):
    "Read as a missing value he stood in train and test, and nobody saw it."
    rows = "path,label,split,identity,method\na.png,0,train,NA,real\nb.png,0,test,NA,real\nnull,1,test,null,None\nnan,1,train,nan,NA\n"
    people = table(tmp_path, rows, "a.png", "b.png", "null", "nan")()
    assert list(people.identity) == ["NA", "NA", "null", "nan"] and list(people.method) == ["real", "real", "None", "NA"]
    assert list(check_leaks(people, pictures=False).rows.kind) == ["same person"]


@pytest.mark.parametrize("name", [b"caf\xe9.png", "two\nlines.png".encode(), b" blank .png", b"a\\xe9.png", "\u00e9\U0001f600.png".encode(), b"a;b,c\"d.png", b"carriage\rreturn.png"])
def test_every_name_comes_back_from_a_written_table(tmp_path, name):
    name = os.fsdecode(name)
    for label in ("real", "fake"): picture(tmp_path / label / name)
    found = read_manifest(tmp_path)
    again = read_manifest(write_manifest(found, tmp_path / "manifest.csv"))
    assert list(again.path) == list(found.path) and list(again.label) == list(found.label)
    assert [unspell_name(o) for o in again.path] == [str(tmp_path / label / name) for label in ("fake", "real")]
    assert check_leaks(again, pictures=False).checked["files"] == 2
    again.to_json().encode()


def test_a_table_of_bytes_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    read = table(tmp_path, b"path,label\ncaf\xe9.png,real\n", name)
    assert unspell_name(read().path[0]) == str(tmp_path / name)


# ---- separators and encodings

PLAIN = "path,label,group\nreal/a b.png,0,x\nfake/c.png,1,y\n"


@pytest.mark.parametrize("text", [PLAIN.replace(",", ";"), PLAIN.replace(",", "\t"), PLAIN.encode("utf-16"), PLAIN.encode("utf-8-sig"), PLAIN.replace("\n", "\r\n"), PLAIN.replace("\n", "\r"),
    PLAIN.replace("\n", ",\n"), PLAIN.replace("x\n", "x,\n"), PLAIN.replace("path,label", "Path,Label"), PLAIN.replace("real/", "real\\"), PLAIN.replace("\n", "\n\n"),
    ",path,label,group\n0,real/a b.png,0,x\n1,fake/c.png,1,y\n", PLAIN.replace("real/a b.png", '"real/a b.png"')],
    ids="semicolons tabs UTF-16 UTF-8-mark Windows Mac trailing trailing-once capitals backslashes blank-lines index quotes".split())
def test_tables_of_many_programs_are_read_alike(tmp_path, text):
    found = table(tmp_path, text, "real/a b.png", "fake/c.png")()
    assert [os.path.relpath(o, tmp_path) for o in found.path] == ["real/a b.png", "fake/c.png"]
    assert list(found.label) == [REAL, FAKE] and list(found.group) == ["x", "y"]


@pytest.mark.parametrize("text,why", [("file,label\na.png,0\n", "no column path among file, label.*names the columns path, label, separated by commas, semicolons, tabs"), ("path,label\na,b.png,0\n", "line 2 has 3 fields and the header 2"),
    (PLAIN.encode("utf-16-le"), "UTF-16 with a byte order mark"), ("path,label\n\n\na.png,maybe\n", "line 4: 'maybe'"), ("path,label,label\na.png,0,0\n", "several columns called label"), ("", "it is empty")])
def test_what_cannot_be_read_for_sure_is_one_sentence(tmp_path, text, why):
    with pytest.raises(ManifestError, match=why): table(tmp_path, text, "a.png")()


# ---- folders

def test_content_decides_and_what_is_left_out_is_told(tmp_path):
    "All of class real was lost for its endings, and the figures were those of one item of five."
    for name in ("real/a.jpg_large", "real/no_ending", "real/b.tmp", "fake/c.png"): picture(tmp_path / name)
    (tmp_path / "real" / "readme.txt").write_text("text")
    (tmp_path / "real" / "broken.png").write_bytes(b"no picture")  # claims to be one: whoever reads it says why it is none
    found = read_manifest(tmp_path)
    assert sorted(Path(o).name for o in found.path) == ["a.jpg_large", "b.tmp", "broken.png", "c.png", "no_ending"]
    assert found.attrs["notes"] == [f"1 left out (not an image or video), for instance {tmp_path}/real/readme.txt."]


def test_folders_that_cannot_be_entered_are_told(tmp_path, monkeypatch):
    for name in ("real/a.png", "real/secret/b.png", "fake/deep/c.png"): picture(tmp_path / name)
    whole = os.scandir
    def scandir(path):
        if str(path).endswith("secret"): raise PermissionError(13, "Permission denied", str(path))
        if str(path).endswith("deep"): raise OSError(36, "File name too long", str(path))
        return whole(path)
    monkeypatch.setattr(os, "scandir", scandir)
    found = find_media(tmp_path)
    assert [o.name for o in found.files] == ["a.png"]
    assert [(o.name, why) for o, why in found.left_out] == [("deep", "a name that is too long"), ("secret", "unreadable folder (Permission denied)")]
    assert len(read_manifest(tmp_path).attrs["notes"]) == 2


def test_a_path_longer_than_the_system_allows_is_told(tmp_path):
    here, names = os.getcwd(), ["d" * 250] * 17
    picture(tmp_path / "a.png")
    try:
        os.chdir(tmp_path)
        for name in names:
            os.mkdir(name)
            os.chdir(name)
        picture(Path("deep.png"))
    finally: os.chdir(here)
    found = find_media(tmp_path)
    assert [o.name for o in found.files] == ["a.png"]
    assert [why for _, why in found.left_out] == ["a name that is too long"]


def test_results_are_no_data(tmp_path):
    picture(tmp_path / "a.png")
    for name, record in {"evidence/a-1": '{"path": "a.png", "decision": "REAL", "probability": 0.1, "heatmap": "heatmap.png"}', "theirs": '{"fake": 0.9}'}.items():
        picture(tmp_path / name / "heatmap.png")
        (tmp_path / name / "prediction.json").write_text(record)
    found = find_media(tmp_path)
    assert [str(o.relative_to(tmp_path)) for o in found.files] == ["a.png", "theirs/heatmap.png"]
    assert [o.name for o in find_media(tmp_path / "evidence" / "a-1").files] == ["heatmap.png"]  # asked for by name


def test_a_folder_under_both_words_is_no_guess(tmp_path):
    picture(tmp_path / "real" / "fake" / "a.png")
    with pytest.raises(ManifestError, match="real/fake/a.png lies under words of both labels"): read_manifest(tmp_path)


# ---- the tables of the project

@shared
@pytest.mark.parametrize("name,real,fake", [("faces.csv", 4859, 0), ("more_faces.csv", 5205, 0), ("train_deepfakes.csv", 5451, 9658), ("val_deepfakes", 900, 900)])
def test_tables_at_hand(name, real, fake):
    found = read_manifest(SHARED / "data" / name)
    assert ((found.label == REAL).sum(), (found.label == FAKE).sum()) == (real, fake)
    if name == "train_deepfakes.csv":
        check_pairs(found)
        assert found.groupby(["dataset", "pair"]).group.nunique().max() == 1
        assert found[["face_x", "face_w", "nose_x", "left_mouth_y"]].notna().all().all()
    if not fake:
        with pytest.raises(ManifestError, match="are all REAL. Accepted: real and forged ones"): check_labels(found, name)
    else: check_labels(found)
