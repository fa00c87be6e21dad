"deepfake-train on the plain layout: killed in the middle, started again, and its weights judge a file."
import json, os, signal, subprocess, sys, time
from pathlib import Path
import pytest

pytest.importorskip("fastai", reason="the train extra is not installed")

ARGUMENTS = ["--arch", "mobilenetv2_100", "--temporal", "mean", "--clip-length", "1", "--image-size", "64", "--batch-size", "4", "--epochs", "3", "--workers", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "Sixteen variants of one portrait in data/{train,val}/{real,fake}; the 'fakes' are blurred."
    import numpy as np
    from matplotlib.cbook import get_sample_data
    from PIL import Image
    root, rng = tmp_path_factory.mktemp("plain")/"data", np.random.default_rng(0)
    portrait = Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB").crop((60, 0, 460, 400)).resize((200, 200))
    for split, count in (("train", 8), ("val", 4)):
        for label in ("real", "fake"):
            folder = root/split/label
            folder.mkdir(parents=True)
            for i in range(count):
                side = 90 if label == "fake" else 200
                picture = np.asarray(portrait.resize((side, side)).resize((200, 200)), float)*rng.uniform(.85, 1.15)
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder/f"{split}_{label}_{i}.png")
    return root


def start(data, out):
    code = f"import sys, torch; torch.set_num_threads(1); sys.argv[0] = 'deepfake-train'; from deepfake_nb.cli import deepfake_train; deepfake_train(sys.argv[1], **{dict(zip((a[2:].replace('-', '_') for a in ARGUMENTS[::2]), (int(o) if o.isdigit() else o for o in ARGUMENTS[1::2])))!r}, out=sys.argv[2])"
    return subprocess.Popen([sys.executable, "-c", code, str(data), str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            env=os.environ | dict(DEEPFAKE_NB_FACE_DETECTOR="haar", OMP_NUM_THREADS="1"))


def test_a_killed_training_goes_on_and_its_weights_judge(data, tmp_path):
    import pandas as pd
    out = tmp_path/"weights.safetensors"
    first, state = start(data, out), tmp_path/"weights"/"state.pth"
    deadline = time.monotonic() + 300
    while not state.exists() and first.poll() is None and time.monotonic() < deadline: time.sleep(.02)
    first.send_signal(signal.SIGKILL)
    error = first.communicate()[1]
    assert state.exists(), error
    begun = pd.read_csv(tmp_path/"weights"/"log.csv")
    assert len(begun) < 3, "the training was over before it was killed"

    second = start(data, out)
    error = second.communicate(timeout=300)[1]
    assert second.returncode == 0, error
    log = pd.read_csv(tmp_path/"weights"/"log.csv")
    assert log.epoch.tolist() == [0, 1, 2]
    assert log[: len(begun)].equals(begun)  # what was done was not done again

    from deepfake_nb.model import load_scorer
    from deepfake_nb.predict import Detector
    told = load_scorer(out).config
    assert told.training["data"] and told.false_positive_rate["n_real"] == 4
    picture = next((data/"val"/"real").iterdir())
    prediction = Detector(out, face_detector="haar").predict(picture)
    assert prediction.probability is not None and prediction.weights["name"]
