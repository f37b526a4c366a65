"""Vectors: plain loops over float32 rows, which compile to vector instructions.

The weights of a softmax are powers of two, by a polynomial and an addition to the bits of the exponent: a call of the
exponential function would cost more than all the rest.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

FAR = np.float32(3e38)  # the base of a pixel that has met no patch; the first one renews it while sigma < 1e18
RENEW = np.float32(60)  # a weight above 2^60 renews the base
FLOOR = np.float32(-125)  # smaller exponents count as this one: 2^-125 against a mass of at least 1
ROUND = np.float32(1.5 * 2**23)  # adding it leaves the nearest whole number in the low bits
# 2^g = sum_k POWERS[k] g^k for |g| <= 1/2 within 2e-7, the best such polynomial that is right at g = 0
POWERS = tuple(np.float32(c) for c in (1.0, 0.6931469776, 0.2402224209, 0.0555073377, 0.0096715126, 0.0013264714))
C0, C1, C2, C3, C4, C5 = POWERS
# Fused products, while sums keep their order; and no reference counts, which would cost more than a short row does, so
# that nothing here may allocate memory.
OPTIONS = {"fastmath": {"contract", "nsz"}, "_nrt": False}


@intrinsic
def _bits(context, x):
    """The bits of a float32 as int32."""
    return types.int32(types.float32), lambda c, builder, s, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def _float(context, x):
    """The float32 with these bits."""
    return types.float32(types.int32), lambda c, builder, s, args: builder.bitcast(args[0], ir.FloatType())


@njit(inline="always", **OPTIONS)
def exp2(e):
    """2^e for e <= 126, by a polynomial and an addition to the exponent's bits."""
    e = e if e > FLOOR else FLOOR
    r = e + ROUND
    g = e - (r - ROUND)
    return _float(_bits(C0 + g * (C1 + g * (C2 + g * (C3 + g * (C4 + g * C5))))) + (_bits(r) << 23))


@njit(**OPTIONS)
def clear(out):
    for i in range(out.size):
        out[i] = 0


@njit(**OPTIONS)
def copy(out, a):
    for i in range(out.size):
        out[i] = a[i]


@njit(**OPTIONS)
def square(out, x, y, a):
    for i in range(out.size):
        d = x[i] - a * y[i]
        out[i] = d * d


@njit(**OPTIONS)
def add_square(out, x, y, a):
    for i in range(out.size):
        d = x[i] - a * y[i]
        out[i] += d * d


@njit(**OPTIONS)
def square3(out, x0, x1, x2, y0, y1, y2, a):
    for i in range(out.size):
        d0, d1, d2 = x0[i] - a * y0[i], x1[i] - a * y1[i], x2[i] - a * y2[i]
        out[i] = d0 * d0 + d1 * d1 + d2 * d2


@njit(**OPTIONS)
def add_up(out, a, b):
    for i in range(out.size):
        out[i] = a[i] + b[i]


@njit(**OPTIONS)
def sum3(out, a, b, c):
    for i in range(out.size):
        out[i] = a[i] + b[i] + c[i]


@njit(**OPTIONS)
def add(out, a):
    for i in range(out.size):
        out[i] += a[i]


@njit(**OPTIONS)
def add2(out, a, b):
    for i in range(out.size):
        out[i] += a[i] + b[i]


@njit(**OPTIONS)
def add4(out, a, b, c, d):
    for i in range(out.size):
        out[i] += (a[i] + b[i]) + (c[i] + d[i])


@njit(**OPTIONS)
def add_product(out, w, y):
    for i in range(out.size):
        out[i] += w[i] * y[i]


@njit(**OPTIONS)
def weigh(w, base, dist, scale):
    """w = 2^(scale (base - dist)); returns a negative number if some exponent exceeds RENEW."""
    over = np.int32(0)
    for i in range(w.size):
        e = scale * (base[i] - dist[i])
        over |= _bits(RENEW - e)
        w[i] = exp2(e)
    return over


@njit(**OPTIONS)
def renew(w, base, dist, scale):
    """Lower the base to dist where that is smaller; w is the factor 2^(scale (new base - base)) for the sums."""
    for i in range(w.size):
        new = dist[i] if dist[i] < base[i] else base[i]
        w[i] = exp2(scale * (new - base[i]))
        base[i] = new


@njit(**OPTIONS)
def multiply(out, w):
    for i in range(out.size):
        out[i] *= w[i]


@njit(**OPTIONS)
def add_excess(out, w, base, dist):
    """out += w (dist - base)."""
    for i in range(out.size):
        out[i] += w[i] * (dist[i] - base[i])


@njit(**OPTIONS)
def shift_excess(out, mass, base, dist):
    """What `renew` adds to the sum of w (dist - base), before it lowers the base: mass (base - new base)."""
    for i in range(out.size):
        out[i] += mass[i] * (base[i] - dist[i] if dist[i] < base[i] and mass[i] > 0 else np.float32(0))


@njit(**OPTIONS)
def keep_nearest(least, code, dist, now):
    for i in range(least.size):
        nearer = dist[i] < least[i]
        least[i] = dist[i] if nearer else least[i]
        code[i] = now if nearer else code[i]


@njit(**OPTIONS)
def beyond(base, dist, scale, cut):
    """Whether scale (base - dist) < -cut all along the row."""
    sign = np.int32(-1)
    for i in range(base.size):
        sign &= _bits(scale * (base[i] - dist[i]) + cut)
    return sign < 0
