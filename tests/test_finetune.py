"Fine-tuning: what must not overlap is refused, what is held out is never trained on, and what makes the rest worse is not kept."
import json
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
import deepfake_nb.learn.finetune as module
from deepfake_nb.core import FAKE, DeepfakeError, sha256_file
from deepfake_nb.learn.finetune import FineTuneSettings, finetune
from deepfake_nb.learn.learner import BatchLoader
from deepfake_nb.learn.mining import OverlapError, read_failures, refuse_overlap
from deepfake_nb.model.scorer import create_scorer, load_scorer, save_scorer, weights_info

SETTINGS = FineTuneSettings(epochs=1, batch_size=8, severity=0., held_out=.4, stopping=.3)


def pictures(folder, kinds, count):
    "Noise with a smooth or a dark middle, each picture with a group of its own."
    rng, rows = np.random.default_rng(sum(map(ord, folder.name))), []
    folder.mkdir()
    for kind in kinds:
        for i in range(count):
            picture = rng.integers(60, 200, (40, 40, 3), dtype=np.uint8)
            if kind != "real": picture[10:30, 10:30] = 120 if kind == "smooth" else picture[10:30, 10:30] // 4
            Image.fromarray(picture).save(folder/f"{kind}{i}.png")
            rows.append(dict(path=str(folder/f"{kind}{i}.png"), label=int(kind != "real"), split="", group=f"{folder.name}-{kind}-{i}", dataset="toy", method=kind,
                             face_x=4, face_y=4, face_w=32, face_h=32))
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    return save_scorer(create_scorer("test_efficientnet", "mean", 1, 32, name="parent"), tmp_path_factory.mktemp("weights")/"parent.safetensors")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    top = tmp_path_factory.mktemp("sets")
    return dict(pool=pictures(top/"pool", ["real", "dark"], 10), replay=pictures(top/"replay", ["real", "smooth"], 8),
                validation=pictures(top/"validation", ["real", "smooth"], 4), test=pictures(top/"test", ["real", "smooth"], 8))


def add(sets, name, row):
    return sets | {name: pd.concat([sets[name], row], ignore_index=True)}


def refused(weights, sets, out, *words):
    with pytest.raises(OverlapError) as error: finetune(weights, **sets, out=out, settings=SETTINGS, workers=0, progress=False)
    assert all(o in str(error.value) for o in (*words, "Accepted")), str(error.value)
    assert not out.exists() and not out.with_suffix("").exists()  # before anything is written
    return str(error.value)


# ---- overlap

@pytest.mark.parametrize("first,second", [("pool", "test"), ("replay", "test"), ("validation", "test"), ("pool", "replay"), ("pool", "validation"), ("replay", "validation")])
def test_the_same_path_is_refused(weights, sets, tmp_path, first, second):
    shared = sets[first].iloc[[2]].assign(group="somebody else")
    assert shared.path.iloc[0] in refused(weights, add(sets, second, shared), tmp_path/"new.safetensors", f"{first} and {second} overlap by path")


def test_a_path_written_in_another_way_is_the_same(sets, tmp_path):
    path = Path(sets["pool"].path[0])
    (tmp_path/"link.png").symlink_to(path)
    for spelling in (path.parent/".."/path.parent.name/path.name, tmp_path/"link.png"):
        row = sets["pool"].iloc[[0]].assign(group="x", path=str(spelling))
        with pytest.raises(OverlapError, match="by path"): refuse_overlap(**add(sets, "test", row))


def test_a_copy_under_another_name_is_refused(weights, sets, tmp_path):
    copy = tmp_path/"innocent.png"
    copy.write_bytes(Path(sets["replay"].path[1]).read_bytes())
    row = sets["replay"].iloc[[1]].assign(path=str(copy), group="somebody else")
    said = refused(weights, add(sets, "test", row), tmp_path/"new.safetensors", "replay and test overlap by content", "innocent.png")
    assert sha256_file(copy)[:12] in said


def test_the_same_person_is_refused(weights, sets, tmp_path):
    test = sets["test"].assign(group=[sets["pool"].group[5], *sets["test"].group[1:]])
    refused(weights, sets | dict(test=test), tmp_path/"new.safetensors", "pool and test overlap by group", sets["pool"].group[5])


def test_a_person_inside_a_face_swap_is_refused(sets):
    pool, test = sets["pool"].assign(identities="ff/000|ff/003"), sets["test"].assign(identities=sets["test"].group)
    test.loc[0, "identities"] = "ff/003"
    with pytest.raises(OverlapError, match="for instance ff/003"): refuse_overlap(pool=pool, test=test)


