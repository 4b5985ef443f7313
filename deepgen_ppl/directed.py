"""Directed acyclic graphs: order, cycles by their path, independence, moral graph, layers.

A graph is a mapping of each node to its parents, whose order is the order of the nodes.
"""

from collections.abc import Iterable, Mapping, Sequence

Parents = Mapping[str, Sequence[str]]


def topological_order(parents: Parents) -> tuple[str, ...]:
    """The nodes, every one after its parents, otherwise in the order of the mapping.

    Args:
        parents: Each node's parents.

    Returns:
        The order.

    Raises:
        ValueError: There is a cycle; the message shows its path.

    Cost: Linear in nodes and arcs.

    Example:
        >>> topological_order({"c": ("a", "b"), "b": ("a",), "a": ()})
        ('a', 'b', 'c')
        >>> topological_order({"a": ("c",), "b": ("a",), "c": ("b",)})
        Traceback (most recent call last):
        ...
        ValueError: The graph has a cycle: a -> b -> c -> a. ...
    """
    order: list[str] = []
    done: set[str] = set()
    for start in parents:
        path: list[str] = []  # from a node to its ancestors
        stack = [(start, iter(parents[start]))] if start not in done else []
        while stack:
            node, remaining = stack[-1]
            if not path or path[-1] != node:
                path.append(node)
            parent = next((p for p in remaining if p not in done), None)
            if parent is None:
                done.add(node)
                order.append(node)
                stack.pop()
                path.pop()
            elif parent in path:
                _refuse_cycle(path[path.index(parent) :])
            else:
                stack.append((parent, iter(parents[parent])))
    return tuple(order)


def children(parents: Parents) -> dict[str, tuple[str, ...]]:
    """Each node's children, in the order of the mapping.

    Example:
        >>> children({"a": (), "b": ("a",), "c": ("a", "b")})
        {'a': ('b', 'c'), 'b': ('c',), 'c': ()}
    """
    found: dict[str, list[str]] = {node: [] for node in parents}
    for node, above in parents.items():
        for parent in above:
            found[parent].append(node)
    return {node: tuple(below) for node, below in found.items()}


def ancestors(parents: Parents, nodes: Iterable[str]) -> set[str]:
    """The nodes themselves and everything above them.

    Example:
        >>> sorted(ancestors({"a": (), "b": ("a",), "c": ("b",)}, ["b"]))
        ['a', 'b']
    """
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(parents[node])
    return found


def reachable(parents: Parents, sources: Iterable[str], given: Iterable[str]) -> set[str]:
    """The nodes that an active trail connects to the sources: those not d-separated from them.

    A ball that is passed along the arcs goes through a node that is not given from parent to child,
    from child to parent and from child to child; through a node that is given, or has a descendant
    that is, from parent to parent.

    Args:
        parents: Each node's parents.
        sources: Where the ball starts.
        given: The nodes whose values are known.

    Returns:
        The nodes it reaches, none of them given.

    Cost: Linear in nodes and arcs.

    References:
        Shachter: Bayes-ball: the rational pastime. UAI 1998. arXiv:1301.7412.
        Koller, Friedman: Probabilistic Graphical Models, 2009, algorithm 3.1.

    Example:
        >>> fork = {"rain": (), "sprinkler": (), "wet": ("rain", "sprinkler")}
        >>> sorted(reachable(fork, ["rain"], [])), sorted(reachable(fork, ["rain"], ["wet"]))
        (['rain', 'wet'], ['rain', 'sprinkler'])
    """
    given = set(given)
    opened = ancestors(parents, given)  # colliders that pass the ball on
    below = children(parents)
    waiting = [(node, "from a child") for node in sources]
    visited: set[tuple[str, str]] = set()
    while waiting:
        visit = waiting.pop()
        if visit in visited:
            continue
        visited.add(visit)
        node, side = visit
        if node not in given:
            waiting.extend((child, "from a parent") for child in below[node])
        if (side == "from a child" and node not in given) or (
            side == "from a parent" and node in opened
        ):
            waiting.extend((parent, "from a child") for parent in parents[node])
    return {node for node, _ in visited} - given


def moral_graph(parents: Parents) -> dict[str, frozenset[str]]:
    """Each node's neighbours once parents of one child are joined and arcs lose their direction.

    Example:
        >>> graph = moral_graph({"rain": (), "sprinkler": (), "wet": ("rain", "sprinkler")})
        >>> sorted(graph["rain"])
        ['sprinkler', 'wet']
    """
    neighbours: dict[str, set[str]] = {node: set() for node in parents}
    for node, above in parents.items():
        family = {node, *above}
        for member in family:
            neighbours[member] |= family - {member}
    return {node: frozenset(found) for node, found in neighbours.items()}


def layers(parents: Parents, *, num_sweeps: int = 8) -> list[list[str]]:
    """The nodes in rows for a drawing: parents above, neighbours near each other.

    A node's row is one below its lowest parent; roots are pulled down next to their children.
    Within a row nodes are sorted by the mean place of their neighbours, downwards and upwards in
    turns.

    Args:
        parents: Each node's parents.
        num_sweeps: How often the rows are sorted.

    Returns:
        The rows, the uppermost first.

    References:
        Sugiyama, Tagawa, Toda: Methods for visual understanding of hierarchical system structures.
        IEEE Transactions on Systems, Man, and Cybernetics 11(2), 1981.

    Example:
        >>> layers({"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ()})
        [['a', 'e'], ['b', 'c'], ['d']]
    """
    order, below = topological_order(parents), children(parents)
    depth: dict[str, int] = {}
    for node in order:
        depth[node] = max((depth[p] + 1 for p in parents[node]), default=0)
    for node in order:
        if not parents[node] and below[node]:
            depth[node] = min(depth[child] for child in below[node]) - 1
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in parents:
        rows[depth[node]].append(node)
    for sweep in range(num_sweeps):
        place = {node: (i + 0.5) / len(row) for row in rows for i, node in enumerate(row)}
        for row in rows if sweep % 2 == 0 else reversed(rows):
            near = parents if sweep % 2 == 0 else below
            goal = {
                node: sum(place[n] for n in near[node]) / len(near[node])
                if near[node]
                else place[node]
                for node in row
            }
            row.sort(key=goal.__getitem__)
            place.update({node: (i + 0.5) / len(row) for i, node in enumerate(row)})
    return rows


def _refuse_cycle(upwards: Sequence[str]) -> None:
    downwards = list(reversed(upwards))
    start = downwards.index(min(downwards))
    path = [*downwards[start:], *downwards[:start], downwards[start]]
    raise ValueError(
        f"The graph has a cycle: {' -> '.join(path)}. Arcs run from parent to child; take one of "
        "them out or turn it round."
    )
