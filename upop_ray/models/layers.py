"""Sites of the two kinds of layers that all families are built of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from upop_ray.pruning.site import Site, Slot, Tower


@dataclass(frozen=True)
class Attention:
    """One multi-head attention inside a model.

    :param projections: paths of the linear layers that carry query, key and value; one path where they are fused,
        with its rows ordered (query | key | value, head, dimension)
    :param out: path of the output projection
    :param queries: tokens of one example that ask
    :param keys: tokens of one example that are asked; those of ``queries`` in self-attention
    """

    projections: Sequence[str]
    out: str
    heads: int
    queries: int
    keys: int


def attention_site(model: nn.Module, name: str, tower: Tower, attention: Attention) -> Site:
    """The head dimensions of an attention, shared by its heads and by query, key and value (ALGORITHM, section 2)."""
    heads = attention.heads
    out = model.get_submodule(attention.out)
    assert isinstance(out, nn.Linear)
    if len(attention.projections) == 1:
        producers: tuple[Slot, ...] = (Slot(attention.projections[0], 3 * heads, attention.queries),)
    else:
        query, key, value = attention.projections
        producers = (
            Slot(query, heads, attention.queries),
            Slot(key, heads, attention.keys),
            Slot(value, heads, attention.keys),
        )
    return Site(
        name,
        "attention",
        tower,
        out.in_features // heads,
        producers=producers,
        consumers=(Slot(attention.out, heads, attention.queries),),
        product_macs=2 * heads * attention.queries * attention.keys,
    )


def mlp_site(model: nn.Module, name: str, tower: Tower, paths: tuple[str, str], tokens: int) -> Site:
    """The hidden units of an MLP.

    :param paths: of its first and second linear layer
    """
    first = model.get_submodule(paths[0])
    assert isinstance(first, nn.Linear)
    return Site(
        name,
        "mlp",
        tower,
        first.out_features,
        producers=(Slot(paths[0], 1, tokens),),
        consumers=(Slot(paths[1], 1, tokens),),
    )


@dataclass(frozen=True)
class Encoder:
    """A stack of layers with self-attention and an MLP, as the encoders of transformers name them.

    :param path: of the list of layers
    :param name: how site names call it
    :param tokens: of one example
    :param attention: name of the attention in a layer
    :param out: name of the output projection in it
    """

    path: str
    name: str
    tower: Tower
    heads: int
    tokens: int
    attention: str = "self_attn"
    out: str = "out_proj"


def encoder_sites(model: nn.Module, encoder: Encoder) -> Iterator[Site]:
    """Sites of an encoder, attention before MLP in each layer: ``{name}.{layer}.attn`` and ``{name}.{layer}.mlp``."""
    layers = model.get_submodule(encoder.path)
    assert isinstance(layers, nn.ModuleList)
    for index in range(len(layers)):
        layer, name = f"{encoder.path}.{index}", f"{encoder.name}.{index}"
        inner = f"{layer}.{encoder.attention}"
        projections = [f"{inner}.{part}_proj" for part in ("q", "k", "v")]
        tokens = encoder.tokens
        attention = Attention(projections, f"{inner}.{encoder.out}", encoder.heads, queries=tokens, keys=tokens)
        yield attention_site(model, f"{name}.attn", encoder.tower, attention)
        yield mlp_site(model, f"{name}.mlp", encoder.tower, (f"{layer}.mlp.fc1", f"{layer}.mlp.fc2"), tokens)
