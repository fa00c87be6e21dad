"Each notebook is one test: all its cells run, but for those marked `#| slow` or `#| gpu`."
import atexit, importlib.util, os, re, shutil, signal, sys, tempfile
import nbdev.test  # the module, not the function: pytest would collect `test_nb`
import pytest
from nbdev.config import get_config
from project import NOTEBOOKS, PACKAGE, ROOT, code, dotted, imports, modules, own_imports


def missing(source):
    "Packages that code wants, directly or through modules of this project, and that are not installed."
    unasked = {PACKAGE, "pillow_heif"} # HEIC is read where that is installed, and no notebook needs it
    result, seen, todo = set(), set(), [(source, PACKAGE)]
    while todo: # each module once, however many ways lead to it
        text, inside = todo.pop()
        found = {o.split(".")[0] for o in imports(text, inside)} - set(sys.stdlib_module_names) - unasked
        result |= {o for o in found if importlib.util.find_spec(o) is None}
        new = own_imports(text, inside) - seen
        seen |= new
        todo += [(modules()[o].read_text(encoding="utf-8"), dotted(o).rsplit(".", 1)[0]) for o in new]
    return result


@pytest.fixture
def surroundings(monkeypatch):
    "A notebook leaves working directory, environment, path and signals as it found them, no folders, and its shell is not kept until Python ends."
    register, make, made = atexit.register, tempfile.mkdtemp, []
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *args, **kwargs: made.append(make(*args, **kwargs)) or made[-1])
    monkeypatch.setattr(atexit, "register", lambda f, *args, **kwargs: f if getattr(f, "__name__", "") == "atexit_operations" else register(f, *args, **kwargs))
    folder, environment, path, handler = os.getcwd(), dict(os.environ), list(sys.path), signal.getsignal(signal.SIGINT)
    yield
    from IPython.core.interactiveshell import InteractiveShell
    shell, InteractiveShell._instance = InteractiveShell._instance, None
    if hasattr(shell, "close"): shell.close()  # its thread
    os.chdir(folder)
    os.environ.clear(); os.environ.update(environment)
    sys.path[:] = path
    signal.signal(signal.SIGINT, handler)
    if "matplotlib.pyplot" in sys.modules: sys.modules["matplotlib.pyplot"].close("all")
    for place in made:
        if not os.path.basename(place).startswith("deepfake-press-"): shutil.rmtree(place, ignore_errors=True)  # a press that lives on prints in it


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda o: str(o.relative_to(ROOT / "nbs").with_suffix("")))
def test_notebook(notebook, surroundings, capfd):
    absent = missing(code(notebook))
    if absent and notebook.parent.name == "tutorials": pytest.skip(f"needs {', '.join(sorted(absent))}: pip install 'deepfake_nb[all]'")
    flags = get_config(ROOT).tst_flags.split()
    passed, seconds = nbdev.test.test_nb(notebook, skip_flags=flags, basepath=ROOT, cell_timeout=300)
    error = re.sub(r"\x1b\[[0-9;]*m", "", capfd.readouterr().err)
    assert passed, f"{notebook.relative_to(ROOT)} failed:\n{error[-6000:]}"


def test_a_failing_notebook_fails(tmp_path, surroundings, capfd):
    "The test above can fail: it would be worth nothing otherwise."
    import nbformat
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2, 'one is not two'")])
    target = tmp_path / "failing.ipynb"
    nbformat.write(nb, target)
    passed, _ = nbdev.test.test_nb(target, profile=False)
    assert not passed and "one is not two" in capfd.readouterr().err
