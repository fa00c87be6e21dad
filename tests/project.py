"What the tests know about the project: its notebooks, their cells, and who imports whom."
import ast, json, re, subprocess
from functools import cache
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "deepfake_nb"
NOTEBOOKS = sorted(o for o in (ROOT / "nbs").rglob("*.ipynb") if not any(p.startswith((".", "_")) for p in o.relative_to(ROOT).parts))


@dataclass
class Cell:
    "One cell: kind, text without directives, names of its directives."
    kind: str
    source: str
    directives: set
    raw: dict


def cells(notebook):
    "The cells of a notebook."
    for raw in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        lines = "".join(raw["source"]).splitlines()
        directives = {re.split(r"[\s:]+", o[2:].strip())[0] for o in lines if o.startswith("#|")}
        yield Cell(raw["cell_type"], "\n".join(o for o in lines if not o.startswith("#|")), directives, raw)


def exported(notebook):
    "The cells of a notebook that become code of the package."
    return [o for o in cells(notebook) if o.kind == "code" and o.directives & {"export", "exports", "exporti"}]


def name(notebook):
    "'faces' for nbs/see/55_faces.ipynb."
    return re.sub(r"^\d+_", "", notebook.stem)


@cache
def rooms():
    "The sub-packages: folders of notebooks that mirror the folders of the package."
    return sorted(o.parent.name for o in (ROOT / PACKAGE).glob("*/__init__.py"))


@cache
def modules():
    "Every exported module by its own name, which no other module has, in whichever room it is."
    found = sorted(o for o in (ROOT / PACKAGE).rglob("*.py") if not o.stem.startswith("_") and o.parent.name in (PACKAGE, *rooms()))
    assert len({o.stem for o in found}) == len(found), "two modules have the same name"
    return {o.stem: o for o in found}


@cache
def room(module):
    "'see' for media; '' for a module that stands beside the rooms."
    return "" if modules()[module].parent.name == PACKAGE else modules()[module].parent.name


@cache
def dotted(module):
    "'deepfake_nb.see.media' for media."
    return ".".join(filter(None, [PACKAGE, room(module), module]))


@cache
def numbers():
    "The number of each module within its room, from the name of the notebook that owns it."
    found = [re.match(r"(\d+)_(\w+)$", o.stem) for o in NOTEBOOKS if o.parent.name in ("nbs", *rooms())]
    return {m[2]: int(m[1]) for m in found if m}


def imports(source, inside=PACKAGE):
    "All that a piece of code imports, wherever it does: dotted names, own modules as 'deepfake_nb.see.faces'; `inside`: its package."
    packages = {PACKAGE, *(f"{PACKAGE}.{o}" for o in rooms())}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): yield from (o.name for o in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = inside.split(".")[: len(inside.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from ([f"{base}.{o.name}" for o in node.names] if base in packages else [base])


def own_imports(source, inside=PACKAGE):
    "The names of the project's own modules that a piece of code imports."
    return {o.rsplit(".", 1)[1] for o in imports(source, inside) if o.startswith(f"{PACKAGE}.")} & set(modules())


@cache
def module_imports(module):
    "The names of the project's own modules that a module imports."
    return own_imports(modules()[module].read_text(encoding="utf-8"), dotted(module).rsplit(".", 1)[0])


def python(cell):
    "The Python of a code cell, without the lines that only IPython understands."
    if cell.source.startswith("%%"): return ""
    return "\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", o) for o in cell.source.splitlines())


def code(notebook):
    "The Python of a notebook's code cells."
    return "\n".join(python(o) for o in cells(notebook) if o.kind == "code")


QUIET = "exports export exporti hide hide_output default_exp gpu".split()  # directives of cells that nobody sees, or that run elsewhere


def _always(body):
    "The statements that run whenever a cell does and whose print is seen: not those of functions, conditions and redirections."
    for o in body:
        if isinstance(o, (ast.For, ast.While)): yield from _always(o.body)
        elif isinstance(o, ast.With):
            if not any(re.search(r"redirect|capture|suppress|mocked", ast.unparse(i.context_expr)) for i in o.items): yield from _always(o.body)
        elif isinstance(o, ast.Try): yield from _always([*o.body, *o.orelse])
        elif not isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If)): yield o


def _called(o):
    "The name of what a call calls, 'print' for print(...)."
    return o.func.id if isinstance(o.func, ast.Name) else o.func.attr if isinstance(o.func, ast.Attribute) else ""


def shows_something(source):
    "Whether a cell prints, plots or ends with something to see, as far as its text tells."
    body = ast.parse(source).body
    for statement in _always(body):
        value = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(value, ast.Call) and _called(value) in ("print", "display"): return True
    last = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    if isinstance(last, ast.Call):  # a call of a class, or of something that draws; of others nobody knows
        return _called(last)[:1].isupper() or bool(re.match(r"(show|plot|draw)_|fromarray$|to_html$|resize$", _called(last)))
    return isinstance(last, (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.Dict, ast.List, ast.ListComp, ast.JoinedStr))


UNSAVED = {"app.ipynb": "the upload page: its widgets live in a server, and their state is never saved"}


def lacking_output(notebook):
    "The visible cells that show something and were saved without it."
    for cell in cells(notebook):
        if cell.kind != "code" or cell.directives & set(QUIET) or cell.raw.get("outputs"): continue
        if re.search(r"^#\|\s*eval:\s*false", "".join(cell.raw["source"]), re.M): continue
        try:
            if shows_something(python(cell)): yield cell
        except SyntaxError: continue  # await at the top of a cell, and other things that only IPython reads


def tracked():
    "The files of the project, as git or a source archive would give them."
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = result.stdout.split("\0") if result.returncode == 0 else [str(o.relative_to(ROOT)) for o in ROOT.rglob("*")]
    skip = re.compile(r"(^|/)(\.git|\.venv|build|dist|_proc|_docs|_site|__pycache__|\.pytest_cache|[^/]*\.egg-info)(/|$)")
    return [Path(o) for o in found if o and not skip.search(o) and ((ROOT / o).is_file() or (ROOT / o).is_symlink())]
