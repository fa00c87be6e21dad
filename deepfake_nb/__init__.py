"Tells real faces from forged ones in images and videos."
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("deepfake_nb")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
