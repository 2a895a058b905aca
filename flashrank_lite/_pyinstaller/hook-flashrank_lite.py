"""What a frozen app needs of flashrank_lite: data files, modules found by name, versions.

`collect_submodules` is asked for single rooms only: all of them would bring torch into every app.
"""

from PyInstaller.utils.hooks import (
    collect_data_files,
    collect_entry_point,
    collect_submodules,
    copy_metadata,
)

# The bundled model and the catalog; nothing else in the package is data that runs.
datas = collect_data_files("flashrank_lite", includes=["models/**"])
# Entry points and `flashrank-lite info` read the metadata of installed packages.
for package in ("flashrank-lite", "onnxruntime", "tokenizers", "numpy", "huggingface-hub"):
    datas += copy_metadata(package)

# `flashrank_lite.__getattr__` imports these by a name that is put together when it is called.
hiddenimports = ["flashrank_lite.errors", "flashrank_lite.hits", "flashrank_lite.ranker"]
# huggingface_hub finds its own modules by name, too; without them no model can be downloaded.
hiddenimports += collect_submodules(
    "huggingface_hub", filter=lambda name: not name.startswith("huggingface_hub.cli")
)

# Models that installed packages announce (flashrank_lite.models.packages).
announcements, packages = collect_entry_point("flashrank_lite.models")
datas += announcements
hiddenimports += packages
for package in packages:
    datas += collect_data_files(package.partition(".")[0])
