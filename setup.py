"Reads settings.ini, the one place for version, requirements, extras and console scripts."
import configparser
from pathlib import Path
from setuptools import find_packages, setup

parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
parser.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]


def lines(key):
    "The non-empty lines of a multi-line setting."
    return [line.strip() for line in settings.get(key, "").splitlines() if line.strip()]


suffix = "_requirements"
extras = {key[: -len(suffix)]: lines(key) for key in settings if key.endswith(suffix)}
extras["all"] = sorted({req for reqs in extras.values() for req in reqs})

setup(
    version=settings["version"],
    keywords=settings["keywords"].split(),
    packages=find_packages(include=["deepfake_nb", "deepfake_nb.*"]) + ["deepfake_nb.weights"],
    package_dir={"deepfake_nb": "deepfake_nb", "deepfake_nb.weights": "models"},  # the weights travel in the wheel
    package_data={"deepfake_nb": ["assets/*", "assets/**/*"], "deepfake_nb.weights": ["*.safetensors", "*.md"]},
    install_requires=lines("requirements"),
    extras_require=extras,
    python_requires=f">={settings['min_python']}",
    entry_points={"console_scripts": lines("console_scripts"), "nbdev": ["deepfake_nb=deepfake_nb._modidx:d"]},
    zip_safe=False,
)
