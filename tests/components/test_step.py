import subprocess
import sys

import pytest

BLOCKING = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is not in this image")

sys.meta_path.insert(0, Blocked())
for module in {modules}:
    importlib.import_module(module)
"""


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        (
            [
                "components.candidates.train",
                "components.candidates.evaluate",
                "components.candidates.reproduce",
                "components.candidates.pretrain",
            ],
            ["apache_beam", "imagehash", "kserve", "tensorflow_data_validation"],
        ),
        (["components.trust.audit"], ["apache_beam", "kserve", "tensorflow_data_validation"]),
        (["serving.server"], ["apache_beam", "imagehash", "matplotlib", "sklearn", "scipy", "kfp"]),
        (
            [
                "components.candidates.champion",
                "components.candidates.made_with",
                "training.saved_model",
            ],
            ["apache_beam", "imagehash", "matplotlib", "sklearn", "scipy", "kfp"],
        ),
    ],
    ids=["training", "audit", "serving", "champion"],
)
def test_a_step_needs_no_package_that_its_image_lacks(
    modules: list[str], blocked: list[str]
) -> None:
    code = BLOCKING.format(modules=modules, blocked=blocked)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
