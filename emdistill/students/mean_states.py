"""The mean of what dropped units and layers contributed goes into the biases of the student's LayerNorms.

    β ← β + mean over tokens (teacher's state − student's state),  one LayerNorm after another

Behind each LayerNorm the student's units then have the teacher's mean over a small sample, and the next layer reads
corrected states. A student that equals its teacher stays so, bit for bit: the differences are 0.

After the bias correction of Nagel et al. (ICCV 2019, section 4.2), which undoes the errors of quantization.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from emdistill.models.encoder import encoder_layers
from emdistill.students.importance import in_eval_mode, model_inputs, token_mask

POSITIONS = 2**13  # of the one batch over which the means are taken


def match_means(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    sample: Sequence[Mapping[str, Tensor]],
    *,
    layers: Sequence[int],
    residual: Sequence[int],
) -> None:
    """Give the student's states the teacher's means, behind each LayerNorm of its encoder, in place.

    sample    batches of the tokenizer's tensors, [B, L]; their texts are read up to POSITIONS positions
    layers    the teacher's layer of each student layer
    residual  the teacher's unit of each unit of the student's residual stream
    The teacher and torch's random state stay as they were.
    """
    batch = _one_batch(sample, int(teacher.config.pad_token_id or 0))
    units = torch.tensor(residual)
    means: list[Tensor] = []

    def keep(module: nn.LayerNorm, output: Tensor) -> Tensor:
        means.append(_mean_state(output, batch)[units])
        return output

    teacher_layers = encoder_layers(teacher)
    _run(teacher, _norms(teacher, [teacher_layers[layer] for layer in layers]), keep, batch)
    left = iter(means)

    def correct(module: nn.LayerNorm, output: Tensor) -> Tensor:
        difference = (next(left) - _mean_state(output, batch)).to(output)
        module.bias.add_(difference)
        return output + difference

    _run(student, _norms(student, encoder_layers(student)), correct, batch)


def _run(
    encoder: PreTrainedModel,
    norms: Iterable[nn.LayerNorm],
    change: Callable[[nn.LayerNorm, Tensor], Tensor],
    batch: Mapping[str, Tensor],
) -> None:
    """One forward pass in which `change` changes the output of each of `norms`, in order."""
    with ExitStack() as stack:
        for norm in norms:
            handle = norm.register_forward_hook(lambda module, inputs, output: change(module, output))
            stack.callback(handle.remove)
        stack.enter_context(in_eval_mode(encoder))
        stack.enter_context(torch.no_grad())
        encoder.base_model(**{name: values.to(encoder.device) for name, values in model_inputs(batch).items()})


def _norms(encoder: PreTrainedModel, layers: Iterable[nn.Module]) -> list[nn.LayerNorm]:
    """The LayerNorms of the residual stream; not that of ELECTRA's narrow embeddings, which keep their units."""
    modules = [encoder.base_model.get_submodule("embeddings"), *layers]
    norms = [part for module in modules for part in module.modules() if isinstance(part, nn.LayerNorm)]
    return [norm for norm in norms if norm.normalized_shape == (encoder.config.hidden_size,)]


def _mean_state(states: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The mean over all tokens, [d], on the CPU."""
    return states[token_mask(batch).bool().to(states.device)].mean(dim=0).cpu()


def _one_batch(sample: Sequence[Mapping[str, Tensor]], padding: int) -> dict[str, Tensor]:
    """Texts of all batches as one, padded to the longest."""
    longest = max(batch["input_ids"].shape[1] for batch in sample)

    def padded(name: str, values: Tensor) -> Tensor:
        fill = padding if name == "input_ids" else 0
        return functional.pad(values.cpu(), (0, longest - values.shape[1]), value=fill)

    inputs = [{**model_inputs(batch), "attention_mask": token_mask(batch)} for batch in sample]
    whole = {name: torch.cat([padded(name, batch[name]) for batch in inputs]) for name in inputs[0]}
    texts = len(whole["input_ids"])
    chosen = torch.linspace(0, texts - 1, min(texts, max(1, POSITIONS // longest))).long()
    return {name: values[chosen] for name, values in whole.items()}
