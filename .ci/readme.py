"""Makes README.md from nbs/index.ipynb: `python .ci/readme.py`, or with `--check` only says whether it is up to date.

Cells marked `#| hide` are left out, of those marked `#| echo: false` only what they showed is kept. Links and pictures that are relative in the notebook
are rewritten, so that the same text works in the docs and at the top of the repository.
"""
import posixpath, re, sys
from pathlib import Path

from nbconvert import MarkdownExporter
from nbdev.process import NBProcessor
from nbdev.processors import hide_
from nbformat import from_dict

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK, README = ROOT / "nbs" / "index.ipynb", ROOT / "README.md"
MARKER = "<!-- Made from nbs/index.ipynb by `make readme`. Edit the notebook, not this file. -->"


def relink(markdown):
    "Relative targets of links and pictures, seen from the top of the repository instead of from nbs/."
    def new(match):
        before, target, after = match.groups()
        relative = not re.match(r"[a-z][a-z0-9+.-]*:|[#/]", target, re.I)
        return before + (posixpath.normpath(posixpath.join("nbs", target)) if relative else target) + after
    return re.sub(r"""(\]\(|(?:src|href)=["'])([^)"'\s]+)([)"'])""", new, markdown)


def plain(value):
    "Notebook parts as the plain dicts, lists and strings that nbformat accepts."
    if isinstance(value, dict): return {k: plain(v) for k, v in value.items() if not k.endswith("_")}
    if isinstance(value, (list, tuple)): return [plain(o) for o in value]
    return value


def joined(text): return "".join(text) if isinstance(text, list) else text


def without_code(cell):
    "A code cell marked `#| echo: false` as the text that it showed."
    shown = [joined(o.get("data", {}).get("text/markdown") or o.get("text") or "") for o in cell["outputs"]]
    return dict(cell_type="markdown", id=cell["id"], metadata={}, source="\n\n".join(shown))


def readme():
    "The text of README.md."
    found = NBProcessor(NOTEBOOK, procs=[hide_], process=True).nb.cells
    quiet = [o.cell_type == "code" and o.directives_.get("echo") == "false" for o in found]
    nb = dict(cells=[without_code(o) if q else o for o, q in zip(plain(found), quiet)], metadata={}, nbformat=4, nbformat_minor=5)
    for cell in nb["cells"]:
        cell["source"], cell["metadata"] = joined(cell["source"]), {}
        if cell["cell_type"] == "markdown": cell["source"] = relink(cell["source"])
    text, resources = MarkdownExporter().from_notebook_node(from_dict(nb))
    if resources.get("outputs"):
        raise SystemExit("nbs/index.ipynb: a cell that is shown has a picture as its output. Accepted: a file in nbs/images that markdown links to.")
    text = re.sub(r"[ \t]+$", "", text, flags=re.M)
    title, rest = re.sub(r"\n{3,}", "\n\n", text).strip().split("\n", 1)
    return f"{title}\n\n{MARKER}\n\n{rest.strip()}\n"


if __name__ == "__main__":
    text = readme()
    if "--check" not in sys.argv[1:]: README.write_text(text, encoding="utf-8")
    elif not README.exists() or README.read_text(encoding="utf-8") != text:
        raise SystemExit("README.md is stale: it is not what nbs/index.ipynb says. Run `make readme`.")
