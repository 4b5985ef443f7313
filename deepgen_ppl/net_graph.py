"""What the graph of a network says by itself: order, independencies, blankets, a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from deepgen_ppl import directed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Independence(NamedTuple):
    """A statement of conditional independence.

    Attributes:
        variable: The variable.
        others: What it is independent of.
        given: What has to be known.
    """

    variable: str
    others: tuple[str, ...]
    given: tuple[str, ...]

    def __str__(self) -> str:
        given = f" | {', '.join(self.given)}" if self.given else ""
        return f"{self.variable} ⊥ {', '.join(self.others)}{given}"


class ParameterCounts(NamedTuple):
    """Free parameters of a network and of the models without its structure.

    Attributes:
        net: Of the network.
        full_joint: Of one table over all variables.
        chain: Of a first-order chain in the order of the variables.
        independent: Of independent variables.
    """

    net: int
    full_joint: int
    chain: int
    independent: int


class Structure:
    """The questions that a network's arcs answer, whatever its tables are.

    Attributes:
        parents: Each variable's parents, of every variable.
        name: A name for the whole.
    """

    parents: Mapping[str, tuple[str, ...]]
    name: str

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables, in the order of columns of data."""
        return tuple(self.parents)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The variables, each after its parents."""
        return directed.topological_order(self.parents)

    def d_separated(
        self, a: str | Iterable[str], b: str | Iterable[str], given: str | Iterable[str] = ()
    ) -> bool:
        """Whether the graph alone makes `a` and `b` independent once `given` is known.

        Args:
            a: A variable or several.
            b: A variable or several.
            given: What is known.

        References:
            Shachter: Bayes-ball: the rational pastime. UAI 1998. arXiv:1301.7412.

        Example:
            >>> from deepgen_ppl.bayes_net import BayesNet
            >>> net = BayesNet.student()
            >>> net.d_separated("difficulty", "SAT"), net.d_separated("difficulty", "SAT", "letter")
            (True, False)
        """
        left, right, known = (self._known([x] if isinstance(x, str) else x) for x in (a, b, given))
        overlap = (left & right) | (left & known) | (right & known)
        if overlap:
            raise ValueError(f"{sorted(overlap)} stand on two sides of one independence.")
        return not directed.reachable(self.parents, left, known) & right

    def markov_blanket(self, variable: str) -> frozenset[str]:
        """Parents, children and the children's parents: given them, all others are irrelevant.

        Example:
            >>> from deepgen_ppl.bayes_net import BayesNet
            >>> sorted(BayesNet.student().markov_blanket("intelligence"))
            ['SAT', 'difficulty', 'grade']
        """
        self._known([variable])
        families = [{v, *above} for v, above in self.parents.items()]
        around = [family for v, family in zip(self.parents, families, strict=True)
                  if v == variable or variable in self.parents[v]]  # fmt: skip
        return frozenset(set().union(*around) - {variable})

    def moral_graph(self) -> dict[str, frozenset[str]]:
        """Each variable's neighbours once parents of one child are joined.

        Example:
            >>> from deepgen_ppl.bayes_net import BayesNet
            >>> "difficulty" in BayesNet.student().moral_graph()["intelligence"]
            True
        """
        return directed.moral_graph(self.parents)

    def independencies(self) -> tuple[Independence, ...]:
        """Each variable's independence of what is not below it, given its parents.

        Every other independence that the graph implies follows from these.

        Example:
            >>> from deepgen_ppl.bayes_net import BayesNet
            >>> print(BayesNet.student().independencies()[-1])
            letter ⊥ difficulty, intelligence, SAT | grade
        """
        found = []
        for variable, above in self.parents.items():
            others = tuple(
                v for v in self.variables
                if v not in above and variable not in directed.ancestors(self.parents, [v])
            )  # fmt: skip
            if others:
                found.append(Independence(variable, others, above))
        return tuple(found)

    def draw(self, *, engine: str = "matplotlib") -> Figure | Any:
        """A picture of the graph.

        Args:
            engine: "matplotlib", a plain layout in layers, or "graphviz", the optional package's
                `Source`, which notebooks show.

        Returns:
            The figure, or the source.

        Raises:
            ImportError: graphviz is asked for and not installed.

        Example:
            >>> from deepgen_ppl.bayes_net import BayesNet
            >>> len(BayesNet.student().draw().axes[0].texts)
            5
        """
        from deepgen_ppl.net_figures import network

        return network(self.parents, title=self.name, engine=engine)

    def _known(self, variables: Iterable[str]) -> set[str]:
        names = set(variables)
        unknown = sorted(map(str, names - self.parents.keys()))
        if unknown:
            raise ValueError(
                f"There is no variable {unknown[0]!r}; the variables are {list(self.variables)}."
            )
        return names
