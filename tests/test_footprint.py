"""What it needs to rank, and what it leaves alone."""

from collections.abc import Callable

BLOCKED = """
import sys
HEAVY = ("torch", "transformers", "huggingface_hub", "sentence_transformers", "onnx")

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
from flashrank_lite import Ranker
print(Ranker().rank("how long do fleas live", ["a", "b"])[0].score)
assert not any(name.partition(".")[0] in HEAVY for name in sys.modules)
"""


def test_it_ranks_without_torch_transformers_and_the_hub(run_python: Callable[..., str]) -> None:
    assert 0 <= float(run_python(BLOCKED)) <= 1


def test_importing_the_package_imports_nothing_heavy(run_python: Callable[..., str]) -> None:
    code = "import flashrank_lite, sys; print(*sys.modules); flashrank_lite.InvalidInput"
    loaded = {name.partition(".")[0] for name in run_python(code).split()}
    assert "flashrank_lite" in loaded
    assert loaded.isdisjoint({"numpy", "onnxruntime", "tokenizers", "asyncio", "typing"})


AUDIT = """
import os, sys
touched = []

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        if flags & writes and path != os.devnull:
            touched.append((event, path))
    elif event.startswith("socket.") or event in (
        "os.mkdir", "os.remove", "os.rename", "os.truncate", "os.chmod", "shutil.rmtree",
        "tempfile.mkstemp", "tempfile.mkdtemp", "subprocess.Popen", "os.system", "urllib.Request",
    ):
        touched.append((event, arguments))

sys.addaudithook(watch)
from flashrank_lite import Ranker
with Ranker() as ranker:
    ranker.rank("how long do fleas live", ["a", "b"])
print(touched, os.listdir("."))
"""


def test_it_writes_nothing_and_calls_no_one(run_python: Callable[..., str]) -> None:
    assert run_python(AUDIT).strip() == "[] []"
