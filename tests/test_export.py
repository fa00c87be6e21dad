"The exported scorer inside the detector and as a command: what the notebook does not show."
import importlib.util, json, os, subprocess, sys
import numpy as np, pytest, torch
from matplotlib.cbook import get_sample_data
from deepfake_nb.model import export
from deepfake_nb.core import WeightsError
from deepfake_nb.model.export import ENGINES, ExportError, engine_for, export_scorer, load_engine
from deepfake_nb.model.scorer import create_scorer, save_scorer
from deepfake_nb.judge.predict import Detector
from deepfake_nb.judge.scoring import DeviceError
from deepfake_nb.shell import run_command

engine_cache = export.engine_cache
portrait = get_sample_data("grace_hopper.jpg", asfileobj=False)
missing = [o for o in ("onnx", "onnxscript") if importlib.util.find_spec(o) is None]
there = [] if missing else [o for o, package in (("onnx", "onnxruntime"), ("openvino", "openvino")) if importlib.util.find_spec(package)]
needs_export = pytest.mark.skipif(not there, reason="pip install 'deepfake_nb[onnx]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("export")


@pytest.fixture(autouse=True)
def own_cache(folder, monkeypatch): monkeypatch.setattr(export, "engine_cache", lambda: folder/"cache")


@pytest.fixture(scope="module")
def weights(folder):
    torch.manual_seed(0)
    scorer = create_scorer("test_efficientnet", "lstm", clip_length=4, image_size=32, temporal_args=dict(hidden=8), name="small")
    return save_scorer(scorer, folder/"small.safetensors")


@needs_export
def test_every_engine_gives_the_verdict_of_torch(weights, monkeypatch):
    make = lambda engine: Detector(weights, engine=engine, face_detector="haar")
    ours = make("torch").predict(portrait)
    assert ours.settings["engine"] == "torch"
    for engine in there:
        detector = make(engine)
        found = detector.predict(portrait)
        assert (found.decision, found.settings["engine"], found.settings["device"]) == (ours.decision, engine, "cpu")
        assert abs(found.probability - ours.probability) < 1e-4
        monkeypatch.setattr(export, "export_scorer", lambda *args: pytest.fail("exported a second time"))
        assert make(engine).engine.fingerprint == detector.engine.fingerprint


@needs_export
def test_people_seen_in_different_numbers_of_frames(weights):
    "The temporal head has its mask, and batches smaller than a person change nothing."
    from deepfake_nb.judge.predict import score_clips
    crops = [np.random.default_rng(i).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for i, n in enumerate((1, 6, 3))]
    scorer = Detector(weights, device="cpu", face_detector="haar").scorer
    ours, found = score_clips(scorer, crops), score_clips(scorer, crops, batch_size=2, engine=engine_for(scorer, there[0]))
    for a, b in zip(ours, found):
        assert abs(a.logit - b.logit) < 1e-4 and np.abs(a.frame_logits - b.frame_logits).max() < 1e-4
        assert np.abs(a.features - b.features).max() < 1e-3


@needs_export
def test_without_a_cache_a_temporary_file_does(folder, weights, monkeypatch):
    (folder/"file").write_text("no folder")
    monkeypatch.setattr(export, "engine_cache", lambda: folder/"file")
    assert Detector(weights, engine=there[0], face_detector="haar").engine.name == there[0]


@needs_export
@pytest.mark.skipif("onnx" not in there, reason="pip install 'deepfake_nb[onnx]'")
def test_onnx_runtime_reports_to_nobody(folder, tmp_path):
    "It neither numbers the machine in the user's cache nor starts a thread that sends."
    path = export_scorer(create_scorer("test_efficientnet", "mean", image_size=32).eval(), folder/"silent.onnx")
    code = f"from deepfake_nb.model.export import load_engine; print(load_engine({str(path)!r}, 'onnx').name)"
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))} | dict(HOME=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings)
    assert done.stdout.strip() == "onnx", done.stderr
    assert not [o for o in tmp_path.rglob("*") if "onnxruntime" in str(o).lower()]


def test_a_cache_without_a_home(monkeypatch):
    def nobody(*args): raise RuntimeError("Could not determine home directory.")
    monkeypatch.setattr("platformdirs.user_cache_dir", nobody)
    assert engine_cache().name == "onnx" and os.access(engine_cache().parent, os.W_OK)


@needs_export
def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path/os.fsdecode(b"caf\xe9.onnx")
    try: path.touch()
    except OSError: pytest.skip("this file system takes UTF-8 only")
    export_scorer(create_scorer("test_efficientnet", "mean", image_size=32, name="caf").eval(), path)
    assert all(load_engine(path, o).config.name == "caf" for o in there)
    path.write_bytes(b"\x08\x07noise" * 50)
    with pytest.raises(WeightsError) as e: load_engine(path, there[0])
    assert r"caf\xe9.onnx" in str(e.value) and str(e.value).isascii()


def test_what_cannot_be_had_is_said(weights, monkeypatch):
    with pytest.raises(ExportError, match="Accepted: torch, onnx, openvino"): Detector(weights, engine="tensorrt", face_detector="haar")
    with pytest.raises(DeviceError): Detector(weights, engine="onnx", device="meta", face_detector="haar")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for engine in ENGINES[1:]:
        with pytest.raises(ExportError, match=rf"pip install 'deepfake_nb\[{engine}\]'"): Detector(weights, engine=engine, face_detector="haar")


@needs_export
def test_bfloat16_is_for_openvino(weights):
    with pytest.raises(ExportError, match="float32"): Detector(weights, engine="onnx", precision="bfloat16", face_detector="haar")


@needs_export
def test_a_graph_of_another_version_or_origin(folder, monkeypatch):
    import onnx
    path = export_scorer(create_scorer("test_efficientnet", "mean", image_size=32).eval(), folder/"old.onnx")
    model = onnx.load(path)
    entry = {o.key: o for o in model.metadata_props}
    entry["graph_version"].value = "999"
    onnx.save(model, path)
    with pytest.raises(WeightsError, match="export the weights again"): load_engine(path, there[0])
    entry["deepfake_nb"].value = json.dumps(dict(config=dict(arch=3)))
    onnx.save(model, path)
    with pytest.raises(WeightsError, match="not understood"): load_engine(path, there[0])
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(WeightsError, match="header 'deepfake_nb'"): load_engine(path, there[0])


def test_nothing_is_imported_before_it_is_needed():
    code = "import sys, deepfake_nb.judge.predict; print([o for o in ('onnx', 'onnxscript', 'onnxruntime', 'openvino') if o in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@needs_export
def test_command(folder, weights):
    code, out, error = run_command("deepfake_export", "--weights", str(weights), "--out", str(folder/"command.onnx"))
    assert code == 0, error
    told = json.loads(out)
    assert told["path"] == str(folder/"command.onnx") and all(told["parity"][o]["logits"] < 1e-3 for o in there)
    assert load_engine(told["path"], there[0]).config.name == "small"
    assert run_command("deepfake_export", "--weights", str(weights), "--out", str(folder/"command.pb"))[0] == 2
    assert run_command("deepfake_export", "--weights", str(folder/"none.safetensors"))[0] == 2
