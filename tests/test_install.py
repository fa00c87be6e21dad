"What pip sees: settings.ini is the one place for version, requirements, extras and console scripts."
import configparser, importlib, json, os, re, shutil, subprocess, sys, zipfile
from importlib.metadata import distribution
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project import NOTEBOOKS, ROOT, cells, dotted, modules, tracked

parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
parser.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = parser["DEFAULT"]


def lines(key): return [o.strip() for o in SETTINGS[key].splitlines() if o.strip()]


SCRIPTS = dict(o.split("=") for o in lines("console_scripts"))
EXTRAS = [k.removesuffix("_requirements") for k in SETTINGS if k.endswith("_requirements")]
PINS = {}
for line in (ROOT / "constraints.txt").read_text().splitlines():
    if line and not line.startswith("#"): PINS[canonicalize_name(Requirement(line).name)] = Requirement(line)


def test_version_is_that_of_settings():
    import deepfake_nb
    assert deepfake_nb.__version__ == distribution("deepfake_nb").version == SETTINGS["version"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_console_scripts_lead_to_functions(script):
    module, function = SCRIPTS[script].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert script in {o.name for o in distribution("deepfake_nb").entry_points if o.group == "console_scripts"}


def named_commands(text):
    "The commands that a text names; not deepfake-nb.github.io, nor data sets such as Deepfake-Eval-2024."
    return set(re.findall(r"(?<![\w./-])deepfake-[a-z]+(?![\w-])", text)) - {"deepfake-nb"}


def test_entry_points_are_the_commands_of_the_readme():
    "One row of the table for each, and nothing that messages, help, tutorials or the guide for contributors name is missing."
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(deepfake(?:-\w+)?)` \|", readme, re.M)) == set(SCRIPTS)
    texts = [*modules().values(), *(ROOT / o for o in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Containerfile", "Makefile")), *(ROOT / "models").glob("*.md")]
    for path in texts: assert named_commands(path.read_text(encoding="utf-8")) <= set(SCRIPTS), path
    for notebook in NOTEBOOKS:
        text = "\n".join(o.source for o in cells(notebook) if o.kind == "markdown" or notebook.parent.name == "tutorials")
        assert named_commands(text) <= set(SCRIPTS), notebook


@pytest.mark.parametrize("text", [path.name for path in NOTEBOOKS if path.parent.name in ("nbs", "tutorials")])
def test_commands_are_named_with_options_that_they_have(text):
    "In README and tutorials, a line that begins with a command has no option that the command lacks."
    notebook = next(o for o in NOTEBOOKS if o.name == text)
    for cell in cells(notebook):
        for line in re.sub(r"\\\n\s*", " ", cell.source).splitlines():
            for command, rest in re.findall(r"(?:^|[`!\s/])(deepfake-[a-z]+)((?: +[^`#|&;]+)?)", line):
                if command not in SCRIPTS: continue
                for option in re.findall(r"(?<!\S)--[a-z][\w-]*", rest): assert option in options(command), (command, option, line)


def options(command):
    "The options that a command has, from the signature of its function."
    import inspect
    module, function = SCRIPTS[command].split(":")
    named = {"--" + k.replace("_", "-") for k in inspect.signature(getattr(importlib.import_module(module), function)).parameters}
    return named | {o.replace("--", "--no-") for o in named} | {"--help", "--version"}


def test_extras_are_those_of_settings():
    assert set(distribution("deepfake_nb").metadata.get_all("Provides-Extra")) == {*EXTRAS, "all"}


def test_requirements_are_those_of_settings():
    "The environment was installed from the present settings.ini; otherwise the tests would say little."
    installed = {str(Requirement(o)) for o in distribution("deepfake_nb").requires if "extra ==" not in o}
    assert installed == {str(Requirement(o)) for o in lines("requirements")}, "settings.ini has changed: pip install -c constraints.txt -e '.[all]'"


def test_only_one_opencv():
    "grad-cam wants the headless wheel; a second wheel would overwrite the same files."
    names = {canonicalize_name(Requirement(o).name) for k in SETTINGS if k.endswith("requirements") for o in lines(k)}
    assert {o for o in names if o.startswith("opencv")} == {"opencv-python-headless"}


def test_every_requirement_is_pinned_for_the_check():
    for key in (k for k in SETTINGS if k.endswith("requirements")):
        for requirement in map(Requirement, lines(key)):
            pin = PINS.get(canonicalize_name(requirement.name))
            assert pin, f"{requirement.name} is missing in constraints.txt: make constraints"
            version = re.fullmatch(r"==(.+)", str(pin.specifier))[1]
            assert requirement.specifier.contains(version, prereleases=True), f"constraints.txt pins {pin}, settings.ini wants {requirement}"


def test_everything_that_is_imported_is_required():
    "Third-party packages that the modules import are in some list of settings.ini."
    from project import imports
    import_names = {"opencv-python-headless": "cv2", "pillow": "PIL", "grad-cam": "pytorch_grad_cam", "scikit-learn": "sklearn",
                    "imagehash": "imagehash", "opencv": "cv2", "c2pa-python": "c2pa", "openvino": "openvino"}
    required = {canonicalize_name(Requirement(o).name) for k in SETTINGS if k.endswith("requirements") for o in lines(k)}
    known = {import_names.get(o, o.replace("-", "_")) for o in required} | set(sys.stdlib_module_names) | {"deepfake_nb"}
    optional = {"pillow_heif", "IPython", "psutil"}  # used where they are there, and not missed otherwise
    for module, path in modules().items():
        used = {o.split(".")[0] for o in imports(path.read_text(encoding="utf-8"), dotted(module).rsplit(".", 1)[0])}
        assert used <= known | optional, f"{module} imports {', '.join(sorted(used - known - optional))}, which settings.ini does not list"


ALONE = """
import importlib.metadata as metadata, sys
from importlib.machinery import PathFinder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
base, todo = set(), ["deepfake_nb"]
while todo:                                                     # the package and all that pip would install with it
    name = canonicalize_name(todo.pop())
    if name in base: continue
    base.add(name)
    try: requirements = metadata.requires(name) or []
    except metadata.PackageNotFoundError: continue
    for requirement in map(Requirement, requirements):
        if not requirement.marker or requirement.marker.evaluate(dict(extra="")): todo.append(requirement.name)

class Present(PathFinder):                                      # everything else behaves as if it were not installed
    absent = {k for k, v in metadata.packages_distributions().items() if not {canonicalize_name(o) for o in v} & base}
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname.split(".")[0] in cls.absent else super().find_spec(fullname, path, target)
sys.meta_path = [Present if o is PathFinder else o for o in sys.meta_path]
"""


def run_alone(folder, code, *arguments, **environment):
    "Run code where only the package without extras is installed, as it seems."
    script = folder / "alone.py"
    script.write_text(ALONE + code)
    return subprocess.run([sys.executable, str(script), *arguments], cwd=folder, capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]), HF_HUB_OFFLINE="1") | environment)


def test_without_extras_the_others_are_absent(tmp_path):
    assert "No module named" in run_alone(tmp_path, "import nbdev").stderr
    assert run_alone(tmp_path, "import torch, PIL, cv2, numpy").returncode == 0


def test_base_requirements_are_enough_to_import(tmp_path):
    names = {"predict", "explain", "selfblend", "cli"} & set(modules())
    done = run_alone(tmp_path, "".join(f"import {dotted(o)}\n" for o in sorted(names)))
    assert done.returncode == 0, done.stderr


COMMANDS = """
import contextlib, io
from deepfake_nb.shell import run_command
print(json.dumps([run_command(*o) for o in json.loads(sys.argv[1])]))
"""
WANTS = [  # a command, and the extra that it wants
    ("deepfake_extract data faces", "train"), ("deepfake_train data", "train"), ("deepfake_evaluate data", "train,report"),
    ("deepfake_finetune some.safetensors --pool a --replay b --val c --test d", "train"), ("deepfake_scan data", "scan"),
    ("deepfake_predict data/a.jpg --out o --report", "report"), ("deepfake_report prediction.json", "report"), ("deepfake_app", "app"), ("deepfake_api", "api"),
    ("deepfake_export", "onnx"), ("deepfake_predict data/a.jpg --engine onnx", "onnx"), ("deepfake_predict data/a.jpg --engine openvino", "openvino")]


def test_without_extras_every_command_names_the_one_it_wants(tmp_path):
    "One sentence with the pip command, exit code 2, and nothing begun."
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(b"not looked at")
    commands = [o.split() for o, _ in WANTS] + [["deepfake_stream", "gone.mp4"], *([name.replace("-", "_"), "--help"] for name in SCRIPTS)]
    done = run_alone(tmp_path, "import json" + COMMANDS, json.dumps(commands))
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout)
    for (command, extra), (code, out, error) in zip(WANTS, answers):
        assert code == 2 and out == "" and len(error.splitlines()) == 1, (command, code, error)
        assert error.startswith(command.split()[0].replace("_", "-") + ": error: ") and f"pip install 'deepfake_nb[{extra}]'" in error, error
    assert answers[len(WANTS)][0] == 1 and "gone.mp4" in answers[len(WANTS)][2]  # needs no extra: it looks for its file
    assert all(code == 0 and out for code, out, _ in answers[len(WANTS) + 1:])
    assert {o.name for o in tmp_path.iterdir()} == {"alone.py", "data"}


INSTALLED = """
import contextlib, io, json, runpy
def run(*arguments):
    "Run an installed script as the shell does: exit code, standard output, standard error."
    out, error, code = io.StringIO(), io.StringIO(), 0
    sys.argv = list(arguments)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try: runpy.run_path(arguments[0], run_name="__main__")
        except SystemExit as e: code = e.code or 0
    return code, out.getvalue(), error.getvalue()
print(json.dumps([[run(o, *more) for more in (["--help"], ["--version"], ["--colour", "red"])] for o in sys.argv[1:]]))
"""


def test_every_installed_script_answers_without_extras(tmp_path):
    "`--help` and `--version`, and one sentence with exit code 2 for a wrong option; nothing heavy is loaded for it."
    scripts = {o: shutil.which(o, path=os.path.dirname(sys.executable)) or shutil.which(o) for o in SCRIPTS}
    assert all(scripts.values()), f"not installed: {[k for k, v in scripts.items() if not v]}: pip install -c constraints.txt -e '.[all]'"
    done = run_alone(tmp_path, INSTALLED, *scripts.values())
    assert done.returncode == 0, done.stderr[-3000:]
    for name, (helped, told, wrong) in zip(SCRIPTS, json.loads(done.stdout)):
        assert helped[0] == 0 and helped[1].startswith(f"usage: {name} ") and "--version" in helped[1] and not helped[2], name
        assert told == [0, f"{name} (deepfake_nb) {SETTINGS['version']}\n", ""], name
        assert wrong[0] == 2 and not wrong[1] and len(wrong[2].splitlines()) == 1, (name, wrong)
        assert wrong[2].startswith(f"{name}: error: ") and "Accepted: " in wrong[2], wrong


def test_every_requirement_is_known_by_the_module_it_brings():
    "Where a package is called otherwise than what is imported of it, the table of extras says so."
    from importlib.metadata import packages_distributions
    from deepfake_nb.extras import extras_by_module
    brings = {}
    for module, names in packages_distributions().items():
        for o in names: brings.setdefault(canonicalize_name(o), set()).add(module)
    for key in (k for k in SETTINGS if k.endswith("requirements") and k != "dev_requirements"):
        for name in (canonicalize_name(Requirement(o).name) for o in lines(key)):
            if name in brings: assert brings[name] & set(extras_by_module()), f"{name} brings {brings[name]}: say so in 02_extras"


def test_the_lowest_versions_are_those_of_settings():
    "What .ci/run tests with beside the newest versions."
    done = subprocess.run([sys.executable, str(ROOT / ".ci" / "lowest.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = dict(o.split("==") for o in done.stdout.split())
    for key in (k for k in SETTINGS if k.endswith("requirements") and k != "dev_requirements"):
        for requirement in map(Requirement, lines(key)):
            lowest = next(o.version for o in requirement.specifier if o.operator == ">=")
            pin = re.fullmatch(r"==(.+)", str(PINS[canonicalize_name(requirement.name)].specifier))[1]
            assert printed.get(requirement.name, pin) == lowest, requirement


def test_base_requirements_are_enough_for_the_demo(tmp_path):
    code = "from deepfake_nb.cli import deepfake_predict\nif __name__ == '__main__': sys.exit(deepfake_predict())"
    done = run_alone(tmp_path, code, "--demo", "--out", "evidence", "--frames", "8", "--second-look", "4")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(json.loads(done.stdout)) == 4 and any((tmp_path / "evidence").iterdir())


def test_the_default_weights_are_found():
    "In the checkout they lie in models/, in an installed wheel in deepfake_nb/weights/, which is made from it."
    from deepfake_nb.model.scorer import default_weights
    path = default_weights()
    assert path.parent.name in ("models", "weights") and path.stat().st_size <= 12 * 2**20
    assert path.with_suffix(".md").is_file(), "a weights file has a model card of the same name beside it"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "The project's files alone, without what a build left behind."
    target = tmp_path_factory.mktemp("project")
    for path in tracked():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target / path, follow_symlinks=False)
    return target


def build(copy, name):
    "Call the build backend's hook in a process of its own; what it made."
    pytest.importorskip("setuptools", "77")
    code = f"import setuptools.build_meta as b; print(b.build_{name}('out'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return next(copy.glob("out/*.tar.gz" if name == "sdist" else "out/*.whl"))


def test_the_wheel_carries_modules_weights_and_settings(copy):
    names = set(zipfile.ZipFile(wheel := build(copy, "wheel")).namelist())
    assert {str(o.relative_to(ROOT)) for o in modules().values()} <= names
    assert {f"deepfake_nb/weights/{o.name}" for o in (copy / "models").glob("*") if o.suffix in (".safetensors", ".md")} <= names
    assert not [o for o in names if o.startswith(("nbs/", "tests/", "data/", "models/"))]
    meta = next(o for o in names if o.endswith("METADATA"))
    text = zipfile.ZipFile(wheel).read(meta).decode()
    assert f"Version: {SETTINGS['version']}" in text and f"Requires-Python: >={SETTINGS['min_python']}" in text
    assert "Requires-Dist: torch" in text and "# deepfake_nb" in text  # the readme is the long description
    entry_points = zipfile.ZipFile(wheel).read(meta.replace("METADATA", "entry_points.txt")).decode()
    assert all(o in entry_points for o in SCRIPTS)


def test_an_editable_installation_cannot_be_hidden_by_the_clone(copy, tmp_path):
    "From the folder that holds the clone, whose name is that of the package, the package is imported and not the clone's folder."
    clone, packages = tmp_path / "deepfake_nb", tmp_path / "site"
    shutil.copytree(copy, clone, symlinks=True, ignore=shutil.ignore_patterns("out", "build", "*.egg-info"))
    zipfile.ZipFile(build(clone, "editable")).extractall(packages)
    code = f"import site; site.addsitedir({str(packages)!r}); from deepfake_nb import __version__; import deepfake_nb; print(deepfake_nb.__file__, __version__)"
    for place in (tmp_path, clone, clone / "nbs"):
        done = subprocess.run([sys.executable, "-S", "-c", code], cwd=place, capture_output=True, text=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
        assert done.returncode == 0, done.stderr[-1000:]
        assert done.stdout.split() == [str(clone / "deepfake_nb/__init__.py"), SETTINGS["version"]]


def test_the_source_archive_can_be_built_from(copy):
    import tarfile
    names = {o.split("/", 1)[1] for o in tarfile.open(build(copy, "sdist")).getnames() if "/" in o}
    assert {"settings.ini", "setup.py", "pyproject.toml", "LICENSE", "README.md", "constraints.txt"} <= names
    assert {f"models/{o.name}" for o in (copy / "models").glob("*.safetensors")} <= names
    assert {str(o.relative_to(ROOT)) for o in modules().values()} <= names
