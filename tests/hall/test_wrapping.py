"""Modules inside functions are found, and the search ends."""

from functools import partial, wraps

from deepgen_ppl.wrapping import wrapped


class Net:
    """Stands for a module."""

    def __call__(self, x):
        return x

    def forward(self, x):
        return x


class Around:
    """Holds a method of its own, as a partial holds its function."""

    def __init__(self) -> None:
        self.func = self.__wrapped__ = self.method

    def method(self, x):
        return x


def test_a_module_is_found_in_what_is_around_it() -> None:
    net = Net()
    held = wraps(net.forward)(lambda x: x)
    for fn in (net.forward, partial(net), partial(partial(net.forward)), held):
        assert wrapped(fn, Net) is net


def test_what_leads_back_to_itself_ends() -> None:
    around = Around()
    assert wrapped(around, Net) is None
    assert wrapped(around.method, Net) is None
    assert wrapped(3, Net) is None
