"The notebooks import downwards only, light modules stay light, and the house style holds where a program can see it."
import ast, io, json, re, subprocess, sys, tokenize
import pytest
from project import NOTEBOOKS, PACKAGE, ROOT, cells, exported, imports, modules, name, numbers, own_imports

# Which module stands on which. One notebook owns one module, and it may use what it stands on, directly or not.
STANDS_ON = dict(
    core="",
    files="core",
    colour="",
    image="core files colour",
    animation="core files image",
    film="core files decode encode",
    media="core files image animation film",
    detect="core",
    faces="core detect",
    pipeline="media faces",
    manifest="core tables folders",
    datasets="core manifest",
    data="core figure media manifest datasets",
    extract="media faces data",
    augment="core",
    selfblend="core augment",
    redraw="core augment selfblend",
    swaps="core",
    weightsfile="core",
    model="core weightsfile pretrained",
    metrics="core",
    measure="core metrics",
    plots="core metrics figure",
    batches="core files image augment selfblend",
    learner="loaders model metrics",
    recipe="figure data extract redraw loaders learner model pretrained calibrate",
    training="core pretrained recipe", calibrate="core metrics pooling figure",
    predict="media faces pipeline model scoring calibrate unchanged hidden verdict",
    demo="media faces selfblend",
    explain="model predict",
    faithful="explain metrics model selfblend",
    evaluate="data augment metrics measure plots predict scored",
    robustness="evaluate",
    mining="batches extract evaluate",
    finetune="mining data learner recipe evaluate",
    upload="core",
    wording="core verdict",
    provenance="files wording",
    page="core",
    report="media predict explain wording provenance page",
    engine="media pipeline predict explain wording page report unchanged",
    app="upload verdict wording engine",
    capture="core files decode media",
    follow="faces",
    stream="capture follow predict",
    live="encode stream explain",
    ledger="core wording tables journal",
    scan="ledger lists predict",
    export="extras model",
    shell="core extras predict",
    cli="*",
    tables="core",
    folders="core media",
    pooling="metrics",
    verdict="core",
    decode="files",
    encode="core files",
    verify="report",
    server="upload engine",
    extras="core",
    unchanged="core",
    hidden="",
    scoring="model export calibrate",
    pretrained="core weightsfile",
    loaders="batches selfblend",
    lists="core folders tables",
    scores="evaluate tables",
    scored="core journal tables",
    journal="core",
    figure="",
)
ONLY_LEARNERS = "fastai", ("loaders", "learner")  # wraps batches and the training loop; everything else works without it
LONGEST_MODULE, LONGEST_CELL, LARGEST_NOTEBOOK = 400, 45, 250_000

by_module = pytest.mark.parametrize("module", list(modules()))
by_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda o: str(o.relative_to(ROOT / "nbs").with_suffix("")))


def allowed(module):
    "All modules that one stands on, directly or through others."
    if STANDS_ON[module] == "*": return set(STANDS_ON) - {module}
    direct = set(STANDS_ON[module].split())
    return direct.union(*(allowed(o) for o in direct))


def source(module): return modules()[module].read_text(encoding="utf-8")


def run(code):
    "What a fresh interpreter prints."
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# ---- arrows

@by_module
def test_one_notebook_owns_one_module(module):
    assert module in numbers(), f"{PACKAGE}/{module}.py has no notebook: delete it, or name the notebook NN_{module}.ipynb"
    notebook = ROOT / "nbs" / f"{numbers()[module]:02d}_{module}.ipynb"
    assert f"File to edit: ../nbs/{notebook.name}" in source(module)


@by_module
def test_imports_run_downwards(module):
    order = numbers()
    upward = {o for o in own_imports(source(module)) if order[o] >= order[module]}
    assert not upward, f"{module} ({order[module]}) imports {', '.join(f'{o} ({order[o]})' for o in upward)}: only lower numbers are allowed"


@by_module
def test_imports_are_those_of_the_design(module):
    assert module in STANDS_ON, f"{module} is new: say in the table of this test what it stands on"
    extra = own_imports(source(module)) - allowed(module)
    assert not extra, f"{module} imports {', '.join(sorted(extra))}; it stands on {STANDS_ON[module]}"


@by_module
def test_only_loaders_and_learner_import_fastai(module):
    found = {o for o in imports(source(module)) if o.split(".")[0] == ONLY_LEARNERS[0]}
    assert module in ONLY_LEARNERS[1] or not found, f"{module} imports {found}"


def test_an_upward_arrow_would_be_seen():
    "Both spellings of an import, at the top or inside a function, count."
    assert own_imports("from deepfake_nb.core import REAL") == own_imports("from .core import REAL") == {"core"}
    assert own_imports("def f():\n    from . import core") == own_imports("import deepfake_nb.core as c") == {"core"}
    assert own_imports("import json, os.path") == set()


