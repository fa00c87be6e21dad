"What the tests know about the project: its notebooks, their cells, and who imports whom."
import ast, json, re, subprocess
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
    "'faces' for nbs/20_faces.ipynb."
    return re.sub(r"^\d+_", "", notebook.stem)


def numbers():
    "The number of each module, from the name of the notebook that owns it."
    found = [re.match(r"(\d+)_(\w+)$", o.stem) for o in NOTEBOOKS if o.parent.name == "nbs"]
    return {m[2]: int(m[1]) for m in found if m}


def modules():
    "Every exported module by name."
    return {o.stem: o for o in sorted((ROOT / PACKAGE).glob("*.py")) if not o.stem.startswith("_")}


def imports(source):
    "All that a piece of code imports, wherever it does: dotted names, own modules as 'deepfake_nb.faces'."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): yield from (o.name for o in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [PACKAGE if node.level else "", node.module]))
            yield from ([f"{base}.{o.name}" for o in node.names] if base == PACKAGE else [base])


def own_imports(source):
    "The names of the project's own modules that a piece of code imports."
    return {o.split(".")[1] for o in imports(source) if o.startswith(f"{PACKAGE}.")} & set(modules())


def python(cell):
    "The Python of a code cell, without the lines that only IPython understands."
    if cell.source.startswith("%%"): return ""
    return "\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", o) for o in cell.source.splitlines())


def code(notebook):
    "The Python of a notebook's code cells."
    return "\n".join(python(o) for o in cells(notebook) if o.kind == "code")


def tracked():
    "The files of the project, as git or a source archive would give them."
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = result.stdout.split("\0") if result.returncode == 0 else [str(o.relative_to(ROOT)) for o in ROOT.rglob("*")]
    skip = re.compile(r"(^|/)(\.git|\.venv|build|dist|_proc|_docs|__pycache__|\.pytest_cache|[^/]*\.egg-info)(/|$)")
    return [Path(o) for o in found if o and not skip.search(o) and ((ROOT / o).is_file() or (ROOT / o).is_symlink())]
