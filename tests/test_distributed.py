"Two processes train as one would: the same batches, the same losses, and they really are two."
import json, os, subprocess, sys
import pytest

pytest.importorskip("fastai", reason="the train extra is not installed")
pytest.importorskip("accelerate", reason="the train extra is not installed")

SCRIPT = '''
import json, os, sys
from pathlib import Path
import numpy as np, pandas as pd, torch
from PIL import Image
torch.set_num_threads(1)
from deepfake_nb.learn.learner import Callback, face_learner, fit, join_processes, labelled_loaders, leave_processes
from deepfake_nb.model.scorer import create_scorer

folder = Path(sys.argv[1])
rank, size = join_processes()
table = pd.DataFrame([dict(path=str(folder/f"{i}.png"), label=i % 2, split="train" if i < 24 else "val") for i in range(32)])
dls = labelled_loaders(table, size=32, batch_size=8, severity=0., workers=0)
dls.train.dataset.jitter = None
torch.manual_seed(0)
scorer = create_scorer("vit_tiny_patch16_224", "mean", image_size=32, clip_length=1, dropout=0., arch_args=dict(depth=2))
losses = []
class Losses(Callback):
    order = 100
    def after_loss(self):
        if self.training: losses.append(self.learn.loss.detach())
learn = face_learner(dls, scorer=scorer, half=False, cbs=[Losses()])
fit(learn, 2, 1e-3, progress=False)
if size > 1:
    together = torch.stack(losses)
    torch.distributed.all_reduce(together)
    losses = list(together/size)
leave_processes()
if rank == 0:
    (folder/f"losses{size}.json").write_text(json.dumps(dict(size=size, losses=[float(o) for o in losses], seen=len(dls.train)*dls.train.bs)))
'''


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    import numpy as np
    from PIL import Image
    folder = tmp_path_factory.mktemp("distributed")
    rng = np.random.default_rng(0)
    for i in range(32):
        Image.fromarray((rng.integers(0, 120, (32, 32, 3)) + 100*(i % 2)).astype(np.uint8)).save(folder/f"{i}.png")
    script = folder/"script.py"
    script.write_text(SCRIPT)
    environment = os.environ | dict(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", ACCELERATE_USE_CPU="true")
    for launch in ([sys.executable], [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29533"]):
        done = subprocess.run([*launch, str(script), str(folder)], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder/f"losses{size}.json").read_text()) for size in (1, 2)]


def test_two_processes_take_part(losses):
    one, two = losses
    assert (one["size"], two["size"]) == (1, 2)
    assert (one["seen"], two["seen"]) == (24, 12)  # clips that each process sees in an epoch


def test_the_loss_curve_is_that_of_one_process(losses):
    one, two = losses
    assert len(one["losses"]) == len(two["losses"]) == 6
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-3)
    assert abs(one["losses"][-1] - one["losses"][0]) > 1e-2  # something was learned, so the curves could have differed
