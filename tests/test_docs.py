"The docs can be built and say what the code says."
import ast, os, re, shutil, subprocess, sys
from pathlib import Path
import nbformat, pytest, yaml
from nbconvert import HTMLExporter
from project import NOTEBOOKS, ROOT, cells, python, tracked


def load(path): return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_quarto_settings():
    "The keys that Quarto wants are there, and the files they name exist or are made by nbdev."
    quarto = load("_quarto.yml")
    assert quarto["project"]["type"] == "website"
    assert {"title", "navbar", "sidebar"} <= set(quarto["website"])
    assert isinstance(quarto["format"]["html"], dict)
    assert quarto["metadata-files"] == ["nbdev.yml", "sidebar.yml"]  # nbdev makes the second one; it is not committed
    assert (ROOT / "nbs" / "nbdev.yml").is_file()
    link = ROOT / "nbs" / "_quarto.yml"
    assert link.is_symlink() and os.readlink(link) == "../_quarto.yml"


def test_pages_that_the_settings_name_exist():
    def named(value):
        if isinstance(value, dict):
            for k, v in value.items(): yield from [v] if k in ("href", "file") and isinstance(v, str) else named(v)
        elif isinstance(value, list):
            for o in value: yield from named(o)
    for page in named(load("_quarto.yml")):
        assert "://" in page or (ROOT / "nbs" / page).exists(), f"_quarto.yml names {page}, which is not in nbs"


def test_pictures_and_links_of_notebooks_exist():
    "A relative link in a notebook's text leads to a file of the project."
    missing = []
    for notebook in NOTEBOOKS:
        for cell in (o for o in cells(notebook) if o.kind == "markdown"):
            text = re.sub(r"`[^`]*`", "", cell.source)
            for target in re.findall(r"""(?:\]\(|(?:src|href)=["'])([^)"'\s#]+)""", text):
                if not re.match(r"[a-z][a-z0-9+.-]*:", target) and not (notebook.parent / target).exists():
                    missing.append(f"{notebook.name}: {target}")
    assert not missing


def test_readme_is_made_from_the_index():
    done = subprocess.run([sys.executable, ".ci/readme.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_lists_every_notebook():
    "The table of notebooks is what nbs/index.ipynb showed when it was last run and saved."
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [o.name for o in NOTEBOOKS if o.name[:2].isdigit() and f"]({o.relative_to(ROOT)})" not in text]
    assert not missing, f"run nbs/index.ipynb, save it and make readme: {', '.join(missing)}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda o: str(o.relative_to(ROOT / "nbs").with_suffix("")))
def test_imports_have_cells_of_their_own(notebook):
    "nbdev runs every cell that imports something when it builds the docs, but not the cells between: other code would fail or waste time."
    simple = ast.Import, ast.ImportFrom, ast.If, ast.Try, ast.ExceptHandler, ast.Pass
    for cell in (o for o in cells(notebook) if o.kind == "code" and not o.directives & {"export", "exports", "eval"}):
        tree = ast.parse(python(cell))
        statements = [o for o in ast.walk(tree) if isinstance(o, (ast.stmt, ast.ExceptHandler))]
        mixed = any(isinstance(o, (ast.Import, ast.ImportFrom)) for o in statements) and not all(isinstance(o, simple) for o in statements)
        assert not mixed, f"move the imports of this cell to one of their own:\n{cell.source}"


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    "The notebooks as nbdev stages them for Quarto, made in a copy of the project, with a stand-in for Quarto's binary."
    copy, programs = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("programs")
    for path in tracked():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".safetensors": shutil.copy2(ROOT / path, copy / path, follow_symlinks=False)
    quarto = programs / "quarto"
    quarto.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 1.6.40\nexit 0\n")
    quarto.chmod(0o755)
    folders = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    done = subprocess.run(["nbdev-proc-nbs", "--n-workers", "2"], cwd=copy, capture_output=True, text=True,
                          env=os.environ | dict(PATH=os.pathsep.join(folders), OMP_NUM_THREADS="1"), timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return copy


def test_docs_are_staged_and_render(staged):
    pages = sorted((staged / "_proc").rglob("*.ipynb"))
    assert len(pages) == len(NOTEBOOKS)
    for page in pages:
        nb = nbformat.read(page, as_version=4)
        for cell in nb.cells:  # what nbdev leaves behind that no notebook format knows: a mark for a documented cell, seconds as numbers
            cell.pop("has_sd", None), cell.metadata.pop("execution", None)
        text, _ = HTMLExporter(template_name="basic").from_notebook_node(nb)
        assert "<h1" in text or nb.cells[0].source.startswith("---"), f"{page.name} has no title"


def test_site_settings_are_those_of_pyproject(staged):
    "nbdev makes nbs/nbdev.yml from pyproject.toml; the committed one is the same."
    assert (staged / "nbs" / "nbdev.yml").read_text() == (ROOT / "nbs" / "nbdev.yml").read_text()
    sidebar = yaml.safe_load((staged / "nbs" / "sidebar.yml").read_text())
    assert "index.ipynb" in str(sidebar) and "00_core.ipynb" in str(sidebar)
