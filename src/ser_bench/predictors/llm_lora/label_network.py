"""A language model as a classifier: frozen lower blocks, upper blocks with LoRA, one logit per label.

Tokens → embedding → lower blocks (frozen, so their output is computed once per clip) → upper blocks with LoRA →
norm → state of the last token → linear layer, which starts as the model's own weights of the label tokens.

Only LoRA and the linear layer are parameters of the module. The language model itself is not: it does not enter
checkpoints, and is not stored with a run.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from ser_bench.training.recipe import Recipe


@dataclass(frozen=True)
class LoraSettings:
    """Where LoRA is, and its size.

    Attributes:
        layers: number of upper blocks with LoRA; None: all.
        rank: rank of the change of a weight matrix.
        alpha: the change is multiplied by `alpha / rank`.
        dropout: of the input of LoRA, in [0, 1).
        targets: names of the linear layers of a block that get LoRA.
    """

    layers: int | None
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]


class LabelNetwork(nn.Module):
    """Hidden states of padded clips → logits.

    Args:
        model: a causal language model; it gets LoRA in place and must not be used otherwise.
        answer_tokens: [C] token of each label.
        settings: of LoRA.

    Raises:
        ValueError: no linear layer has one of the names in `settings.targets`.
    """

    def __init__(self, model: Any, answer_tokens: Sequence[int], settings: LoraSettings) -> None:
        import peft

        super().__init__()
        blocks = len(model.model.layers)
        cut = 0 if settings.layers is None else max(0, blocks - settings.layers)
        model.requires_grad_(False)
        words = model.get_output_embeddings().weight[list(answer_tokens)].detach().clone()
        config = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number; peft's hint is int
            lora_dropout=settings.dropout,
            target_modules=list(settings.targets),
            layers_to_transform=list(range(cut, blocks)),
            layers_pattern="layers",
        )
        peft.inject_adapter_in_model(config, model)
        # peft's new modules are in training mode, whatever the mode of the model: from here on, all agree.
        model.train()
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.adapter = nn.ParameterDict({name.replace(".", "/"): weight for name, weight in trained.items()})
        self.head = nn.Linear(words.shape[1], len(words))
        self.head.weight.data.copy_(words)
        self.head.bias.data.zero_()
        lower = _part(model.model, slice(0, cut))
        lower.norm = nn.Identity()
        # A tuple is no submodule: these weights are neither parameters nor part of the state of this module.
        self._frozen = (lower, _part(model.model, slice(cut, blocks)))
        self._total = sum(weight.numel() for part in (model, self.head) for weight in part.parameters())

    @property
    def total_parameters(self) -> int:
        """Number of parameters, those of the frozen language model included."""
        return self._total

    @property
    def width(self) -> int:
        """Length of a hidden state."""
        return int(self.head.in_features)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Move the frozen blocks with the module."""
        for part in self._frozen:
            part._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @torch.no_grad()
    def states(self, tokens: Sequence[Sequence[int]], length: int) -> Tensor:
        """Return [N, length, width], what the upper blocks read: the states of each clip, then zeros.

        The frozen blocks have no dropout, so these states are the same in every epoch.
        """
        device = self.head.weight.device
        ids = torch.zeros((len(tokens), length), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, clip in enumerate(tokens):
            ids[row, : len(clip)] = torch.tensor(clip)
            mask[row, : len(clip)] = 1
        ids, mask = ids.to(device), mask.to(device)
        lower = self._frozen[0].eval()
        states = lower(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        padded: Tensor = (states * mask[..., None]).float().cpu()
        return padded

    def forward(self, states: Tensor) -> Tensor:
        """Return logits [N, C] from what `states` returned."""
        mask = states.ne(0).any(dim=2)
        counts = mask.sum(dim=1)
        longest = int(counts.max())
        upper = self._frozen[1]
        if upper.training is not self.training:  # Lightning sets the mode of submodules, and this is none
            upper.train(self.training)
        out = upper(inputs_embeds=states[:, :longest], attention_mask=mask[:, :longest].long(), use_cache=False)
        last = out.last_hidden_state[torch.arange(len(states), device=states.device), counts - 1]
        logits: Tensor = self.head(last)
        return logits


def _part(decoder: Any, blocks: slice) -> Any:
    """Return a decoder that shares the weights of this one and has some of its blocks."""
    part = copy.copy(decoder)
    part._modules = dict(decoder._modules)
    part.layers = nn.ModuleList(list(decoder.layers)[blocks])
    part.config = copy.copy(decoder.config)
    part.config.num_hidden_layers = len(part.layers)
    return part


@dataclass(frozen=True)
class WarmUpCosine(Recipe):
    """AdamW whose learning rate rises linearly and then falls to 0 along half a cosine, step by step.

    Attributes:
        steps_per_epoch: steps of the optimiser in one epoch.
        warm_up: share of all steps in which the rate rises, in [0, 1).
    """

    steps_per_epoch: int = 1
    warm_up: float = 0.0

    def optimizer(self, network: nn.Module, learning_rate: float, eps: float, epochs: int) -> Any:
        """Return the optimiser and its schedule, as Lightning's `configure_optimizers` does."""
        optimizer = torch.optim.AdamW(network.parameters(), learning_rate, eps=eps, weight_decay=self.weight_decay)
        steps = max(1, epochs * self.steps_per_epoch)
        rising = round(self.warm_up * steps)

        def share(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
