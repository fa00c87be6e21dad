"from deepfake_nb import Detector: the names people need, each loaded when it is first used."
import ast, importlib, json, subprocess, sys
import pytest
import deepfake_nb
from project import PACKAGE, ROOT, modules, rooms

HOMES = deepfake_nb._HOMES
HEAVY = "torch numpy cv2 PIL fastai pandas matplotlib fastcore timm av"


def run(code):
    "What a fresh interpreter prints, as JSON."
    done = subprocess.run([sys.executable, "-c", f"import json, sys\n{code}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", HOMES)
def test_every_name_is_that_of_its_module(name):
    home = importlib.import_module(f"{PACKAGE}.{HOMES[name]}")
    assert getattr(deepfake_nb, name) is getattr(home, name)
    assert name in home.__all__ and getattr(home, name).__doc__


def test_nothing_heavy_before_the_first_use():
    loaded = run(f"import deepfake_nb; dir(deepfake_nb); deepfake_nb.__all__; print(json.dumps(sorted(set('{HEAVY}'.split()) & set(sys.modules))))")
    assert loaded == []


def test_what_is_used_is_loaded_and_no_more():
    "A prediction read from JSON needs no torch; reading a film needs none either; a detector does."
    show = "print(json.dumps([o in sys.modules for o in ('torch', 'fastai')]))"
    assert run(f"from deepfake_nb import Prediction, read_media; {show}") == [False, False]
    assert run(f"from deepfake_nb import Detector; {show}") == [True, False]


def test_a_notebook_shows_what_the_door_gives():
    "Also where only a name of it was used; the rooms alone know nothing of cards."
    show = "print(json.dumps(Prediction._repr_html_.__name__))"
    assert run(f"from deepfake_nb import Prediction; {show}") == "prediction_card"


def test_names_do_not_hide_modules():
    "explain and evaluate are functions at the door and modules in their rooms, whichever is imported first."
    clash = sorted(set(HOMES) & set(modules()))
    assert {"explain", "evaluate", "extract", "finetune", "scan", "robustness"} <= set(clash)
    assert not set(HOMES) & {*rooms(), "core", "extras", "figure", "doctor", "shell", "cli"}, "a name of the door would hide a module beside it"
    both = "; ".join(f"import deepfake_nb.{HOMES[o]} as m{i}; from deepfake_nb import {o}; assert callable({o}) and m{i}.{o} is {o}" for i, o in enumerate(clash))
    door = "from deepfake_nb import explain; from deepfake_nb.judge import explain as room"
    assert run(f"{door}; {both}; print(json.dumps([type(o).__name__ for o in (room, m0)]))") == ["module", "module"]


def test_type_checkers_and_editors_see_the_same():
    "The imports below TYPE_CHECKING are those of the table."
    tree = ast.parse((ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(o for o in tree.body if isinstance(o, ast.If))
    seen = {name.name: o.module for o in block.body for name in o.names}
    assert seen == HOMES
    assert set(HOMES) < set(deepfake_nb.__all__) < set(dir(deepfake_nb)) and len(deepfake_nb.__all__) == len(HOMES) + 1


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="'Detecter'.*Accepted: Detector"): deepfake_nb.Detecter
    with pytest.raises(ImportError, match="cannot import name 'Detecter'"): exec("from deepfake_nb import Detecter")
    assert run("import deepfake_nb; print(json.dumps(hasattr(deepfake_nb, 'see')))") is False  # rooms are imported as ever
    assert run("import deepfake_nb.see.media; print(json.dumps(deepfake_nb.see.media.__name__))") == "deepfake_nb.see.media"


def test_what_is_not_installed_is_named():
    code = """
sys.modules["fastai"] = None
try: from deepfake_nb import train
except ImportError as e: print(json.dumps(str(e)))
"""
    assert run(code) == "fastai is not installed. Accepted: pip install 'deepfake_nb[train]'."