def test_crops_of_one_video_overlap_with_the_video(sets, tmp_path):
    (tmp_path/"a.mp4").write_bytes(b"a video")
    crops = sets["pool"].assign(source_path=str(tmp_path/"a.mp4"))
    media = sets["test"].iloc[:1].assign(path=str(tmp_path/"a.mp4"))
    with pytest.raises(OverlapError, match="by path"): refuse_overlap(pool=crops, test=media)


def test_a_copy_inside_the_pool_cannot_be_trained_on_and_held_out(weights, sets, tmp_path):
    "The pool is dealt by group, and the same picture may stand under many groups."
    copies = []
    for i, row in sets["pool"].iterrows():
        path = tmp_path/f"{i}.png"
        path.write_bytes(Path(sets["pool"].path[10 if row.label == FAKE else 0]).read_bytes())
        copies.append(row.to_dict() | dict(path=str(path)))
    with pytest.raises(OverlapError, match="by content"):
        finetune(weights, **sets | dict(pool=pd.DataFrame(copies)), out=tmp_path/"new.safetensors", settings=SETTINGS, workers=0, n=20, progress=False)


# ---- held out

@pytest.fixture(scope="module")
def trained(weights, sets, tmp_path_factory):
    "A run, and the paths of everything that any loader was given."
    seen, original = {}, BatchLoader.__init__
    def watched(self, dataset, *args, **kwargs):
        seen.setdefault(bool(kwargs.get("shuffle")), set()).update(frame["path"] for clip in dataset.clips for frame in clip)
        original(self, dataset, *args, **kwargs)
    BatchLoader.__init__ = watched
    out = tmp_path_factory.mktemp("out")/"new.safetensors"
    try: result = finetune(weights, **sets, out=out, settings=SETTINGS, workers=0, n=50, progress=False)
    finally: BatchLoader.__init__ = original
    return result, out, seen


def test_what_is_reported_is_never_trained_on(trained, sets):
    result, _, seen = trained
    items = {name: set(part.path) for name, part in result.items.groupby("set")}
    assert items["held_out"] and items["failures"] and items["held_out"] < items["kind"]
    for name in ("held_out", "kind", "untouched"): assert not items[name] & (seen[True] | seen[False])
    assert items["failures"] < seen[True] and set(sets["replay"].path) < seen[True]
    assert items["failures"] | set(sets["replay"].path) == seen[True]  # and nothing else
    assert items["untouched"] == set(sets["test"].path)


def test_failures_are_what_the_parent_had_wrong(trained):
    result, _, _ = trained
    chosen = result.items[result.items.set.isin(("failures", "held_out"))]
    assert ((chosen.before >= .5) != (chosen.label == FAKE)).all()
    groups = result.items.groupby("set").group.agg(set)
    assert not groups["failures"] & groups["kind"]


def test_the_weights_tell_where_they_come_from(trained, weights, sets):
    result, _, _ = trained
    config = load_scorer(result.path).config
    assert config.parent_sha256 == result.parent_sha256 == sha256_file(weights)
    assert config.training["data"] == {k: len(o) for k, o in sets.items()} and config.training["parent"]["name"] == "parent"
    assert config.training["finetuning"]["learning_rate"] == SETTINGS.learning_rate
    assert weights_info(result.path)  # readable without loading
    record = json.loads((result.path.with_suffix("")/"finetune.json").read_text())
    assert record["kept"] == result.kept and len(record["table"]) == len(result.table)


def test_the_result_shows_itself(trained):
    result, _, _ = trained
    for text in (repr(result), result._repr_html_()):
        assert all(o in text for o in ("held-out failures", "untouched test set", "AUC", "new"))


# ---- kept or not

def spoiled(parts):
    "Training that turns the scorer's verdict on smooth pictures around: it knows nothing any more."
    def train(scorer, *args, **kwargs):
        scorer.config.metrics = dict(validation_auc=.5)
        for o in scorer.head.parameters(): o.data.mul_(0)
        return scorer.eval(), .5
    return train


