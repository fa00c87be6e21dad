"Mistakes found in public deepfake code, each as a test. Here: those of reading and splitting data."
import json
from pathlib import Path
import numpy as np, pandas as pd, pytest
from deepfake_nb.core import FAKE, REAL, ManifestError
from deepfake_nb.data.splits import check_leaks, read_manifest, split_by_group

PAIRS = dict(train=[["071", "054"], ["033", "097"]], val=[["720", "672"]], test=[["000", "003"]])
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


def touch(root, *paths):
    "Placeholder files: reading a layout looks at names only."
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def named(manifest):
    "Rows by the file's name without its suffix."
    return manifest.set_index(manifest.path.map(lambda o: Path(o).stem))


@pytest.fixture
def faceforensics(tmp_path):
    "All originals of four pairs, and both directions of each under four methods."
    pairs = [pair for split in PAIRS.values() for pair in split]
    touch(tmp_path, *(f"original_sequences/youtube/c23/videos/{o}.mp4" for pair in pairs for o in pair),
          *(f"manipulated_sequences/{m}/c23/videos/{o}.mp4" for m in METHODS for a, b in pairs for o in (f"{a}_{b}", f"{b}_{a}")))
    for split, lists in PAIRS.items(): (tmp_path / f"{split}.json").write_text(json.dumps(lists))
    return read_manifest(tmp_path)


def test_2_one_name_under_four_methods_is_four_videos(faceforensics):
    "000_003 exists once per method; grouped by the folder's or file's name alone, four scores merge into one."
    same = named(faceforensics).loc["000_003"]
    assert len(same) == same.video_id.nunique() == len(METHODS)
    assert set(same.method) == set(METHODS)
    assert faceforensics.video_id.is_unique
    for row in same.itertuples(): assert row.dataset in row.video_id and row.method in row.video_id


def test_2_also_in_the_plain_layout(tmp_path):
    touch(tmp_path, *(f"test/fake/{m}/000_003.mp4" for m in METHODS), *(f"{s}/real/000.mp4" for s in ("val", "test")))
    manifest = read_manifest(tmp_path)
    assert manifest.video_id.nunique() == len(METHODS) + 2
    assert manifest.group.nunique() == len(METHODS) + 2


def test_4_both_directions_and_both_originals_belong_to_the_split_of_the_pair(faceforensics):
    rows = named(faceforensics)
    for split, pairs in PAIRS.items():
        for a, b in pairs:
            for name in (a, b, f"{a}_{b}", f"{b}_{a}"): assert set(np.atleast_1d(rows.loc[name, "split"])) == {split}, name
            assert rows.loc[[a, b, f"{a}_{b}", f"{b}_{a}"]].group.nunique() == 1
    assert check_leaks(faceforensics, pictures=False).ok


def test_4_a_split_by_target_alone_is_reported(faceforensics):
    "The mistake itself: the donor of a test video is in training."
    by_target = faceforensics.copy()
    target = by_target.path.map(lambda o: Path(o).stem.split("_")[0])
    by_target["split"] = np.where(target.isin(["000"]), "test", "train")
    found = check_leaks(by_target, pictures=False)
    assert not found.ok
    assert set(found.rows.detail) == {"ff/000", "ff/003"}


def test_5_one_means_real_in_the_list_of_celeb_df(tmp_path):
    touch(tmp_path, "Celeb-real/id0_0000.mp4", "Celeb-real/id1_0000.mp4", "YouTube-real/00170.mp4", "Celeb-synthesis/id0_id1_0000.mp4", "Celeb-synthesis/id1_id0_0000.mp4")
    (tmp_path / "List_of_testing_videos.txt").write_text("1 YouTube-real/00170.mp4\n1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n")
    rows = named(read_manifest(tmp_path))
    assert dict(rows[rows.split == "test"].label) == {"00170": REAL, "id0_0000": REAL, "id0_id1_0000": FAKE}
    assert dict(rows[rows.split == "train"].label) == {"id1_0000": REAL, "id1_id0_0000": FAKE}


def test_7_labels_come_from_words_and_not_from_the_alphabet(tmp_path):
    "In alphabetical order fake comes first; with these words, real does."
    touch(tmp_path, "a/train/fake/1.jpg", "a/train/real/2.jpg", "b/train/original/1.jpg", "b/train/synthesis/2.jpg", "c/train/deepfake/1.jpg", "c/train/genuine/2.jpg")
    labels = {o: list(read_manifest(tmp_path / o).label) for o in "abc"}
    assert labels == dict(a=[FAKE, REAL], b=[REAL, FAKE], c=[FAKE, REAL])


