"""A node of a training on several machines, which runs in each pod of a TrainJob; see `train_job`."""

import sys
from pathlib import Path

from core.imports import uncollected

with uncollected():
    from components.candidates.train import train
    from components.candidates.train_job import MODEL, REQUEST
    from core.files import read_json
    from training import workers
    from training.recipes import recipe_named, with_epochs


def main(home: Path) -> None:
    """Trains on this node, together with the nodes that the environment names.

    Args:
      home: the directory that `train_job` made for this training.

    Raises:
      UserError: see `components.candidates.train.train`.
    """
    strategy = workers.join()
    request = read_json(home / REQUEST)
    inputs = {name: home / name for name in request["inputs"]}
    if not (home / MODEL).is_dir():
        train(
            with_epochs(recipe_named(request["recipe"]), request["epochs"]),
            inputs["records"],
            home / MODEL,
            home.parents[1],
            weights=request["weights"],
            seed=request["seed"],
            precision=request["precision"],
            division=request["division"],
            examples=inputs["examples"],
            start=inputs.get("start"),
            lungs=inputs.get("lungs"),
            strategy=strategy,
        )
    workers.wait_for_all(strategy)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
