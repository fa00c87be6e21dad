"Protocols: what is trained on, what is held out, and whether it was; from Python and from the command line."
import json
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest
from sklearn.metrics import roc_auc_score
from deepfake_nb.core import FAKE, REAL, ManifestError, Prediction
from deepfake_nb.data.splits import read_manifest
from deepfake_nb.measure.heldout import check_held_out, evaluate_protocol, stamp_weights
from deepfake_nb.measure.protocol import protocol_data, protocol_names, protocol_tests, read_protocol, training_manifest
from deepfake_nb.shell import run_command


def tree(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"placeholder " + path.encode())
    return root


@pytest.fixture
def mine(tmp_path): return tree(tmp_path / "mine", *(f"{s}/{k}/{i}.jpg" for s in ("train", "val", "test") for k in ("real", "fake/FaceSwap", "fake/Wav2Lip", "fake/LIA") for i in range(4)))


@pytest.fixture
def ff(tmp_path):
    "Ten originals in pairs, four methods, two compressions."
    ids = [f"{i:03}" for i in range(10)]
    pairs = [(ids[i], ids[i + 1]) for i in range(0, 10, 2)]
    root = tree(tmp_path / "ff", *(f"original_sequences/youtube/{c}/videos/{o}.mp4" for c in ("c23", "c40") for o in ids),
                *(f"manipulated_sequences/{m}/{c}/videos/{a}_{b}.mp4" for m in ("Deepfakes", "FaceSwap", "FaceShifter") for c in ("c23", "c40") for x, y in pairs for a, b in ((x, y), (y, x))))
    for split, some in dict(train=pairs[:2], val=pairs[2:3], test=pairs[3:]).items(): (root / f"{split}.json").write_text(json.dumps(some))
    return root


class Scores:
    "A detector whose scores are drawn from the name of a file, somewhat higher for forgeries."
    threshold = .5

    def __init__(self, training=None): self.scorer, self.asked = SimpleNamespace(config=SimpleNamespace(training=training or {}), sha256="0"), []

    def predict_each(self, paths, progress=False):
        for path in map(str, paths):
            self.asked.append(path)
            p = float(np.clip(np.random.default_rng(sum(map(ord, path))).random() * .7 + .3 * ("manipulated" in path or "/fake/" in path), 0, 1))
            yield Prediction(path, "FAKE" if p >= .5 else "REAL", p, threshold=.5, weights=dict(name="drawn", sha256="0"))


# ---- the three that come with the library

def test_three_protocols_come_with_the_library():
    assert protocol_names() == ["df40", "faceforensics-to-others", "leave-one-method-out"]
    found = [read_protocol(o) for o in protocol_names()]
    assert len({o.sha256 for o in found}) == 3 and all(o.about for o in found)


def test_faceforensics_to_others(ff, tmp_path):
    "Nobody of the tests is trained on, only c23 and the four methods count, and each figure is that of its own films."
    celeb = tree(tmp_path / "celeb", "Celeb-real/id0_0000.mp4", "Celeb-real/id1_0000.mp4", "Celeb-real/id2_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4", "Celeb-synthesis/id1_id0_0000.mp4")
    (celeb / "List_of_testing_videos.txt").write_text("1 Celeb-real/id0_0000.mp4\n1 Celeb-real/id2_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n0 Celeb-synthesis/id1_id0_0000.mp4\n")
    data, detector = {"faceforensics": ff, "celeb-df": celeb}, Scores(dict(data={"FaceForensics++ train": 12}))
    result = evaluate_protocol(detector, "faceforensics-to-others", data, progress=False, n=100)
    assert list(result.rows) == ["FaceForensics++", "Celeb-DF"] and result.held_out == {"FaceForensics++": ("yes", ""), "Celeb-DF": ("yes", "")}
    assert len(detector.asked) == len(set(detector.asked)) == 4 + 8 + 4 and not any("FaceShifter" in o or "c40" in o for o in detector.asked)
    for name, part in {"FaceForensics++": "/ff/", "Celeb-DF": "/celeb/"}.items():
        mine = [o for o in result.evaluation.items.itertuples() if part in o.path]
        assert result.rows[name]["auc"] == pytest.approx(roc_auc_score([o.label for o in mine], [o.probability for o in mine]))  # counted another way
        low, high = result.rows[name].intervals["auc"]
        assert low <= result.rows[name]["auc"] <= high
    assert result.protocol.sha256 in repr(result) and "dfdc was not given: its tests are left out." in result.notes
    trained = training_manifest(read_protocol("faceforensics-to-others"), data)
    assert dict(trained.groupby("split").size()) == dict(train=4 + 8, val=2 + 4) and set(trained.compression) == {"c23"} and set(trained.method) == {"real", "Deepfakes", "FaceSwap"}
    people = lambda o: {p for item in o.identities for p in item.split("|")}
    assert not people(trained) & people(result.evaluation.items)


