"""The published update rules, in double precision: `(w, gradients, h)` to the weights after all steps.

`w` and each gradient are one matrix; `h` has the hyperparameters by the names of configs/optimizer.
"""

import numpy as np
from numpy import sqrt
from numpy.linalg import norm

Array = np.ndarray


class H(dict):
    """`h.lr` for `h["lr"]`."""

    def __getattr__(self, name):
        return self[name]


def mean(old: Array, new: Array, beta: float) -> Array:
    return beta * old + (1 - beta) * new


def momentum(w: Array, gradients: list[Array], h: H) -> Array:  # Sutskever et al. 2013
    velocity = 0 * w
    for t, gradient in enumerate(gradients):
        g = gradient + h.weight_decay * w
        velocity = h.momentum * velocity + (1 - h.dampening if t else 1) * g
        w = w - h.lr * (g + h.momentum * velocity if h.nesterov else velocity)
    return w


def rmsprop(w: Array, gradients: list[Array], h: H) -> Array:  # Tieleman & Hinton 2012
    v = 0 * w
    for gradient in gradients:
        g = gradient + h.weight_decay * w
        v = mean(v, g**2, h.alpha)
        w = w - h.lr * g / (sqrt(v) + h.eps)
    return w


def adam(w: Array, gradients: list[Array], h: H, decoupled: bool = False, cautious: bool = False) -> Array:
    m, v, (beta1, beta2) = 0 * w, 0 * w, h.betas  # Kingma & Ba 2015; Loshchilov & Hutter 2019; Liang et al. 2024
    for t, gradient in enumerate(gradients, 1):
        g = gradient if decoupled else gradient + h.weight_decay * w
        w = w * (1 - h.lr * h.weight_decay) if decoupled else w
        m, v = mean(m, g, beta1), mean(v, g**2, beta2)
        u = m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + h.eps)
        agree = u * g > 0
        w = w - h.lr * u * (agree * agree.size / agree.sum() if cautious else 1)
    return w


def adamw(w: Array, gradients: list[Array], h: H) -> Array:
    return adam(w, gradients, h, decoupled=True)


def cautious_adamw(w: Array, gradients: list[Array], h: H) -> Array:
    return adam(w, gradients, h, decoupled=True, cautious=True)


def nadam(w: Array, gradients: list[Array], h: H) -> Array:  # Dozat 2016
    m, v, product, (beta1, beta2) = 0 * w, 0 * w, 1.0, h.betas
    for t, gradient in enumerate(gradients, 1):
        g = gradient if h.decoupled_weight_decay else gradient + h.weight_decay * w
        w = w * (1 - h.lr * h.weight_decay) if h.decoupled_weight_decay else w
        mu, following = (beta1 * (1 - 0.5 * 0.96 ** (s * h.momentum_decay)) for s in (t, t + 1))
        product *= mu
        m, v = mean(m, g, beta1), mean(v, g**2, beta2)
        m_hat = following * m / (1 - product * following) + (1 - mu) * g / (1 - product)
        w = w - h.lr * m_hat / (sqrt(v / (1 - beta2**t)) + h.eps)
    return w


def radam(w: Array, gradients: list[Array], h: H) -> Array:  # Liu et al. 2020
    m, v, (beta1, beta2) = 0 * w, 0 * w, h.betas
    longest = 2 / (1 - beta2) - 1
    for t, gradient in enumerate(gradients, 1):
        g = gradient + h.weight_decay * w
        m, v = mean(m, g, beta1), mean(v, g**2, beta2)
        m_hat, length = m / (1 - beta1**t), longest - 2 * t * beta2**t / (1 - beta2**t)
        if length > 5:
            r = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            w = w - h.lr * m_hat * sqrt(r) * sqrt(1 - beta2**t) / (sqrt(v) + h.eps)
        else:
            w = w - h.lr * m_hat
    return w


def adamax(w: Array, gradients: list[Array], h: H) -> Array:  # Kingma & Ba 2015, algorithm 2
    m, u, (beta1, beta2) = 0 * w, 0 * w, h.betas
    for t, gradient in enumerate(gradients, 1):
        g = gradient + h.weight_decay * w
        m, u = mean(m, g, beta1), np.maximum(beta2 * u, np.abs(g) + h.eps)
        w = w - h.lr / (1 - beta1**t) * m / u
    return w


def adagrad(w: Array, gradients: list[Array], h: H) -> Array:  # Duchi et al. 2011
    s = 0 * w
    for gradient in gradients:
        g = gradient + h.weight_decay * w
        s = s + g**2
        w = w - h.lr * g / (sqrt(s) + h.eps)
    return w


