"""The two compiled graphs with their weights and the KV pools they work on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from labs.checkpoint import frequencies
from labs.engine.compile import GRAPHS, Shapes
from labs.engine.directory import EngineDir, EngineError, package, weights
from labs.engine.runtime.kv_cache import PADDING


class Graphs:
    """An engine's code, loaded: `context` and `generation` fill the pools and give float32 logits."""

    def __init__(self, engine: EngineDir, num_blocks: int) -> None:
        self.engine, self.device = engine, str(engine.manifest["target"]["device"])
        self.size = engine.build.tokens_per_block
        self.keys, self.values = shapes(engine).pools(num_blocks)
        file = str(engine.path / package(0))
        self._graphs = {
            name: torch._C._aoti.AOTIModelPackageLoader(file, name, True, 1, -1) for name in GRAPHS
        }
        self._weights = self.load_weights(engine.path / weights(0))

    def load_weights(self, path: Path) -> dict[str, Tensor]:
        """Give both graphs the same tensors; what is missing or of another shape or dtype is refused here, as the
        graphs themselves would take anything. Raises EngineError."""
        found = load_file(path, device=self.device)
        found["inv_freq"] = inverse_frequencies(self.engine).to(self.device)
        for graph in self._graphs.values():
            names = graph.get_constant_fqns()
            if missing := sorted(set(names) - found.keys()):
                raise EngineError(f"{path} lacks {', '.join(missing[:3])}. Build or refit the engine again.")
            graph.load_constants({name: found[name] for name in names}, False, True, True)
        return found

    def context(self, tokens: Sequence[int], first: int, blocks: Sequence[int]) -> Tensor:
        """Logits [1, vocabulary] after the last of `tokens`, which stand at positions `first` and on."""
        positions = torch.arange(first, first + len(tokens))
        table = torch.tensor(blocks)
        slots = table[positions // self.size] * self.size + positions % self.size
        inputs = (torch.tensor(tokens), positions, slots, table[None], torch.tensor([len(tokens) - 1]))
        return self._run("context", inputs)

    def generation(
        self, tokens: Sequence[int], positions: Sequence[int], blocks: Sequence[Sequence[int]]
    ) -> Tensor:
        """Logits [sequences, vocabulary] after one token of each sequence."""
        width = max(map(len, blocks))
        table = torch.tensor([[*row, *[PADDING] * (width - len(row))] for row in blocks])
        at, rows = torch.tensor(positions), torch.arange(len(tokens))
        slots = table[rows, at // self.size] * self.size + at % self.size
        return self._run("generation", (torch.tensor(tokens), at, slots, table, rows))

    def _run(self, graph: str, inputs: tuple[Tensor, ...]) -> Tensor:
        placed = [tensor.to(self.device) for tensor in inputs]
        return self._graphs[graph].boxed_run([*placed, *self.keys, *self.values])[0]


def shapes(engine: EngineDir) -> Shapes:
    """The KV pools of an engine, from its configuration."""
    model, device = engine.model, str(engine.manifest["target"]["device"])
    dtype = getattr(torch, engine.pretrained["dtype"])
    sizes = (
        model.num_hidden_layers,
        engine.build.tokens_per_block,
        model.num_key_value_heads,
        model.head_size,
    )
    return Shapes(*sizes, dtype, device)


def inverse_frequencies(engine: EngineDir) -> Tensor:
    config = engine.pretrained
    return frequencies(engine.model.head_size, config["rotary_base"], config.get("rotary_scaling"))