def test_df40_by_kind_and_side(tmp_path):
    root = tree(tmp_path / "df40", *(f"{m}/ff/frames/{o}/000.png" for m in ("simswap", "fomm") for o in ("000_003", "071_054")), "StyleGAN2/ff/1.png", *(f"{m}/cdf/frames/id0_id1_0000/0.png" for m in ("simswap", "fomm")), "VQGAN/cdf/2.png",
                *(f"heygen/{k}/frames/3/0.png" for k in ("real", "fake")), *(f"FaceForensics++/original_sequences/youtube/c23/frames/{o}/000.png" for o in ("000", "003", "071", "054")), "Celeb-DF-v2/Celeb-real/frames/id5_0000/0.png")
    for split, pairs in dict(train=[["071", "054"]], val=[], test=[["000", "003"]]).items(): (root / f"{split}.json").write_text(json.dumps(pairs))
    protocol = read_protocol("df40")
    table = protocol_data(protocol, dict(df40=root))
    rows = {k: (sorted(table.method[v & (table.label == FAKE).to_numpy()]), int((table.label[v] == REAL).sum())) for k, v in protocol_tests(protocol, table).items()}
    assert rows == {"1: swapping, FaceForensics++": (["simswap"], 2), "1: reenactment, FaceForensics++": (["fomm"], 2), "1: synthesis, FaceForensics++": (["StyleGAN2"], 2), "2: swapping, Celeb-DF": (["simswap"], 1),
                    "2: reenactment, Celeb-DF": (["fomm"], 1), "2: synthesis, Celeb-DF": (["VQGAN"], 1), "3: unknown": (["heygen"], 1), "3: unknown: heygen": (["heygen"], 1)}
    assert sorted(training_manifest(protocol, dict(df40=root)).method) == ["real", "real", "simswap"]


def test_leave_one_method_out(mine):
    "In each round one method is in no split of the training, and alone in the test."
    protocol = read_protocol("leave-one-method-out")
    table = protocol_data(protocol, dict(mine=mine))
    for value in ("FaceSwap", "Wav2Lip", "LIA"):
        trained = training_manifest(protocol, dict(mine=mine), value)
        assert set(trained.method) == {"real", "FaceSwap", "Wav2Lip", "LIA"} - {value} and set(trained.split) == {"train", "val"}
        [(name, chosen)] = protocol_tests(protocol, table, value).items()
        assert name == f"held out: {value}" and set(table.method[chosen]) == {"real", value} and set(table.split[chosen]) == {"test"}
        assert not set(trained.path) & set(table.path[chosen])


# ---- was it held out?

@pytest.mark.parametrize("training,expected", [({}, "unknown"), (dict(data={"mine train": 9}), "unknown"), (dict(data={"other train": 9}), "yes"), (dict(data="crops of Celeb-DF"), "no"), (dict(data={"celeb-df-v2 train": 1}), "no"),
                                               (dict(mean_of=[dict(training={}), dict(training=dict(data={"x train": 1}))]), "unknown")])
