"What all tests share: few threads, fixed seeds, and data that only some machines have."
import os
threads = os.environ.setdefault("OMP_NUM_THREADS", "2")
for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"): os.environ.setdefault(name, threads)  # torch asks MKL first
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait take nothing from the tests beside them
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "5")
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")

import ctypes, gc, random, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    "The top of the checkout."
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    "Real faces and videos beside the checkout, which users do not have: tests that want them are skipped without."
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir(): pytest.skip(f"no test data in {folder}")
    return folder


@pytest.fixture(autouse=True)
def seeds():
    "The same random numbers in every run."
    random.seed(0)
    if "numpy" in sys.modules: sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules: sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def memory():
    "What a test took goes back to the machine, where others run beside it: glibc keeps gigabytes otherwise."
    statm = Path("/proc/self/statm")  # its second number: pages in memory
    def pages(): return int(statm.read_text().split()[1]) if statm.exists() else 0
    before = pages()
    yield
    if pages() - before > 25_000:
        gc.collect()
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "With `-n 2`: each notebook for itself, all other tests file by file, since those share what is slow to make."
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return nodeid if file.endswith("test_notebooks.py") else file

        def schedule(self):
            "Twice: a worker in place of one that crashed waits for a second unit before it begins with its first."
            super().schedule()
            super().schedule()

        def remove_node(self, node):
            "What a worker that crashed had left goes to the others: xdist would hand on what is done too, and wait for its end for ever."
            work = self.assigned_work.pop(node)
            left = [test for unit in work.values() for test, done in unit.items() if not done]
            for scope, unit in work.items():
                if rest := {o: False for o, done in unit.items() if not done and o != left[0]}: self.workqueue[scope] = rest
            for other in self.assigned_work:
                if other in self.registered_collections: self._reschedule(other)
            return left[0] if left else None

    return Scheduling(config, log)
