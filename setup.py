"Reads settings.ini, the one place for version, requirements, extras and console scripts."
import configparser
from pathlib import Path
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
parser.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]


def lines(key):
    "The non-empty lines of a multi-line setting."
    return [line.strip() for line in settings.get(key, "").splitlines() if line.strip()]


class WithWeights(build_py):
    "The weights travel in the wheel, as deepfake_nb/weights; an editable installation reads them where they are, in models."

    def _weights(self):
        "From where to where."
        files = [o for o in sorted(Path("models").iterdir()) if o.suffix in (".safetensors", ".md")]
        return {str(o): str(Path(self.build_lib, "deepfake_nb", "weights", o.name)) for o in files}

    def run(self):
        super().run()
        if self.editable_mode: return
        for source, target in self._weights().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_outputs(self, include_bytecode=True):
        return super().get_outputs(include_bytecode) + ([] if self.editable_mode else list(self._weights().values()))


suffix = "_requirements"
extras = {key[: -len(suffix)]: lines(key) for key in settings if key.endswith(suffix)}
extras["all"] = sorted({req for reqs in extras.values() for req in reqs})

setup(
    version=settings["version"],
    keywords=settings["keywords"].split(),
    packages=find_packages(include=["deepfake_nb", "deepfake_nb.*"]),
    # One root for all packages: an editable installation is then a line in a .pth file, a place like any other on the
    # path. A finder behind all places would lose against a folder of that name, such as the clone itself.
    package_dir={"": "."},
    package_data={"deepfake_nb": ["assets/*", "assets/**/*"]},
    cmdclass={"build_py": WithWeights},
    install_requires=lines("requirements"),
    extras_require=extras,
    python_requires=f">={settings['min_python']}",
    entry_points={"console_scripts": lines("console_scripts"), "nbdev": ["deepfake_nb=deepfake_nb._modidx:d"]},
    zip_safe=False,
)
