"""The lowest versions that settings.ini declares, as pip wants them: `pip install --no-deps -r <(python .ci/lowest.py)`.

Left out are the tools of developers, which constraints.txt pins, and what is declared at the very version that
constraints.txt pins anyway, such as torch: the environment for the tests stands on the one that is there.
"""
import configparser, re
from pathlib import Path

root = Path(__file__).resolve().parents[1]
pins = dict(re.findall(r"^([\w.-]+)==([^;\s]+)", (root / "constraints.txt").read_text(), re.M))
pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
parser.read(root / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

lowest = {}
for key in settings:
    if not key.endswith("requirements") or key == "dev_requirements": continue
    for line in filter(None, map(str.strip, settings[key].splitlines())):
        name, _, version = re.match(r"([\w.-]+)(\[\w+\])?>=([\w.]+)", line).groups()
        if lowest.setdefault(name, version) != version: raise SystemExit(f"settings.ini: two lowest versions of {name}: {lowest[name]} and {version}")
for name, version in lowest.items():
    if pins.get(name.lower().replace("_", "-")) != version: print(f"{name}=={version}")
