"""The function by which a model attends during a pass: transformers' attention interface, under other names.

A family with attention of its own (families.OwnAttention) hands it to the interface meanwhile.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from emdistill.models.encoder import encoder_layers
from emdistill.models.families import family_of


@contextmanager
def attending(model: PreTrainedModel, rename: Callable[[str], str]) -> Iterator[None]:
    """While open, the model attends by the registered function `rename(its own)`; afterwards as before."""
    configs = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    with ExitStack() as stack:
        for config in configs.values():
            stack.enter_context(attention_implementation(config, rename(str(config._attn_implementation))))
        if (own := family_of(model).own_attention) is not None:
            attend = ALL_ATTENTION_FUNCTIONS[str(model.config._attn_implementation)]
            for layer in encoder_layers(model):
                module = layer.get_submodule(own.module)
                module.forward = partial(own.forward, module, attend)
                stack.callback(delattr, module, "forward")  # its class has the one before
        yield


@contextmanager
def attention_implementation(config: PreTrainedConfig, name: str) -> Iterator[None]:
    """While open, the parts of this configuration attend by this implementation."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
