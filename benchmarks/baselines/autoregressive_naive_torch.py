"""Draws of an autoregressive model of torch the naive way: the whole network for every feature."""

from __future__ import annotations

import torch


def draws(net, uniforms, positions, start):
    """Return events, one pass of the whole network a feature.

    Args:
        net: a module of `dg.autoregressive` of features in the order they stand in.
        uniforms: shape (rows, features, n).
        positions: the features that are drawn, in order.
        start: numbers of shape (rows, features) that hold the others.
    """
    output, x = net.output, torch.as_tensor(start, dtype=uniforms.dtype).clone()
    with torch.no_grad():
        for i in positions.tolist():
            params = net.parallel(output.encode(x, uniforms.dtype), None)
            x[:, i] = output.draw(params[:, i], uniforms[:, i]).to(x.dtype)
    return x
