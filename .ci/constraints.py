"""Prints constraints.txt for the environment it runs in: `python .ci/constraints.py > constraints.txt`.

Every package that the library and its extras need, directly or not, is pinned to the version installed here.
A pin that an older Python could not install carries a marker, so that pip is free to choose there.
"""
import configparser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ACCELERATOR = ("nvidia-", "cuda-", "triton")  # torch pins these itself, and they exist on some platforms only
PYTHONS = ["3.10", "3.11", "3.11.5", "3.12", "3.13", "3.14"]  # the first one that a package accepts becomes its marker


def closure(requirements):
    "The installed distributions behind a list of requirement strings, by canonical name."
    found, seen, todo = {}, set(), [(Requirement(o), "") for o in requirements]
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate(default_environment() | dict(extra=extra)): continue
        try: found[name] = distribution(name)
        except PackageNotFoundError: raise SystemExit(f"{requirement} is not installed here: pip install -e '.[all]' first")
        for wanted in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, wanted))
            todo += [(Requirement(o), wanted) for o in found[name].requires or []]
    return found


def line(dist):
    "One pin, with a marker where the oldest supported Python would refuse it."
    accepted = SpecifierSet((dist.metadata.get("Requires-Python") or "").replace(" ", ""))
    oldest = next(o for o in PYTHONS if accepted.contains(o))
    variable = "python_full_version" if oldest.count(".") > 1 else "python_version"
    return f"{dist.metadata['Name']}=={dist.version}" + ("" if oldest == PYTHONS[0] else f'; {variable} >= "{oldest}"')


if __name__ == "__main__":
    parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
    parser.read(Path(__file__).parents[1] / "settings.ini", encoding="utf-8")
    wanted = [o for k, v in parser["DEFAULT"].items() if k.endswith("requirements") for o in v.split("\n") if o.strip()]
    print("# The versions that CI tests with. Made by `make constraints`.")
    for name, dist in sorted(closure(wanted).items()):
        if not name.startswith(ACCELERATOR): print(line(dist))