def adadelta(w: Array, gradients: list[Array], h: H) -> Array:  # Zeiler 2012
    v, a = 0 * w, 0 * w
    for gradient in gradients:
        g = gradient + h.weight_decay * w
        v = mean(v, g**2, h.rho)
        u = sqrt(a + h.eps) / sqrt(v + h.eps) * g
        a = mean(a, u**2, h.rho)
        w = w - h.lr * u
    return w


def adafactor(w: Array, gradients: list[Array], h: H) -> Array:  # Shazeer & Stern 2018, algorithm 5
    rows, columns = np.zeros((len(w), 1)), np.zeros((1, w.shape[1]))
    for t, g in enumerate(gradients, 1):
        new = t**h.beta2_decay
        size = max(h.eps[1], sqrt((w**2).mean())) * min(h.lr, 1 / sqrt(t))
        w = w * (1 - h.lr * h.weight_decay)
        rows, columns = (mean(old, (g**2).mean(k, keepdims=True), 1 - new) for old, k in ((rows, 1), (columns, 0)))
        u = g / sqrt(rows @ columns / rows.mean())
        w = w - size * u / max(1, sqrt((u**2).mean()) / h.d)
    return w


def muon(w: Array, gradients: list[Array], h: H) -> Array:  # Jordan et al. 2024; Liu et al. 2025
    m, (a, b, c) = 0 * w, h.ns_coefficients
    for g in gradients:
        m = mean(m, g, h.momentum)
        x = mean(g, m, 1 - h.momentum)
        x = x / norm(x)
        for _ in range(h.ns_steps):
            x = a * x + (b * x @ x.T + c * x @ x.T @ x @ x.T) @ x
        w = w * (1 - h.lr * h.weight_decay) - h.lr * 0.2 * sqrt(max(w.shape)) * x
    return w


def lion(w: Array, gradients: list[Array], h: H) -> Array:  # Chen et al. 2023
    m, (beta1, beta2) = 0 * w, h.betas
    for g in gradients:
        w = w - h.lr * (np.sign(mean(m, g, beta1)) + h.weight_decay * w)
        m = mean(m, g, beta2)
    return w


def lamb(w: Array, gradients: list[Array], h: H) -> Array:  # You et al. 2020
    m, v, (beta1, beta2) = 0 * w, 0 * w, h.betas
    for t, g in enumerate(gradients, 1):
        m, v = mean(m, g, beta1), mean(v, g**2, beta2)
        u = m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + h.eps) + h.weight_decay * w
        w = w - h.lr * norm(w) / norm(u) * u
    return w


def lars(w: Array, gradients: list[Array], h: H) -> Array:  # You et al. 2017
    velocity = 0 * w
    for g in gradients:
        rate = h.trust_coeff * norm(w) / (norm(g) + h.weight_decay * norm(w) + h.eps)
        velocity = h.momentum * velocity + rate * (g + h.weight_decay * w)
        w = w - h.lr * velocity
    return w


def adopt(w: Array, gradients: list[Array], h: H) -> Array:  # Taniguchi et al. 2024, algorithm 2
    m, v, (beta1, beta2) = 0 * w, 0 * w, h.betas
    for t, gradient in enumerate(gradients):
        g = gradient + h.weight_decay * w
        if t:
            m = mean(m, np.clip(g / np.maximum(sqrt(v), h.eps), -(t**h.clip_exp), t**h.clip_exp), beta1)
            w = w - h.lr * m
        v = mean(v, g**2, beta2) if t else g**2
    return w


def adan(w: Array, gradients: list[Array], h: H) -> Array:  # Xie et al. 2022; betas are 1 - those of the paper
    m, d, n, before, (beta1, beta2, beta3) = 0 * w, 0 * w, 0 * w, gradients[0], h.betas
    for t, g in enumerate(gradients, 1):
        m, d = mean(m, g, beta1), mean(d, g - before, beta2)
        n = mean(n, (g + beta2 * (g - before)) ** 2, beta3)
        rate = h.lr / (sqrt(n / (1 - beta3**t)) + h.eps)
        w = (w - rate * (m / (1 - beta1**t) + beta2 * d / (1 - beta2**t))) / (1 + h.lr * h.weight_decay)
        before = g
    return w


def ademamix(w: Array, gradients: list[Array], h: H) -> Array:  # Pagliardini et al. 2024
    m, v, slow, (beta1, beta2, beta3) = 0 * w, 0 * w, 0 * w, h.betas
    for t, g in enumerate(gradients, 1):
        m, v, slow = mean(m, g, beta1), mean(v, g**2, beta2), mean(slow, g, beta3)
        u = (m / (1 - beta1**t) + h.alpha * slow) / (sqrt(v / (1 - beta2**t)) + h.eps)
        w = w - h.lr * (u + h.weight_decay * w)
    return w


