"""Cross-encoders as verified ONNX model folders. Needs ``pip install "flashrank-lite[export]"``."""

try:
    import onnx as _onnx  # noqa: F401
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"exporting needs torch, transformers and onnx ({error}): "
        'pip install "flashrank-lite[export]"'
    ) from error

from flashrank_lite.export.folder import Source, export_folder
from flashrank_lite.export.huggingface import read_checkpoint

__all__ = ["Source", "export_folder", "read_checkpoint"]
