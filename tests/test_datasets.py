"Each public data set on a small tree in its published layout: found, labelled, divided as published, nobody on two sides."
import json
from pathlib import Path
import pytest
from deepfake_nb.core import FAKE, REAL, ManifestError
from deepfake_nb.data.manifest import ADAPTERS
from deepfake_nb.data.newsets import DF40_KINDS, FORGERYNET_METHODS, with_pairs
from deepfake_nb.data.splits import recognise, check_leaks, join_manifests, read_manifest, write_manifest


def tree(root, *paths, **texts):
    "Placeholders, which nobody opens, and lists."
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"placeholder " + path.encode())
    for name, text in texts.items():
        path = root / name.replace("__", ".").replace("SLASH", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def df40(root):
    lists = {f"{k}__json": json.dumps(v) for k, v in dict(train=[["071", "054"]], val=[], test=[["000", "003"]]).items()}
    return tree(root, "blendface/ff/frames/000_003/000.png", "blendface/ff/frames/071_054/000.png", "wav2lip/cdf/frames/id0_0003/000.png", "MidJourney/real/a.png", "MidJourney/fake/b.png",
                "FaceForensics++/original_sequences/youtube/c23/frames/003/000.png", "Celeb-DF-v2/YouTube-real/frames/00170/000.png", **lists)


def celeb_pp(root):
    return tree(root, "Celeb-real/id0_0001.mp4", "Celeb-real/id3_0001.mp4", "YouTube-real/00170.mp4", "Celeb-synthesis/FaceSwap/GHOST/id3_id4_0001.mp4", "Celeb-synthesis/TalkingFace/EDTalk/id0_0001_test_00002.mp4",
                List_of_testing_videos__txt="1 YouTube-real/00170.mp4\n1 Celeb-real/id3_0001.mp4\n0 Celeb-synthesis/FaceSwap/GHOST/id3_id4_0001.mp4\n")


def eval_2024(root):
    tree(root, "video-data/a.mp4", "video-data/b.mp4", "video-data/c.mp4", "image-data/d.png")
    (root / "video-metadata-publish.csv").write_text("Filename,Date,Video Ground Truth,Audio Ground Truth,Public Comments,Finetuning Set\na.mp4,2024-11-14,Fake,Unknown,,train\nb.mp4,2024-11-14,Real,Fake,,test\nc.mp4,2024-11-14,Unknown,Fake,,test\n")
    (root / "image-metadata-publish-with-links.csv").write_text("Filename,Date,Ground Truth,Finetuning Set\nd.png,2024-11-14,Real,Test\n")
    return root


def fakeav(root):
    return tree(root, *(f"FakeAVCeleb/{t}/Caucasian (American)/women/id01/{n}.mp4" for t, n in (("RealVideo-RealAudio", "007"), ("RealVideo-FakeAudio", "007_fake"), ("FakeVideo-RealAudio", "007_id02"))),
                meta_data__csv="source,target1,target2,method,category,type,race,gender,path,\nid01,id02,-,fsgan,C,FakeVideo-RealAudio,Caucasian (American),women,007_id02.mp4,x\n")


def wild(root): return tree(root, "real_train/6/real/54/0.png", "fake_train/7/fake/1/0.png", "real_test/8/real/1/0.png", "fake_test/9/fake/2/3.png")
def kodf(root): return tree(root, "original_videos/100001/100001_001.mp4", "synthesized_videos/fsgan/20201109/100001/100001_100002_3_0001.mp4")
def platter(root): return tree(root, "frames_C0/SetA/faceshifter/LR/female/7_9/7_9_frame_0.jpg", "frames_C0/real/LR/female/7/7_frame_0.jpg")


def forgerynet(root):
    return tree(root, "Training/image/train_release/1/aa/bb/f.jpg", "Validation/image/val_release/17/cc/dd/g.jpg", "Training/spatial_localize/train_mask_release/1/aa/bb/f.jpg",
                TrainingSLASHimage_list__txt="train_release/1/aa/bb/f.jpg 1 1 2\n", ValidationSLASHimage_list__txt="val_release/17/cc/dd/g.jpg 0 0 0\n")


# name: tree, and of each file of it (below any folder) the label, the split and the method
SETS = {
    "df40": (df40, {"000_003": (FAKE, "test", "blendface"), "071_054": (FAKE, "train", "blendface"), "id0_0003": (FAKE, "test", "wav2lip"), "MidJourney/real": (REAL, "test", "real"), "MidJourney/fake": (FAKE, "test", "MidJourney"),
                    "frames/003": (REAL, "test", "real"), "00170": (REAL, "test", "real")}),
    "celeb-df++": (celeb_pp, {"id0_0001.mp4": (REAL, "train", "real"), "id3_0001.mp4": (REAL, "test", "real"), "00170": (REAL, "test", "real"), "id3_id4": (FAKE, "test", "GHOST"), "EDTalk": (FAKE, "train", "EDTalk")}),
    "deepfake-eval-2024": (eval_2024, {"a.mp4": (FAKE, "train", "in the wild"), "d.png": (REAL, "test", "real")}),
    "fakeavceleb": (fakeav, {"RealVideo-RealAudio": (REAL, "", "real"), "FakeVideo-RealAudio": (FAKE, "", "fsgan")}),
    "wilddeepfake": (wild, {"real_train": (REAL, "train", "real"), "fake_train": (FAKE, "train", "in the wild"), "real_test": (REAL, "test", "real"), "fake_test": (FAKE, "test", "in the wild")}),
    "kodf": (kodf, {"original_videos": (REAL, "", "real"), "synthesized_videos": (FAKE, "", "fsgan")}),
    "df-platter": (platter, {"SetA": (FAKE, "", "faceshifter"), "real": (REAL, "", "real")}),
    "forgerynet": (forgerynet, {"train_release": (FAKE, "train", "FSGAN"), "val_release": (REAL, "val", "real")}),
}


@pytest.mark.parametrize("name", SETS)
def test_a_published_layout_is_found_and_read(tmp_path, name):
    build, expected = SETS[name]
    root = build(tmp_path / "data")
    assert recognise(root)[0] == name and name in ADAPTERS
    found = read_manifest(root)
    inside = [str(Path(o).relative_to(root)) for o in found.path]
    for part, (label, split, method) in expected.items():
        [row] = [r for p, r in zip(inside, found.itertuples()) if part in f"/{p}"]
        assert (row.label, row.split, row.method) == (label, split, method), part
    assert len(found) == len(expected)
    assert check_leaks(found, pictures=False).ok  # nobody on two sides of the published split
    again = read_manifest(write_manifest(found, tmp_path / "m.csv"))
    assert list(again.label) == list(found.label) and list(again.group) == list(found.group)
    assert any(found.attrs["notes"]) or (found.split != "").all()  # what the set does not say is told


@pytest.mark.parametrize("name", SETS)
def test_a_tree_that_is_another_is_refused_with_what_was_found(tmp_path, name):
    root = tree(tmp_path / "data", "somewhere/a.mp4")
    with pytest.raises(ManifestError) as told: read_manifest(root, name)
    assert str(root) in str(told.value) and "Accepted: " in str(told.value)
    if name not in ("deepfake-eval-2024", "forgerynet"): assert "somewhere/a.mp4 (1)" in str(told.value)  # those two follow lists
    with pytest.raises(ManifestError, match="lie under no label, for instance somewhere/a.mp4.*celeb-df\\+\\+, deepfake-eval-2024, fakeavceleb"): read_manifest(root)


def test_a_real_picture_with_a_forged_voice_is_never_fake(tmp_path):
    for name, build in (("fakeavceleb", fakeav), ("deepfake-eval-2024", eval_2024)):
        root = build(tmp_path / name)
        apart = [o for o in read_manifest(root).attrs["notes"] if "forged sound" in o]
        assert apart == ["1 films show a real picture with a forged sound; they were left out (audio_forged=True keeps them, as REAL)."]
        kept = ADAPTERS[name](root, audio_forged=True)
        assert list(kept[kept.audio == "fake"].label) == [REAL]


def test_people_of_one_set_are_those_of_another(tmp_path):
    "DF40 forges the very people of FaceForensics++ and Celeb-DF, and Celeb-DF++ those of Celeb-DF."
    joined = join_manifests(read_manifest(df40(tmp_path / "df40")), read_manifest(celeb_pp(tmp_path / "celeb")), read_manifest(tree(tmp_path / "ff", "original_sequences/youtube/c23/videos/000.mp4")))
    group = lambda part: set(joined.group[joined.path.str.contains(part)])
    assert group("blendface/ff/frames/000_003") == group("youtube/c23/videos/000.mp4") == group("c23/frames/003")
    assert group("id0_0003") == group("Celeb-real/id0_0001")


def test_pairs_are_those_that_the_set_names(tmp_path):
    pairs = with_pairs(read_manifest(celeb_pp(tmp_path / "celeb")))
    assert {k: sorted(v) for k, v in pairs.groupby("pair").label} == {f"Celeb-DF++/Celeb-real/{o}_0001.mp4": [REAL, FAKE] for o in ("id0", "id3")}
    with pytest.raises(ManifestError, match="no column original"): with_pairs(read_manifest(kodf(tmp_path / "kodf")))


@pytest.mark.parametrize("name", ["../outside.mp4", "/etc/passwd"])
def test_a_list_leads_nowhere_else(tmp_path, name):
    "A list that somebody sends may name anything."
    root = eval_2024(tmp_path / "eval")
    (root / "video-metadata-publish.csv").write_text(f"Filename,Video Ground Truth,Finetuning Set\n{name},Fake,train\n")
    with pytest.raises(ManifestError, match="line 2: .*the name of a file"): read_manifest(root)
    root = forgerynet(tmp_path / "net")
    (root / "Training/image_list.txt").write_text(f"{name} 1 1 1\n")
    with pytest.raises(ManifestError, match="line 1: "): read_manifest(root)


def test_numbers_of_methods():
    assert (len(DF40_KINDS), len(FORGERYNET_METHODS)) == (40, 16)
    assert {k: list(DF40_KINDS.values()).count(k) for k in set(DF40_KINDS.values())} == dict(swapping=10, reenactment=13, synthesis=12, editing=5)


def test_published_masks_say_who_of_several_is_forged(tmp_path):
    "FaceForensics++ and DeepFakeDetection: one mask for a film in whatever compression; real films have none."
    root = tree(tmp_path / "ff", *(f"manipulated_sequences/{m}/{c}/videos/{o}.mp4" for m, o in (("Deepfakes", "000_003"), ("DeepFakeDetection", "01_02__hug__AAAA")) for c in ("c23", "c40")),
                *(f"manipulated_sequences/{m}/masks/videos/{o}.mp4" for m, o in (("Deepfakes", "000_003"), ("DeepFakeDetection", "01_02__hug__AAAA"))), "original_sequences/youtube/c23/videos/000.mp4",
                "manipulated_sequences/FaceShifter/c23/videos/000_003.mp4")
    found = read_manifest(root)
    masked = found[found["mask"].notna()]
    assert sorted(masked.method) == ["DeepFakeDetection"] * 2 + ["Deepfakes"] * 2 and set(masked.label) == {FAKE}
    assert {Path(o.mask).parts[-5:] for o in masked.itertuples()} == {("manipulated_sequences", o.method, "masks", "videos", Path(o.path).name) for o in masked.itertuples()}
    again = read_manifest(write_manifest(found, tmp_path / "ff" / "manifest.csv"))
    assert sorted(o for o in again["mask"] if o) == sorted(masked["mask"])
