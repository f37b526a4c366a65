"""Comparisons between tensors: correlation, error, explained variance, nearest neighbours, intervals.

Unless said otherwise a comparison takes two batches (B, *shape) and returns one number per image, (B,); average them as
you like, and give their spread with `bootstrap`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def mse(a: Float[Tensor, "B *shape"], b: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
    """Return the mean over components of (a - b)^2."""
    return _rows(a, b, lambda a, b: (a - b).square().mean(1))


def pearson(a: Float[Tensor, "B *shape"], b: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
    """Return the correlation r over the components of each image; 0 where an image is constant."""
    return _rows(a, b, lambda a, b: _cosine(_centred(a), _centred(b)))


def r2(a: Float[Tensor, "B *shape"], b: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
    """Return the squared correlation r^2: blind to scale and offset, unlike `R2`."""
    return pearson(a, b).square()


def R2(target: Float[Tensor, "B *shape"], model: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
    """Return the coefficient of determination 1 - SSE / SST, SST about the mean over the target image's components.

    A constant target has SST = 0: the result is then -inf, or NaN for a perfect model.
    """
    return _rows(target, model, lambda t, m: 1 - _share(t - m, _centred(t)))


def cosine(a: Float[Tensor, "B *shape"], b: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
    """Return the cosine of the angle between a and b as vectors; 0 where one of them is 0."""
    return _rows(a, b, _cosine)


def explained(
    target: Float[Tensor, "B *shape"],
    model: Float[Tensor, "B *shape"],
    center: Float[Tensor, "*shape"] | None = None,
) -> Float[Tensor, " B"]:
    """Return the explained fraction 1 - |target - model|^2 / |target - center|^2.

    With center = None (zero) on scores it is the explained score variance of Wang and Vastola (2024). On denoisers pass
    the data mean: the centred form counts only what is known beyond the mean image.
    """
    center = target.new_zeros(target.shape[1:]) if center is None else center.to(target)
    if center.shape != target.shape[1:]:
        raise ValueError(
            f"center has shape {tuple(center.shape)}, expected that of one sample {tuple(target.shape[1:])}."
        )
    return _rows(target, model, lambda t, m: 1 - _share(t - m, t - center.flatten()))


def nearest(
    x: Float[Tensor, "B *shape"], data: Float[Tensor, "N *shape"], k: int = 1, chunk: int = 4096
) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
    """Return the Euclidean distances to the k nearest data samples, increasing, and their indices.

    Distances are exact to the dtype: the k candidates found by |x|^2 - 2 x.y + |y|^2 are measured again by subtraction.
    """
    if x.shape[1:] != data.shape[1:]:
        raise ValueError(f"x has shape {tuple(x.shape)} and data {tuple(data.shape)}; expected one sample shape.")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least one sample at a time.")
    if not 1 <= k <= len(data):
        raise ValueError(f"k is {k}, expected a number from 1 to the {len(data)} data samples.")
    index = _candidates(x.flatten(1), data.flatten(1), k, chunk)
    distance = x.new_empty(index.shape)
    for b, (row, rank) in enumerate(zip(x, index, strict=True)):
        distance[b] = (data[rank].to(x) - row).flatten(1).norm(dim=1)
    distance, order = distance.sort(1)
    return distance, index.gather(1, order)


def bootstrap(
    values: Float[Tensor, " B"],
    rng: torch.Generator,
    groups: Int[Tensor, " B"] | None = None,
    level: float = 0.95,
    draws: int = 1000,
) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of values, resampling whole groups.

    Crops of one photograph are not independent: give their region as group. By default each value is its own group.
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values has shape {tuple(values.shape)}, expected (B,) with at least one number.")
    if not 0 < level < 1 or draws < 1:
        raise ValueError(
            f"level is {level} and draws is {draws}; expected a level between 0 and 1 and at least one draw."
        )
    groups = torch.arange(len(values)) if groups is None else groups
    if len(groups) != len(values):
        raise ValueError(f"there are {len(groups)} groups for {len(values)} values, expected one group per value.")
    _, member = groups.unique(return_inverse=True)
    total = torch.zeros(int(member.max()) + 1, dtype=torch.float64).index_add(0, member, values.double())
    size = torch.bincount(member).double()
    pick = torch.randint(len(size), (draws, len(size)), generator=rng)
    means = total[pick].sum(1) / size[pick].sum(1)
    low, high = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return low.item(), high.item()


def _rows(a: Tensor, b: Tensor, f) -> Tensor:
    if a.ndim < 2 or not a.is_floating_point() or not b.is_floating_point():
        raise ValueError(
            f"a batch has shape {tuple(a.shape)}, dtypes are {a.dtype} and {b.dtype}; expected floating (B, *shape)."
        )
    if a.shape != b.shape:
        raise ValueError(f"the two batches have shapes {tuple(a.shape)} and {tuple(b.shape)}, expected equal shapes.")
    return f(a.flatten(1), b.flatten(1))


def _centred(a: Tensor) -> Tensor:
    """a minus its row mean; exactly 0 where a row is constant up to rounding."""
    mean = a.mean(1, keepdim=True)
    spread = a - mean
    rounding = 4 * torch.finfo(a.dtype).eps * a.abs().amax(1, keepdim=True)
    constant = spread.abs().amax(1, keepdim=True) <= rounding  # false for NaN, which stays visible
    return spread.where(~constant, 0)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a, b, dim=1, eps=torch.finfo(a.dtype).tiny)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """|part|^2 / |whole|^2 per row."""
    return part.square().sum(1) / whole.square().sum(1)


def _candidates(x: Tensor, data: Tensor, k: int, chunk: int) -> Tensor:
    """Return (B, k) indices of the smallest |y|^2 / 2 - x.y, reading the data in chunks."""
    best, index = x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.long, device=x.device)
    for start in range(0, len(data), chunk):
        y = data[start : start + chunk].to(x)
        found = y.square().sum(1) / 2 - x @ y.T
        number = torch.arange(start, start + len(y), device=x.device).expand(len(x), -1)
        both, numbers = torch.cat([best, found], 1), torch.cat([index, number], 1)
        best, keep = both.topk(min(k, both.shape[1]), largest=False)
        index = numbers.gather(1, keep)
    return index
