"""Cross-encoders as verified ONNX model folders. Needs `pip install "flashrank-lite[export]"`."""

from flashrank_lite.errors import MissingExtra

try:
    import onnx as _onnx  # noqa: F401
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        f"exporting needs torch, transformers and onnx ({error})", "export"
    ) from error

from flashrank_lite.export.checkpoints.reading import read_checkpoint
from flashrank_lite.export.folder import export_folder
from flashrank_lite.export.source import Source

__all__ = ["Source", "export_folder", "read_checkpoint"]