@pytest.fixture(scope="module")
def able(sets, tmp_path_factory):
    "Weights that are right about the untouched set: the head is fitted to the features of the test pictures."
    from deepfake_nb.learn.batches import Faces
    torch.manual_seed(0)
    scorer = create_scorer("test_efficientnet", "mean", 1, 32, name="able").eval()
    faces = Faces(sets["test"], 32)
    x = torch.stack([faces[i][0] for i in range(len(faces))])
    with torch.no_grad(): features = scorer.features(torch.cat([x, x.flip(-1)]))[:, 0]
    y = torch.from_numpy(np.tile(faces.labels, 2)).float()
    linear = [o for o in scorer.head.modules() if isinstance(o, torch.nn.Linear)][-1]
    scale = features.std(0).clamp(min=1e-6)
    design = torch.cat([(features - features.mean(0))/scale, torch.ones(len(y), 1)], 1)
    solution = torch.linalg.lstsq(design.double(), (y*2 - 1).double(), driver="gelsd").solution.float()*4
    with torch.no_grad():
        linear.weight.copy_((solution[:-1]/scale)[None])
        linear.bias.copy_(solution[-1:] - (solution[:-1]/scale*features.mean(0)).sum())
    return save_scorer(scorer, tmp_path_factory.mktemp("able")/"able.safetensors")


def test_weights_that_spoil_the_rest_get_another_name(able, sets, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_train", spoiled(sets))
    out = tmp_path/"new.safetensors"
    out.write_bytes(b"the weights of yesterday")
    result = finetune(able, **sets, out=out, settings=SETTINGS, workers=0, n=50, progress=False)
    figures = result.table.set_index(["set", "figure"])
    assert figures.loc[("untouched", "auc"), "before"] > .9 and figures.loc[("untouched", "auc"), "after"] == .5
    assert not result.kept and result.path == tmp_path/"new_rejected.safetensors" and result.path.exists()
    assert out.read_bytes() == b"the weights of yesterday"  # what lay there is left alone
    assert "REJECTED" in repr(result) and "fell from" in repr(result)
    assert load_scorer(result.path).config.metrics["kept"] is False


def test_weights_that_spoil_nothing_are_kept(able, sets, tmp_path, monkeypatch):
    def unchanged(scorer, *args, **kwargs):
        scorer.config.metrics = dict(validation_auc=.5)
        return scorer, .5
    monkeypatch.setattr(module, "_train", unchanged)
    result = finetune(able, **sets, out=tmp_path/"new.safetensors", settings=SETTINGS, workers=0, n=50, progress=False)
    assert result.kept and result.path == tmp_path/"new.safetensors" and (result.table.difference == 0).all()


# ---- inputs

def test_the_failures_of_an_evaluation_are_read(tmp_path):
    row = dict(path="a.mp4", label="FAKE", predicted="REAL", probability=.1, person=2, time=.5, sha256="0"*64, split="test", group="g", dataset="d", method="swap", video_id="v")
    (tmp_path/"failures.json").write_text(json.dumps([row]))
    table = read_failures(tmp_path/"failures.json")
    assert table.label.tolist() == [FAKE] and table.failed.all() and table.failed_person.tolist() == [2]


def test_the_pool_of_an_evaluation_of_the_test_set_is_refused(weights, sets, tmp_path):
    "The mistake this module is about: train on the failures of the set that is then reported."
    rows = [dict(path=o.path, label="FAKE", predicted="REAL", group=o.group, person=0) for o in sets["test"].itertuples() if o.label == FAKE]
    (tmp_path/"failures.json").write_text(json.dumps(rows))
    refused(weights, sets | dict(pool=tmp_path/"failures.json"), tmp_path/"new.safetensors", "pool and test overlap by path: 8")


def test_the_parent_is_never_overwritten(weights, sets):
    before = sha256_file(weights)
    with pytest.raises(DeepfakeError, match="another name"): finetune(weights, **sets, out=weights, settings=SETTINGS)
    assert sha256_file(weights) == before


# ---- the command

def test_the_command_finetunes_from_tables(weights, sets, tmp_path):
    from deepfake_nb.shell import run_command
    from deepfake_nb.data.manifest import write_manifest
    tables = [str(o) for name, part in dict(pool=sets["pool"], replay=sets["replay"], val=sets["validation"], test=sets["test"]).items()
              for o in (f"--{name}", write_manifest(part, tmp_path/f"{name}.csv"))]
    settings = json.dumps(dict(batch_size=8, severity=0., held_out=.4, stopping=.3))
    code, out, error = run_command("deepfake_finetune", weights, *tables, "--epochs", "1", "--settings", settings, "--out", tmp_path/"new.safetensors")
    written = tmp_path/("new_rejected.safetensors" if code else "new.safetensors")
    assert code in (0, 1) and "untouched test set" in out, error
    assert load_scorer(written).config.parent_sha256 == sha256_file(weights)
    code, out, error = run_command("deepfake_finetune", weights, *tables[:-1], tables[1], "--out", tmp_path/"other.safetensors")
    assert code == 1 and "pool and test overlap by path" in error and not (tmp_path/"other.safetensors").exists()