def test_what_a_file_does_not_say_is_not_assumed(tmp_path, mine, training, expected):
    celeb = tree(tmp_path / "celeb", "Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4")
    (tmp_path / "p.toml").write_text('name = "p"\n[sets.mine]\n[sets.celeb]\n[train]\nsets = ["mine"]\nmethods = ["LIA"]\n[[test]]\nname = "within"\nsets = ["mine"]\n[[test]]\nname = "across"\nsets = ["celeb"]\nsplits = ["any"]\n')
    protocol = read_protocol(tmp_path / "p.toml")
    table = protocol_data(protocol, dict(mine=mine, celeb=celeb))
    found = check_held_out(protocol, table, protocol_tests(protocol, table), training)
    name = "within" if training == dict(data={"mine train": 9}) else "across"
    assert found[name][0] == expected and bool(found[name][1]) == (expected != "yes")


def test_a_training_by_a_protocol_says_so(mine, tmp_path, monkeypatch):
    "Through the command: the table it trains on holds nothing of what is held out, the weights keep the hash, and the evaluation knows it."
    from deepfake_nb.learn import recipe
    from deepfake_nb.model.scorer import create_scorer, load_scorer, save_scorer
    seen = {}
    def train(told, out, settings, workers, say, labelled=None, validate_on=None):
        seen.update(manifest=read_manifest(told[0]))
        scorer = create_scorer("test_resnet", "mean", image_size=64, name="toy")
        scorer.config.training = dict(data={"mine train": 6})
        return save_scorer(scorer, out)
    monkeypatch.setattr(recipe, "train", train)
    out = tmp_path / "w.safetensors"
    code, printed, error = run_command("deepfake_train", f"mine={mine}", "--protocol", "leave-one-method-out", "--hold-out", "LIA", "--out", out, "--arch", "test_resnet")
    assert (code, printed.strip()) == (0, str(out)), error
    assert "without LIA." in error
    assert set(seen["manifest"].method) == {"real", "FaceSwap", "Wav2Lip"}
    protocol = read_protocol("leave-one-method-out")
    assert load_scorer(out).config.training == dict(data={"mine train": 6}, protocol=dict(name=protocol.name, sha256=protocol.sha256, held_out="LIA"))
    result = evaluate_protocol(Scores(load_scorer(out).config.training), protocol, dict(mine=mine), progress=False, n=50)
    assert {k: v[0] for k, v in result.held_out.items()} == {"held out: FaceSwap": "no", "held out: LIA": "yes", "held out: Wav2Lip": "no"} and not result.sound
    stamp_weights(out, protocol, "FaceSwap")
    assert load_scorer(out).config.training["protocol"]["held_out"] == "FaceSwap"


# ---- the command

def test_scores_of_another_program_by_a_protocol(mine, tmp_path):
    table = protocol_data(read_protocol("leave-one-method-out"), dict(mine=mine))
    test = table[table.split == "test"]
    pd.DataFrame(dict(path=test.path, probability=np.where(test.label == FAKE, .8, .1))).to_csv(tmp_path / "s.csv", index=False)
    command = ("deepfake_evaluate", "--protocol", "leave-one-method-out", "--data", f"mine={mine}", "--out", tmp_path / "out", "--scores", tmp_path / "s.csv")
    code, out, error = run_command(*command)
    stored = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert code == 0 and stored["sha256"] in out and {k: v["figures"]["auc"]["value"] for k, v in stored["rows"].items()} == {f"held out: {o}": 1. for o in ("FaceSwap", "LIA", "Wav2Lip")}
    assert all(v["counts"]["groups"] == 5 and v["held_out"] == "unknown" for v in stored["rows"].values())
    assert {"protocol.html", "evaluation.json", "predictions.csv"} <= {o.name for o in (tmp_path / "out").iterdir()}
    pd.DataFrame(dict(path=test.path[1:], probability=.5)).to_csv(tmp_path / "s.csv", index=False)
    assert run_command(*command)[0] == 1  # an item has no score


