"Tells real faces from forged ones in images and videos."
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

try:
    __version__ = version("deepfake_nb")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

# The front door: what people need, and where it lives. Each is loaded when it is first used.
_HOMES = {
    "Detector": "judge.predict",  # a path in, a verdict out
    "Prediction": "core",
    "explain": "judge.explain",  # where the network looked
    "make_report": "tell.report",
    "verify_report": "tell.verify",
    "read_media": "see.media",
    "Capture": "see.capture",  # a camera, an address or a film, live
    "Stream": "serve.stream",
    "scan": "serve.scan",  # any number of files
    "read_manifest": "data.splits",  # any data set as one table
    "split_by_group": "data.splits",
    "check_leaks": "data.splits",
    "extract": "data.extract",
    "Recipe": "learn.settings",
    "train": "learn.recipe",
    "evaluate": "measure.evaluate",
    "compare": "measure.evaluate",
    "robustness": "judge.robustness",
    "finetune": "learn.finetune",
    "load_scorer": "model.scorer",
    "write_demo": "forge.demo",
}
_SHOWN_BY = {"Detector": "tell.cards", "Prediction": "tell.cards"}  # how a notebook shows what they give
__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:  # for type checkers and editors, which do not run the function below
    from .core import Prediction
    from .data.extract import extract
    from .data.splits import check_leaks, read_manifest, split_by_group
    from .forge.demo import write_demo
    from .judge.explain import explain
    from .judge.predict import Detector
    from .judge.robustness import robustness
    from .learn.finetune import finetune
    from .learn.recipe import train
    from .learn.settings import Recipe
    from .measure.evaluate import compare, evaluate
    from .model.scorer import load_scorer
    from .see.capture import Capture
    from .see.media import read_media
    from .serve.scan import scan
    from .serve.stream import Stream
    from .tell.report import make_report
    from .tell.verify import verify_report


def __getattr__(name):
    "A name of the front door, from the module where it lives; says how to install what that module lacks."
    if name not in _HOMES:
        raise AttributeError(f"deepfake_nb has no {name!r} at its front door. Accepted: {', '.join(_HOMES)}, or a module of a room such as deepfake_nb.see.media")
    try:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        if name in _SHOWN_BY: import_module(f"{__name__}.{_SHOWN_BY[name]}")
    except ModuleNotFoundError as e:
        from .extras import MissingExtra, how_to_install
        if not how_to_install(e.name or ""): raise
        raise MissingExtra([e.name.split(".")[0]], name) from e
    globals()[name] = value  # so that Python finds it at once next time
    return value


def __dir__():
    return sorted({*globals(), *__all__})
