"The notebooks import downwards only, light modules stay light, and the house style holds where a program can see it."
import ast, io, json, re, subprocess, sys, tokenize
from functools import cache
import pytest
from project import NOTEBOOKS, PACKAGE, ROOT, cells, dotted, exported, imports, module_imports, modules, name, numbers, own_imports, room, rooms

# The rooms, from the ground up: a module imports from its own room and from those above it in this list.
ROOMS = "see data forge model measure judge learn tell serve".split()
GROUND = "core extras figure memory schema origin options".split()  # beside the rooms: everybody stands on these
ROOF = "doctor shell terminal cli service workbench verbs".split()  # and nobody on these

# Which module stands on which. One notebook owns one module, and it may use what it stands on, directly or not.
STANDS_ON = dict(
    core="",
    extras="core",
    figure="",
    memory="core",
    schema="core",
    origin="",
    options="core",
    # see
    contents="core",
    colour="",
    files="core contents",
    boxes="",
    blocks="boxes",
    credentials="core extras blocks",
    claims="core files blocks credentials",
    decode="colour files",
    behind="boxes contents",
    damage="behind",
    image="core files colour damage",
    encode="core files",
    film="core files boxes decode encode",
    animation="core files image",
    media="core files image animation film",
    unchanged="core",
    detect="core",
    faces="core detect",
    follow="faces",
    pipeline="faces",
    again="files film media",
    look="files film detect media faces pipeline again",
    capture="core files decode media",
    regions="",
    # data
    tables="core",
    folders="core media",
    lists="core folders tables",
    journal="core",
    manifest="core tables folders",
    datasets="core manifest",
    newsets="core folders tables manifest datasets",
    splits="core figure media manifest datasets newsets",
    dealt="core tables manifest",
    extract="media faces look splits",
    # forge
    filming="core",
    augment="filming",
    selfblend="augment",
    redraw="core augment selfblend",
    swaps="",
    warps="",
    demo="media faces selfblend",
    prepare="core files faces image manifest warps",
    # model
    weightsfile="schema core",
    pretrained="core weightsfile",
    base="core weightsfile",
    heads="",
    scorer="core base heads weightsfile pretrained",
    export="extras scorer",
    foreign="core faces base heads weightsfile",
    # measure
    metrics="core",
    figures="core metrics",
    plots="core metrics figure",
    pooling="metrics",
    calibrate="schema core metrics pooling figure",
    scored="schema core journal tables",
    evaluate="splits metrics figures plots scored calibrate",
    scores="evaluate tables",
    calibrationfile="schema core weightsfile calibrate",
    recalibrate="core calibrationfile metrics pooling scored",
    kinds="",
    protocol="core manifest splits figures",
    heldout="core scorer manifest tables scores protocol",
    # judge
    hidden="",
    verdict="core contents",
    scoring="faces scorer foreign export calibrate",
    people="faces scoring calibrate verdict",
    predict="claims files faces again look scorer foreign people unchanged hidden calibrationfile kinds memory",
    explain="scorer predict regions",
    faithful="explain metrics scorer selfblend",
    robustness="evaluate predict augment",
    # learn
    settings="options",
    crops="core files image selfblend",
    canvases="crops augment selfblend",
    sources="core manifest settings",
    batches="canvases filming sources",
    loaders="figure sources batches canvases",
    pace="core",
    learner="batches loaders pace scorer metrics",
    interpret="learner",
    tune="core base scorer learner",
    thresholds="batches calibrate scorer",
    recipe="figure splits dealt extract redraw settings loaders learner tune thresholds pretrained",
    training="options folders splits weightsfile pretrained settings tune",
    head="crops canvases pace calibrate metrics heads scorer",
    mining="batches dealt extract predict",
    finetune="mining learner thresholds figures",
    bound="options settings recipe training heldout",
    # tell
    wording="core verdict",
    scale="core",
    provenance="files wording",
    cards="core wording",
    page="core",
    claimed="core page",
    pictures="again explain wording page",
    signed="core extras credentials",
    annotate="core encode faces film files explain",
    report="schema origin scale claims claimed provenance pictures signed",
    overview="core wording page",
    verify="schema report",
    # serve
    owned="",
    gate="",
    visitors="gate",
    upload="core",
    engine="media predict explain wording page report",
    parts="gate",
    app="owned parts upload verdict claimed wording scale overview engine",
    server="owned engine visitors",
    jobs="wording engine server",
    intake="wording",
    api="wording engine jobs intake",
    connections="gate",
    hosting="owned server jobs connections api",
    client="core",
    stream="capture follow predict",
    live="encode stream explain",
    ledger="schema core tables journal",
    summary="schema core wording ledger",
    scan="summary lists predict memory",
    # the commands
    doctor="core extras origin detect weightsfile scorer scoring predict demo page",
    shell="core extras memory options splits dealt predict report",
    terminal="core folders shell",
    cli="*",
    workbench="*",
    service="extras shell api hosting",
    verbs="core",
)
ONLY_LEARNERS = "fastai", ("loaders", "pace", "learner", "interpret", "tune")  # wraps batches and the training loop; everything else works without it
LARGEST_NOTEBOOK = 250_000

by_module = pytest.mark.parametrize("module", list(modules()))
by_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda o: str(o.relative_to(ROOT / "nbs").with_suffix("")))