def mars(w: Array, gradients: list[Array], h: H) -> Array:  # Yuan et al. 2024, with the last gradient for the old one
    m, v, before, (beta1, beta2) = 0 * w, 0 * w, gradients[0], h.betas
    for t, g in enumerate(gradients, 1):
        c = g + h.gamma * beta1 / (1 - beta1) * (g - before)
        c = c / max(1, norm(c))
        m, v, before = mean(m, c, beta1), mean(v, c**2, beta2), g
        w = w - h.lr * (m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + h.eps) + h.weight_decay * w)
    return w


def soap(w: Array, gradients: list[Array], h: H) -> Array:  # Vyas et al. 2024; the first gradient only makes the basis
    m, v, left, right, (beta1, beta2) = 0 * w, 0 * w, 0 * w @ w.T, 0 * w.T @ w, h.betas
    q, r = left, right  # until the first gradient
    for t, g in enumerate(gradients):
        if t:
            projected = q.T @ g @ r
            m, v = mean(m, g, beta1), mean(v, projected**2, beta2)
            u = q @ ((q.T @ m @ r) / (sqrt(v) + h.eps)) @ r.T
            w = w - h.lr * sqrt(1 - beta2**t) / (1 - beta1**t) * u
            w = w * (1 - h.lr * h.weight_decay)
        left, right = mean(left, g @ g.T, beta2), mean(right, g.T @ g, beta2)
        if not t:
            q, r = np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]
    return w


def root(a: Array, power: float, ridge: float) -> Array:
    values, vectors = np.linalg.eigh(a)
    return vectors * (values + ridge * values.max()) ** power @ vectors.T


def shampoo(w: Array, gradients: list[Array], h: H) -> Array:  # Gupta et al. 2018, in the form of Anil et al. 2020
    left, right, v, m, (beta1, beta2) = *(h.matrix_eps * np.eye(n) for n in w.shape), 0 * w, 0 * w, h.betas
    for g in gradients:
        left, right, v = mean(left, g @ g.T, beta2), mean(right, g.T @ g, beta2), mean(v, g**2, beta2)
        u, graft = (
            root(left, -1 / 4, h.matrix_eps) @ g @ root(right, -1 / 4, h.matrix_eps),
            g / (sqrt(v) + h.diagonal_eps),
        )
        u = u * norm(graft) / norm(u)
        m = mean(m, u, beta1)
        w = w * (1 - h.lr * h.weight_decay) - h.lr * mean(m, u, beta1)  # Nesterov
    return w


def prodigy(w: Array, gradients: list[Array], h: H) -> Array:  # Mishchenko & Defazio 2024, algorithm 4
    first, m, v, s, r, d, (beta1, beta2) = w, 0 * w, 0 * w, 0 * w, 0.0, h.d0, h.betas
    for g in gradients:
        r = sqrt(beta2) * r + d / h.d0 * d * h.lr * (g * (first - w)).sum()
        s = sqrt(beta2) * s + d / h.d0 * d * h.lr * g
        m, v = beta1 * m + (1 - beta1) * d * g, beta2 * v + (1 - beta2) * d**2 * g**2
        rate, d = d * h.lr, max(d, h.d_coef * r / np.abs(s).sum())
        w = w * (1 - rate * h.weight_decay) - rate * m / (sqrt(v) + d * h.eps)
    return w


def schedule_free_adamw(w: Array, gradients: list[Array], h: H) -> Array:  # Defazio et al. 2024, algorithm 1
    x, z, v, (beta1, beta2) = w, w, 0 * w, h.betas
    for t, g in enumerate(gradients, 1):
        y = mean(z, x, 1 - beta1)
        v = mean(v, g**2, beta2)
        z = z - h.lr * (g / (sqrt(v / (1 - beta2**t)) + h.eps) + h.weight_decay * y)
        x = mean(x, z, 1 - 1 / t)
    return x


def schedule_free_sgd(w: Array, gradients: list[Array], h: H) -> Array:
    x, z = w, w
    for t, g in enumerate(gradients, 1):
        y = mean(z, x, 1 - h.momentum)
        z = z - h.lr * (g + h.weight_decay * y)
        x = mean(x, z, 1 - 1 / t)
    return x


RULES = {
    "sgd": momentum,
    "nesterov": momentum,
    "nadamw": nadam,
    **{
        rule.__name__: rule
        for rule in (
            momentum, rmsprop, adam, adamw, cautious_adamw, nadam, radam, adamax, adagrad, adadelta, adafactor, muon,
            lion, lamb, lars, adopt, adan, ademamix, mars, soap, shampoo, prodigy, schedule_free_adamw,
            schedule_free_sgd,
        )
    },
}  # fmt: skip
