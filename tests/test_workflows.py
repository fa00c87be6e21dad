"What runs at the repository's host: the file can be read, and its commands are those of the project."
import configparser, os, re
import pytest, yaml
from project import UNSAVED, ROOT, lacking_output, shows_something, NOTEBOOKS

WORKFLOW = ROOT / ".github" / "workflows" / "check.yml"


@pytest.fixture(scope="module")
def workflow(): return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))


def commands(workflow):
    "All that its steps run."
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def test_workflows_can_be_read():
    "Each has a trigger, and each job a machine, a limit of time and steps that either run or use something of a named version."
    for path in (ROOT / ".github" / "workflows").glob("*.y*ml"):
        file = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert file["name"] and (file.get("on") or file.get(True)) and file["permissions"] == {"contents": "read"}, path  # YAML 1.1 takes `on` for true
        for name, job in file["jobs"].items():
            assert job["runs-on"].startswith("ubuntu") and job["timeout-minutes"] > 0, name
            assert set([job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])) <= set(file["jobs"]), name
            for step in job["steps"]:
                assert ("run" in step) != ("uses" in step), step
                assert "uses" not in step or re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), step


def test_the_workflow_runs_the_test_command_of_the_readme(workflow):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told = [o for o in re.findall(r"(?m)^python3 -m venv .*$", readme) if "pytest" in o]
    assert len(told) == 1 and told[0] in commands(workflow)
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    settings = configparser.ConfigParser()
    settings.read(ROOT / "settings.ini")
    assert versions == ["3.10", "3.12", "3.14"] and settings["DEFAULT"]["min_python"] == versions[0]


def test_commands_of_the_workflow_exist(workflow):
    "Targets of the Makefile, programs that may be run; the lowest versions are tested, the site is built and published from main alone."
    makefile, run = (ROOT / "Makefile").read_text(encoding="utf-8"), commands(workflow)
    for line in run:
        for target in re.findall(r"\bmake (\w+)", line): assert re.search(rf"^{target}:", makefile, re.M), line
        for program in re.findall(r"(?:^|\s)(\.ci/[\w.]+)", line): assert os.access(ROOT / program, os.X_OK), line
    assert ".ci/run" in run and {"make install", "make site"} <= set(run)
    young = [s["with"]["python-version"] for s in workflow["jobs"]["lowest"]["steps"] if "with" in s]
    assert young and young[0] in ("3.10", "3.11"), ".ci/run tests the lowest versions with these only"
    uploaded, = [s["with"]["path"] for s in workflow["jobs"]["site"]["steps"] if "pages-artifact" in s.get("uses", "")]
    assert f"site_dir: {uploaded}" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    publish = workflow["jobs"]["publish"]
    assert "refs/heads/main" in publish["if"] and set(publish["needs"]) == set(workflow["jobs"]) - {"publish"}


def test_the_readme_has_the_badge():
    badge = "actions/workflows/check.yml/badge.svg"
    address, = re.findall(rf"\((https://[^)\s]+/){badge}\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert address.rstrip("/") in (ROOT / "pyproject.toml").read_text(encoding="utf-8") and WORKFLOW.is_file()


# ---- outputs that are saved with the notebooks, of which the site is made



@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda o: str(o.relative_to(ROOT / "nbs").with_suffix("")))
def test_what_a_notebook_shows_is_saved(notebook):
    "Otherwise the site would show a blank: `.ci/outputs.py NAME` runs the notebook and saves what is missing."
    name = str(notebook.relative_to(ROOT / "nbs"))
    blank = [f"{o.raw.get('id')}: {o.source.strip().splitlines()[-1]}" for o in lacking_output(notebook)]
    assert not blank or name in UNSAVED, blank


def test_an_output_that_is_missing_would_be_seen():
    shown = ("print(1)", "x = 1\nx", "for i in range(3):\n    print(i)", "with open(p) as f:\n    print(f)", "Image.fromarray(a)", "plot_curve(y)", "a.b[0]", "[1, 2]", "display(x)", "try:\n    f()\nexcept E as e: print(e)\nelse: print(1)", "print('a') ; f()")
    quiet = ("x = 1", "test_eq(a, b)", "def f(): print(1)", "if a: print(1)", "with redirect_stdout(o): print(1)", "a = b or print(1)", "'text'", "f(lambda: print(1))", "class A:\n    print(1)", "import os")
    assert [o for o in shown if not shows_something(o)] == [] == [o for o in quiet if shows_something(o)]
