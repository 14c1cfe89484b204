"""Student's t distribution, which is all that vidtrain would need SciPy for; tests hold it against SciPy to 1e-10."""

from __future__ import annotations

import math
from functools import cache
from typing import Final

_TINY: Final = 1e-300


def t_p_value(t: float, freedom: float) -> float:
    """How probable it is that Student's t with so many degrees of freedom, above 0, is as far from 0 as `t`."""
    total = freedom + t * t
    return _incomplete_beta(freedom / total, t * t / total, freedom / 2, 0.5)


@cache
def t_quantile(level: float, freedom: float) -> float:
    """The t that a share `level`, 0 to 1, of Student's distribution is nearer to 0 than."""
    low, high = 0.0, 1.0
    while t_p_value(high, freedom) > 1 - level:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_p_value(middle, freedom) > 1 - level else (low, middle)
    return (low + high) / 2


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, DLMF 8.17. rest: 1 - x, which near 1 is not known from x."""
    if x <= 0 or rest <= 0:
        return float(rest <= 0)
    if x > (a + 1) / (a + b + 2):  # where the fraction below converges slowly; DLMF 8.17.4
        return 1 - _incomplete_beta(rest, x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    return math.exp(front) / (a * _beta_fraction(x, a, b))


def _beta_fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)), the continued fraction of DLMF 8.17.22, by the method of Lentz."""
    value = upper = 1.0
    lower = 0.0
    for step in range(1, 10_000):
        m, odd = divmod(step, 2)
        if odd:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / _not_zero(1 + term * lower)
        upper = _not_zero(1 + term / upper)
        value *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
