"""Draws of an autoregressive model of torch the naive way: the whole network for every feature."""

from __future__ import annotations

import torch


def draws(net, uniforms):
    """Return events, one pass of the whole network a feature.

    Args:
        net: a module of `dg.autoregressive` of features in the order they stand in.
        uniforms: shape (rows, features, n).
    """
    output, (rows, features, _) = net.output, uniforms.shape
    x = torch.zeros(rows, features)
    with torch.no_grad():
        for i in range(features):
            params = net.parallel(output.encode(x, uniforms.dtype), None)
            x[:, i] = output.draw(params[:, i], uniforms[:, i]).to(x.dtype)
    return x