def test_numbers_in_the_data_of_a_protocol(mine, tmp_path):
    found = read_manifest(mine)
    pd.DataFrame(dict(path=found.path, label=found.label, split=found.split)).to_csv(tmp_path / "n.csv", index=False)
    (tmp_path / "n.toml").write_text('name = "n"\n[sets.n]\n[train]\nsets = ["n"]\n[[test]]\nsets = ["n"]\n[data]\nn = "n.csv"\n')
    pd.DataFrame(dict(path=found.path[found.split == "test"], probability=found.label[found.split == "test"] * .9)).to_csv(tmp_path / "s.csv", index=False)
    command = ("deepfake_evaluate", "--protocol", tmp_path / "n.toml", "--scores", tmp_path / "s.csv", "--out", tmp_path / "n")
    code, out, error = run_command(*command)
    assert code == 1 and "nothing that says which of them is forged" in error
    assert [run_command(*command, "--fake-is", o)[0] for o in (1, 0)] == [0, 0]
    assert json.loads((tmp_path / "n" / "protocol.json").read_text())["rows"]["n"]["figures"]["auc"]["value"] == 0.  # as was said last: 0 is a forgery


@pytest.mark.parametrize("text,why", [
    ("name = 'x", "no TOML"), ("name = 3\n[sets.a]\n[train]\nsets = ['a']\n[[test]]\nsets = ['a']", "name in the file is 3. Accepted: text"), ("nam = 'x'", "unknown key 'nam' in the file"), ("name = 'x'", "no sets, train, test"),
    ("name = 'x'\n[sets.a]\n[train]\nsets = ['a']\nsplit = ['train']\n[[test]]\nsets = ['a']", "unknown key 'split' in \\[train\\]. Accepted: sets, splits"), ("name = 'x'\n[sets.a]\n[train]\nsets = ['b']\n[[test]]\nsets = ['a']", "'b' in sets of \\[train\\]. Accepted: a"),
    ("name = 'x'\n[sets.a]\n[train]\nsets = ['a']\n[[test]]\nsets = ['a']\nsplits = ['holdout']", "'holdout' in splits"), ("name = 'x'\nleave_out = 'person'\n[sets.a]\n[train]\nsets = ['a']\n[[test]]\nsets = ['a']", "'person' in leave_out. Accepted: method, dataset"),
    ("name = 'x'\n[sets.a]\n[train]\nsets = ['a']\n[test]\nsets = ['a']", "Accepted: \\[\\[test\\]\\]"), ("name = 'x'\nsets = {a = 3}\n[train]\nsets = ['a']\n[[test]]\nsets = ['a']", "\\[sets.a\\] is no table"), ("name = 'x'\n[sets.a]\nwhere = {c = 'c23'}\n[train]\nsets = ['a']\n[[test]]\nsets = ['a']", "a table whose values are lists")])
def test_a_bad_protocol_is_one_sentence(tmp_path, text, why):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ManifestError, match=why) as told: read_protocol(tmp_path / "p.toml")
    assert "Accepted: " in str(told.value) and "\n" not in str(told.value)


def test_data_that_do_not_fit_are_one_sentence(tmp_path, mine):
    text = 'name = "x"\n[sets.a]\n[train]\nsets = ["a"]\n[[test]]\nsets = ["a"]\nsplits = ["undecided"]\n'
    (tmp_path / "p.toml").write_text(text)
    protocol = read_protocol(tmp_path / "p.toml")
    with pytest.raises(ManifestError, match="the data set a is missing. Accepted: --data a=PATH"): protocol_data(protocol)
    with pytest.raises(ManifestError, match="there is no such file or folder"): protocol_data(protocol, dict(a=tmp_path / "nowhere"))
    table = protocol_data(protocol, dict(a=mine))
    with pytest.raises(ManifestError, match="the test 'a' has no real and no forged items \\(its sets hold 16 train, 16 val, 16 test\\)"): protocol_tests(protocol, table)
    (tmp_path / "p.toml").write_text(text.replace("[sets.a]\n", "[sets.a]\nwhere = {colour = ['red']}\n"))
    with pytest.raises(ManifestError, match="where names the column colour. Accepted: path, label"): protocol_data(read_protocol(tmp_path / "p.toml"), dict(a=mine))