# ---- weight

def test_importing_the_package_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", f"import {PACKAGE}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert PACKAGE in loaded  # the output was understood
    assert not loaded & {"torch", "numpy", "cv2", "PIL", "fastai", "pandas", "matplotlib", "fastcore", "timm"}


@pytest.mark.parametrize("names,without", [
    ("core weightsfile", "numpy torch cv2 fastai pandas matplotlib"), ("media", "torch fastai pandas matplotlib"),
    ("faces", "torch fastai pandas matplotlib"), ("cli", "torch fastai pandas cv2 matplotlib"),
    ("predict explain stream report export", "fastai pandas"), ("shell", "torch fastai pandas cv2 matplotlib")])
def test_light_modules_stay_light(names, without):
    present = [o for o in names.split() if o in modules()]
    lines = [f"import {PACKAGE}.{o}" for o in present] + ["import sys", "print(*sorted({o.split('.')[0] for o in sys.modules}))"]
    heavy = set(run("\n".join(lines))) & set(without.split())
    assert not heavy, f"importing {', '.join(present)} brings {', '.join(sorted(heavy))}"


# ---- house style

@by_module
def test_modules_are_short(module):
    lines = len(source(module).splitlines())
    assert lines < LONGEST_MODULE, f"{module} has {lines} lines; split it, or move what a library does better"


@by_notebook
def test_exported_cells_are_short(notebook):
    long = {o.raw["id"]: len(o.source.strip().splitlines()) for o in exported(notebook)}
    long = {k: v for k, v in long.items() if v > LONGEST_CELL}
    assert not long, f"cells with more than {LONGEST_CELL} lines: {long}"


@by_notebook
def test_notebooks_start_with_name_and_promise(notebook):
    first = next(o for o in cells(notebook) if o.kind == "markdown" and o.source.strip())
    lines = [o for o in first.source.splitlines() if o.strip()]
    assert re.match(r"# \S", lines[0]), f"starts with {lines[0]!r}; accepted: '# title'"
    assert len(lines) > 1 and re.match(r"> \S", lines[1]), "the line below the title is the promise: '> what the reader gets'"
    assert notebook.stem not in {f"{n:02d}_{m}" for m, n in numbers().items()} or lines[0] == f"# {name(notebook)}"


@by_notebook
def test_notebooks_are_small_and_clean(notebook):
    nb = json.loads(notebook.read_text(encoding="utf-8"))
    size = notebook.stat().st_size
    assert size <= LARGEST_NOTEBOOK, f"{size} bytes; at most {LARGEST_NOTEBOOK}: smaller pictures, fewer outputs"
    assert "widgets" not in nb["metadata"], "widget state is never committed"
    for cell in nb["cells"]:
        assert cell.get("id"), "every cell keeps its id"
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error", f"cell {cell['id']} was saved with an error"
            assert not any("widget" in o for o in output.get("data", {})), f"cell {cell['id']} was saved with a widget"


@by_notebook
def test_numbered_notebooks_export_their_own_module(notebook):
    named = re.findall(r"^#\|\s*default_exp:?\s+(\S+)", "\n".join("".join(o.raw["source"]) for o in cells(notebook)), re.M)
    owner = notebook.parent.name == "nbs" and re.match(r"\d+_", notebook.stem)
    assert named == ([name(notebook)] if owner else [])


def public_functions(cell):
    "The functions of a cell that users call: not private, not methods patched onto a class."
    for node in ast.parse(cell.source).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if parameters and parameters[0].arg not in ("self", "cls"): yield node, parameters


def undocumented(cell):
    "Arguments and return values without a comment of their own, functions without a docstring of one paragraph."
    tokens = [o for o in tokenize.generate_tokens(io.StringIO(cell.source).readline) if o.type == tokenize.COMMENT]
    comments = {o.start[0] for o in tokens}
    above = {o.start[0] + 1 for o in tokens if o.line.lstrip().startswith("#")}  # a comment may also stand on the line above
    for node, parameters in public_functions(cell):
        lines = [o.lineno for o in parameters]
        for parameter in parameters:
            if lines.count(parameter.lineno) > 1 or not (comments & {parameter.lineno, parameter.end_lineno} or parameter.lineno in above):
                yield f"{node.name}: {parameter.arg}"
        if node.returns and not isinstance(node.returns, ast.Constant) and node.returns.end_lineno not in comments:
            yield f"{node.name}: return value"
        if not ast.get_docstring(node): yield f"{node.name}: docstring"


@by_notebook
def test_public_functions_are_documented(notebook):
    missing = [o for cell in exported(notebook) for o in undocumented(cell)]
    assert not missing, f"no comment beside: {'; '.join(missing)}"