@cache
def allowed(module):
    "All modules that one stands on, directly or through others."
    if STANDS_ON[module] == "*": return set(STANDS_ON) - {module}
    direct = set(STANDS_ON[module].split())
    return direct.union(*(allowed(o) for o in direct))


def place(module):
    "Where a module stands: its floor, and its number there."
    floor = 0 if module in GROUND else len(ROOMS) + 1 if module in ROOF else ROOMS.index(room(module)) + 1
    return floor, numbers()[module]


def source(module): return modules()[module].read_text(encoding="utf-8")


def run(code):
    "What a fresh interpreter prints."
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# ---- arrows

def test_rooms_are_those_of_the_design():
    folders = {o.parent.name for o in NOTEBOOKS} - {"nbs", "tutorials", "benchmarks"}
    assert set(rooms()) == folders == set(ROOMS)
    assert {o for o in modules() if not room(o)} == {*GROUND, *ROOF}
    for o in ROOMS: assert re.fullmatch(r'"[A-Z][^"\n]+\."\n', (ROOT / PACKAGE / o / "__init__.py").read_text()), f"{o} says in one sentence what it is for, and no more"


@by_module
def test_one_notebook_owns_one_module(module):
    assert module in numbers(), f"{dotted(module)} has no notebook: delete it, or name the notebook NN_{module}.ipynb"
    notebook = ROOT / "nbs" / room(module) / f"{numbers()[module]:02d}_{module}.ipynb"
    assert f"nbs/{notebook.relative_to(ROOT / 'nbs')}" in source(module)


@by_module
def test_imports_run_downwards(module):
    upward = {o for o in module_imports(module) if place(o) >= place(module)}
    assert not upward, f"{dotted(module)} imports {', '.join(map(dotted, upward))}: only lower rooms, and lower numbers of its own, are allowed"


@by_module
def test_imports_are_those_of_the_design(module):
    assert module in STANDS_ON, f"{module} is new: say in the table of this test what it stands on"
    extra = module_imports(module) - allowed(module)
    assert not extra, f"{module} imports {', '.join(sorted(extra))}; it stands on {STANDS_ON[module]}"


@by_module
def test_the_table_lists_only_imports_that_are_there(module):
    gone = set(STANDS_ON[module].replace("*", "").split()) - module_imports(module)
    assert not gone, f"{module} does not import {', '.join(sorted(gone))}: take it out of the table of this test, and name what is missing then"


def test_the_table_lists_only_modules_that_are_there(): assert set(STANDS_ON) == set(modules())


@by_module
def test_only_loaders_pace_and_learner_import_fastai(module):
    found = {o for o in imports(source(module)) if o.split(".")[0] == ONLY_LEARNERS[0]}
    assert module in ONLY_LEARNERS[1] or not found, f"{module} imports {found}"


def test_an_upward_arrow_would_be_seen():
    "Both spellings of an import, at the top or inside a function, count."
    assert own_imports("from deepfake_nb.core import REAL") == own_imports("from .core import REAL") == {"core"}
    assert own_imports("def f():\n    from . import core") == own_imports("import deepfake_nb.core as c") == {"core"}
    assert own_imports("from ..see.media import read_media", "deepfake_nb.judge") == own_imports("from .media import a", "deepfake_nb.see") == {"media"}
    assert own_imports("from deepfake_nb.see import media as m") == own_imports("from . import media", "deepfake_nb.see") == {"media"}
    assert own_imports("import json, os.path") == set()


def underscored(code):
    "Names with an underscore that a piece of code takes from another module of the project, by import or as an attribute of it."
    tree, own = ast.parse(code), set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.level or (node.module or "").split(".")[0] == PACKAGE): continue
        yield from (o.name for o in node.names if o.name.startswith("_") and not o.name.startswith("__"))
        own |= {o.asname or o.name for o in node.names if o.name in modules()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in own and re.match("_[^_]", node.attr): yield node.attr


@by_module
def test_what_a_module_keeps_to_itself_is_used_by_no_other(module):
    found = sorted(underscored(source(module)))
    assert not found, f"{dotted(module)} imports {', '.join(found)}: give it a public name, or move it where it is used"


def test_a_name_with_an_underscore_would_be_seen():
    assert list(underscored("from .metrics import auc, _checked")) == list(underscored("def f():\n    from deepfake_nb.measure.metrics import _checked")) == ["_checked"]
    assert list(underscored("from ..measure import metrics as m\nm._checked(1)")) == ["_checked"]
    assert not list(underscored("from collections import _tuplegetter\nfrom .metrics import auc\nfrom deepfake_nb import __version__\nself._checked"))


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
    ("predict explain stream report export", "fastai pandas"), ("shell doctor", "torch fastai pandas cv2 matplotlib")])
def test_light_modules_stay_light(names, without):
    present = [o for o in names.split() if o in modules()]
    lines = [f"import {dotted(o)}" for o in present] + ["import sys", "print(*sorted({o.split('.')[0] for o in sys.modules}))"]
    heavy = set(run("\n".join(lines))) & set(without.split())
    assert not heavy, f"importing {', '.join(present)} brings {', '.join(sorted(heavy))}"


# ---- house style

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
    owner = notebook.parent.name in ("nbs", *ROOMS) and re.match(r"\d+_", notebook.stem)
    assert named == ([dotted(name(notebook)).split(".", 1)[1]] if owner else [])


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
