"Every command once, for the environment of .ci/run with the lowest versions that settings.ini declares."
import importlib, json, os
from pathlib import Path
import pytest
from deepfake_nb.shell import run_command
from project import ROOT, dotted, modules

pytestmark = pytest.mark.skipif("DEEPFAKE_NB_LOWEST" not in os.environ, reason="94_cli does this with the newest versions")
SMALL = ("--arch", "mobilenetv2_050", "--temporal", "mean", "--clip-length", "1", "--image-size", "64", "--epochs", "1", "--batch-size", "2", "--workers", "0")


def run(*arguments, code=0):
    "What a command prints; its error, if the exit code is another."
    found, out, error = run_command(*arguments)
    assert found == code and "Traceback" not in error, error[-3000:]
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A demo and a little data set made of it."
    folder = tmp_path_factory.mktemp("lowest")
    here = Path.cwd()
    os.chdir(folder)
    results = json.loads(run("deepfake_predict", "--demo", "--out", "evidence", "--report", "--frames", "8"))
    assert results[0]["decision"] != "FAKE" and results[1]["decision"] == "FAKE" and all(Path(o["heatmap"]).is_file() for o in results)
    for split in ("train", "val"):
        for label, result in zip(("real", "fake"), results):
            place = Path("data", split, label, f"{split}{Path(result['path']).suffix}")
            place.parent.mkdir(parents=True)
            place.write_bytes(Path(result["path"]).read_bytes())
    yield folder
    os.chdir(here)


def test_the_environment_is_the_lowest(folder):
    "Otherwise the tests here would say nothing."
    import subprocess, sys
    from importlib.metadata import version
    from packaging.version import Version
    printed = subprocess.run([sys.executable, str(ROOT / ".ci" / "lowest.py")], capture_output=True, text=True, check=True).stdout
    other = {o: found for o in printed.split() if Version(o.split("==")[1]) != Version(found := version(o.split("==")[0]))}
    assert not other


@pytest.mark.parametrize("module", list(modules()))
def test_every_module_can_be_imported(module): importlib.import_module(dotted(module))


def test_report(folder):
    record = next(folder.glob("evidence/*/report.json"))
    assert "belongs to this file" in run("deepfake_report", "--verify", record, "--input", json.loads(next(record.parent.glob("prediction.json")).read_text())["path"])


def test_extract_train_evaluate_and_export(folder):
    assert run("deepfake_extract", "data", "faces", "--size", "64", "--workers", "0").strip().endswith("manifest.csv")
    assert run("deepfake_train", "data", "--from-real-only", "--out", "small.safetensors", *SMALL).strip().endswith("small.safetensors")
    assert "coverage" in run("deepfake_evaluate", "data/val", "--weights", "small.safetensors", "--out", "measured")
    told = json.loads(run("deepfake_export", "--weights", "small.safetensors", "--out", "small.onnx"))
    assert set(told["parity"]) == {"onnx", "openvino"}


def test_scan(folder):
    from pyarrow.parquet import ParquetDataset
    run("deepfake_scan", "data/val", "--out", "scan", "--workers", "1")
    rows = ParquetDataset("scan/rows").read().to_pylist()
    assert len(rows) == 2 and not [o for o in rows if o.get("error")]
