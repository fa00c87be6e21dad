"What pip sees: settings.ini is the one place for version, requirements, extras and console scripts."
import configparser, importlib, re, shutil, subprocess, sys, zipfile
from importlib.metadata import distribution
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project import ROOT, modules, tracked

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


def test_extras_are_those_of_settings():
    assert set(distribution("deepfake_nb").metadata.get_all("Provides-Extra")) == {*EXTRAS, "all"}


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
                    "imagehash": "imagehash", "opencv": "cv2", "openvino": "openvino"}
    required = {canonicalize_name(Requirement(o).name) for k in SETTINGS if k.endswith("requirements") for o in lines(k)}
    known = {import_names.get(o, o.replace("-", "_")) for o in required} | set(sys.stdlib_module_names) | {"deepfake_nb"}
    optional = {"pillow_heif", "IPython", "psutil"}  # used where they are there, and not missed otherwise
    for module, path in modules().items():
        used = {o.split(".")[0] for o in imports(path.read_text(encoding="utf-8"))}
        assert used <= known | optional, f"{module} imports {', '.join(sorted(used - known - optional))}, which settings.ini does not list"


def test_the_default_weights_are_found():
    "In the checkout they lie in models/, in an installed wheel in deepfake_nb/weights/, which is made from it."
    if "model" not in modules(): pytest.skip("deepfake_nb.model does not exist yet")
    from deepfake_nb.model import default_weights
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
    return next(copy.glob("out/*.whl" if name == "wheel" else "out/*.tar.gz"))


def test_the_wheel_carries_modules_weights_and_settings(copy):
    names = set(zipfile.ZipFile(wheel := build(copy, "wheel")).namelist())
    assert {f"deepfake_nb/{o}.py" for o in modules()} <= names
    assert {f"deepfake_nb/weights/{o.name}" for o in (ROOT / "models").glob("*") if o.suffix in (".safetensors", ".md")} <= names
    assert not [o for o in names if o.startswith(("nbs/", "tests/", "data/", "models/"))]
    meta = next(o for o in names if o.endswith("METADATA"))
    text = zipfile.ZipFile(wheel).read(meta).decode()
    assert f"Version: {SETTINGS['version']}" in text and f"Requires-Python: >={SETTINGS['min_python']}" in text
    assert "Requires-Dist: torch" in text and "# deepfake_nb" in text  # the readme is the long description
    entry_points = zipfile.ZipFile(wheel).read(meta.replace("METADATA", "entry_points.txt")).decode()
    assert all(o in entry_points for o in SCRIPTS)


def test_the_source_archive_can_be_built_from(copy):
    import tarfile
    names = {o.split("/", 1)[1] for o in tarfile.open(build(copy, "sdist")).getnames() if "/" in o}
    assert {"settings.ini", "setup.py", "pyproject.toml", "LICENSE", "README.md", "constraints.txt"} <= names
    assert {f"models/{o.name}" for o in (ROOT / "models").glob("*.safetensors")} <= names
    assert {f"deepfake_nb/{o}.py" for o in modules()} <= names
