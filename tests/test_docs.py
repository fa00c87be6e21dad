"The docs can be built and say what the code says."
import ast, importlib.util, os, posixpath, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
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


def test_links_of_texts_exist():
    "So do those of README and its like, and the headings that they point to."
    slug = lambda o: re.sub(r"[^\w\- ]", "", o.lower()).strip().replace(" ", "-")
    missing = []
    for text in [o for o in tracked() if o.suffix == ".md" and o.parts[0] in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "models", "data")]:
        for target, anchor in re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)", re.sub(r"`[^`]*`", "", (ROOT / text).read_text(encoding="utf-8"))):
            if re.match(r"[a-z][a-z0-9+.-]*:", target): continue
            path = ROOT / text.parent / target if target else ROOT / text
            if not path.exists(): missing.append(f"{text}: {target}")
            elif anchor and path.suffix == ".md" and anchor not in {slug(o) for o in re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)}:
                missing.append(f"{text}: {target}#{anchor}")
    assert not missing


def test_where_to_change_what_is_true():
    "Each name in the table of CONTRIBUTING is in a file that its row names, and each option is one of a command."
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    part = text[text.index("## Where to change what"):].split("\n## ")[0]
    rows = [[cell.strip() for cell in o.split("|")[1:-1]] for o in part.splitlines() if o.startswith("| ")][1:]
    assert len(rows) > 10 and {"crop", "threshold", "words"} <= {o[0].split()[0].rstrip(",") for o in rows}
    # an option is an argument of a command, or a field of the settings that a command is made from
    commands = "".join((ROOT / "deepfake_nb" / o).read_text(encoding="utf-8") for o in ("cli.py", "learn/settings.py"))
    for wanted, setting, place in rows:
        files = [(ROOT / o).read_text(encoding="utf-8") for o in re.findall(r"\]\(([^)]+)\)", place)]
        assert files, wanted
        for name in re.findall(r"`(\w+)`", place): assert any(re.search(rf"(def|class) {name}\b|\b{name} ?=", o) for o in files), f"{wanted}: {name}"
        for option in re.findall(r"`(?:deepfake-\w+ )?--([\w-]+)", setting):
            assert option == "help" or re.search(rf"^    {option.replace('-', '_')}:", commands, re.M), f"{wanted}: --{option}"


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
    exporter = HTMLExporter(template_name="basic")
    for page in pages:
        nb = nbformat.read(page, as_version=4)
        for cell in nb.cells:  # what nbdev leaves behind that no notebook format knows: a mark for a documented cell, seconds as numbers
            cell.pop("has_sd", None), cell.metadata.pop("execution", None)
        text, _ = exporter.from_notebook_node(nb)
        assert "<h1" in text or nb.cells[0].source.startswith("---"), f"{page.name} has no title"


def test_site_settings_are_those_of_pyproject(staged):
    "nbdev makes nbs/nbdev.yml from pyproject.toml; the committed one is the same."
    assert (staged / "nbs" / "nbdev.yml").read_text() == (ROOT / "nbs" / "nbdev.yml").read_text()
    sidebar = yaml.safe_load((staged / "nbs" / "sidebar.yml").read_text())
    assert "index.ipynb" in str(sidebar) and "00_core.ipynb" in str(sidebar)


# ---- the site that `make site` builds

@pytest.fixture(scope="module")
def site():
    "The program that makes its pages."
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / ".ci" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_order(navigation):
    "The pages of a navigation, as they come."
    for o in navigation:
        if isinstance(o, str): yield o
        else:
            for value in o.values(): yield from [value] if isinstance(value, str) else in_order(value)


def test_the_navigation_names_every_notebook_once(site):
    named = list(in_order(site.navigation()))
    assert len(named) == len(set(named))
    assert {str(o.relative_to(ROOT)) for o in NOTEBOOKS} == set(site.notebooks()) and set(site.notebooks().values()) <= set(named)
    assert list(site.navigation()[1]) == ["Tutorials"]  # after the start, before everything else
    from test_architecture import ROOMS
    assert site.ROOMS == ROOMS and [o for o in site.navigation()[3]["Rooms"] if not isinstance(o, str)][1:] == [
        {room: [f"{room}/index.md", *site.within(room)]} for room in ROOMS]


def test_pages_say_what_the_modules_offer(site):
    "Every public name of a module has its place in the API of its room, with the comments beside its arguments."
    from project import dotted, modules, room
    for name in ("media", "calibrate", "extras"):
        module = importlib.import_module(dotted(name))
        address = posixpath.join(room(name), f"{name}.md")
        offered = {o for o, _ in site.contents()[address]}
        public = {o for o in module.__all__ if isinstance(getattr(module, o, None), type) or callable(getattr(module, o, None))}
        assert {o for o in public if getattr(getattr(module, o), "__module__", "") == module.__name__} <= {o.split(".")[-1] for o in offered}
    text = site.page("nbs/see/40_media.ipynb", {})
    assert "### `read_media` {: #read_media .api }" in text and "| `frames` | `int` | `32` | How many evenly spaced frames" in text
    assert "`read_media`" in site.room_page("see") and "(../core.md#mediaerror)" in text
    assert site.signature(ast.parse("def f(a, /, b:int=1, *c, d=2, **e)->str: ...").body[0], "f") == "f(a, b: int = 1, *c, d=2, **e) -> str"


class Links(HTMLParser):
    "What a page points to, and what can be pointed to in it."
    def __init__(self, path):
        super().__init__()
        self.targets, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[o] for o in ("id", "name") if found.get(o)}
        self.targets += [found[o] for o in ("href", "src") if found.get(o)]


def test_the_site_is_built_and_no_link_is_dead(tmp_path):
    "Every relative link and picture of every page leads to a file, and to a place in it; nothing is asked of other servers."
    pytest.importorskip("mkdocs"), pytest.importorskip("material")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | dict(NO_MKDOCS_2_WARNING="1"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    pages = {o.relative_to(tmp_path / "site").as_posix(): Links(o) for o in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > len(NOTEBOOKS)
    dead, foreign = [], set()
    for name, page in pages.items():
        if name == "404.html": continue  # is shown at any address
        for target in page.targets:
            if re.match(r"[a-z][a-z0-9+.-]*:|//", target): continue
            path, _, anchor = unquote(target).partition("#")
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            if not (tmp_path / "site" / path).exists(): dead.append(f"{name}: {target}")
            elif anchor and path in pages and anchor not in pages[path].anchors: dead.append(f"{name}: {target}")
        text = (tmp_path / "site" / name).read_text(encoding="utf-8")
        foreign |= set(re.findall(r"""<(?:script|img|link rel="stylesheet"|iframe)[^>]+(?:src|href)=["']?(https?://[^"'\s>]+)""", text))
    assert not dead and not foreign


# ---- what people expect of a library

def test_community_files():
    from test_install import SETTINGS
    citation = load("CITATION.cff")
    assert citation["version"] == SETTINGS["version"] and citation["license"] == "Apache-2.0"
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog.index("## [Unreleased]") < changelog.index(f"## [{SETTINGS['version']}] - ")
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[0-9]*.yml"))
    assert [o.stem for o in forms] == ["1_bug", "2_wrong_verdict", "3_feature"]
    for form in forms:
        body = load(form)["body"]
        assert {"name", "description"} <= set(load(form)) and len({o.get("id") for o in body if "id" in o}) == sum("id" in o for o in body)
    assert "deepfake-doctor" in load(forms[0])["body"][0]["attributes"]["description"]  # first of all