def test_7_words_and_numbers_in_a_table_agree(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg")
    for real, fake in (("REAL", "FAKE"), ("bonafide", "spoof"), ("original", "deepfake")):
        (tmp_path / "t.csv").write_text(f"path,label\n1.jpg,{fake}\n2.jpg,{real}\n")
        assert list(read_manifest(tmp_path / "t.csv").label) == [FAKE, REAL]
    (tmp_path / "t.csv").write_text("path,label\n1.jpg,1\n2.jpg,0\n")
    with pytest.raises(ManifestError, match="nothing that says which of them is forged"): read_manifest(tmp_path / "t.csv")
    assert list(read_manifest(tmp_path / "t.csv", fake_is=1).label) == [FAKE, REAL]


def test_9_no_person_and_no_video_on_two_sides():
    "3,000 frames of 200 videos of 40 people; shuffled frames would put nearly everybody on both sides."
    rng = np.random.default_rng(0)
    video = rng.integers(0, 200, 3000)
    frames = pd.DataFrame(dict(path=[f"{v:03}_{i:04}.jpg" for i, v in enumerate(video)], label=video % 2, split="", dataset="d", method="m",
                               video_id=[f"d/{v}" for v in video], group=[f"person{v % 40}" for v in video]))
    divided = split_by_group(frames, dict(train=.6, val=.2, test=.2), seed=3)
    assert divided.groupby("group").split.nunique().max() == divided.groupby("video_id").split.nunique().max() == 1
    assert set(divided.split) == {"train", "val", "test"} and len(divided) == len(frames)
    shuffled = frames.assign(split=rng.choice(["train", "val", "test"], len(frames)))
    found = check_leaks(shuffled, pictures=False)
    assert len(found.rows) == 40 and not found.ok


# ---- the mistakes that do not concern tables

def test_1_eight_of_32_frames_are_spread_over_all_of_them(tmp_path):
    "The mistake: the first eight are taken."
    import numpy as np
    from deepfake_nb.see.media import evenly_spaced, read_video, write_video
    picked = evenly_spaced(32, 8)
    assert len(picked) == 8 and len(set(np.diff(picked))) == 1 and picked[0] < 4 and picked[-1] >= 28
    write_video(tmp_path/"v.mp4", [np.full((64, 64, 3), 7*i, np.uint8) for i in range(32)], 8)  # the brightness tells which frame it is
    seen = [round(float(frame.mean())/7) for frame in read_video(tmp_path/"v.mp4", frames=8).frames]
    assert seen == pytest.approx(list(picked), abs=1)


def test_3_what_is_reported_cannot_be_trained_on(tmp_path):
    "The mistake: failures of the test set are fine-tuned on, and the same set is then reported."
    import pandas as pd
    from deepfake_nb.core import DeepfakeError
    from deepfake_nb.learn.mining import refuse_overlap
    rows = [dict(path=str(tmp_path/f"{i}.png"), label=i % 2, split="test", group=str(i), dataset="d", method="m") for i in range(4)]
    for i in range(4): (tmp_path/f"{i}.png").write_bytes(bytes([i]))
    table = pd.DataFrame(rows)
    refuse_overlap(pool=table[:2], test=table[2:])
    with pytest.raises(DeepfakeError, match="1.png"): refuse_overlap(pool=table[:2], test=table[1:])


def test_6_no_face_is_no_probability(tmp_path):
    "The mistakes: 0.5, 0.0, or a crash."
    import numpy as np
    from PIL import Image
    from deepfake_nb.model.scorer import create_scorer
    from deepfake_nb.judge.predict import Detector
    Image.fromarray(np.full((200, 200, 3), 127, np.uint8)).save(tmp_path/"wall.png")
    scorer = create_scorer("test_efficientnet", "mean", clip_length=1, image_size=64)
    prediction = Detector(scorer, face_detector="haar").predict(tmp_path/"wall.png")
    assert (prediction.decision, prediction.probability, prediction.reasons) == ("INCONCLUSIVE", None, ["NO_FACE"])


def test_8_training_and_serving_show_the_network_the_same(tmp_path):
    "The mistake: trained without normalisation, served with another crop, size and normalisation."
    import numpy as np, pandas as pd, torch
    from matplotlib.cbook import get_sample_data
    from PIL import Image, ImageFilter
    from deepfake_nb.learn.batches import Faces
    from deepfake_nb.see.faces import crop_face, load_face_detector
    from deepfake_nb.model.scorer import create_scorer
    picture = np.array(Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB").filter(ImageFilter.GaussianBlur(4)))  # so that interpolation does not matter
    Image.fromarray(picture).save(tmp_path/"hopper.png")
    face = max(load_face_detector("haar").detect([picture])[0], key=lambda o: o.size)
    row = dict(path=str(tmp_path/"hopper.png"), label=0) | dict(zip(("face_x", "face_y", "face_w", "face_h"), face.box))
    trained_on = Faces(pd.DataFrame([row]), 96)[0][0][None]
    served = torch.from_numpy(crop_face(picture, face, 96)).permute(2, 0, 1)[None, None]
    assert (trained_on.float() - served.float()).abs().mean() < 1.5  # of 255: the same square, two ways to cut it out
    torch.manual_seed(0)
    scorer = create_scorer("test_efficientnet", "mean", clip_length=1, image_size=96, mean=(.5, .4, .3), std=(.2, .3, .4)).eval()
    with torch.inference_mode(): # the scorer normalises by itself, whatever kind of pixels it is given
        whole, share, by_hand = scorer(served), scorer(served.float()/255), (served[:, 0].float()/255 - torch.tensor([.5, .4, .3]).view(3, 1, 1))/torch.tensor([.2, .3, .4]).view(3, 1, 1)
        assert torch.allclose(whole, share, atol=1e-5)
        assert torch.allclose(scorer.frames(served), by_hand, atol=1e-5)
