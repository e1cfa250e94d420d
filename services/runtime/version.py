"""Which release this is, from the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("netplugin")
except PackageNotFoundError:
    VERSION = "0.0.0"  # run from a source tree that was never installed
