"""Which ranges contain a key: a dictionary for single keys, one per length for prefixes, a tree for all other ranges.

Nearly every watcher of etcd's users waits for one key or one prefix, and both are found by hashing: one lookup for
the key and one for each length that a watched prefix has. Ranges of another shape, and prefixes once their lengths
are many, live in a treap ordered by their start in which each node knows how far its subtree reaches, so that a key is
looked up in O(log n + matches) whatever was registered. A treap's priorities must be random to whoever chooses the
ranges; Python's keyed hash is, and what is found is put in the order of the ranges, so that nothing depends on it.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

Target = TypeVar("Target")

TO_THE_END: Final = b"\0"  # as a range end: no upper bound
LENGTHS_MAX: Final = 32  # distinct prefix lengths that are hashed: each costs a lookup for every change


def prefix_end(prefix: bytes) -> bytes:
    """The range end that makes a range of all keys with this prefix."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return TO_THE_END
    return stripped[:-1] + bytes((stripped[-1] + 1,))


class Ranges(Generic[Target]):
    """A set of (range, target) pairs that answers which targets' ranges contain a key."""

    __slots__ = ("_keys", "_lengths", "_lone_keys", "_prefixes", "_tree")

    def __init__(self) -> None:
        self._keys: dict[bytes, tuple[Target, ...]] = {}
        self._lone_keys: dict[bytes, Target] = {}  # keys with one target, the most by far: they need no tuple
        self._prefixes: dict[int, dict[bytes, tuple[Target, ...]]] = {}
        self._lengths: tuple[tuple[int, dict[bytes, tuple[Target, ...]]], ...] = ()
        self._tree: _Node[Target] | None = None

    def __bool__(self) -> bool:
        return bool(self._lone_keys or self._keys or self._lengths or self._tree)

    def match(self, key: bytes) -> tuple[Target, ...] | list[Target]:
        """The targets of all ranges that contain `key`."""
        found = self._of_key(key)
        if not self._lengths and self._tree is None:
            return found
        several = list(found)
        for length, prefixes in self._lengths:
            several += prefixes.get(key[:length], ())
        if self._tree is not None:
            _stab(self._tree, key, several)
        return several

    def targets(self, key: bytes, range_end: bytes) -> tuple[Target, ...]:
        """The targets of exactly this range."""
        if not range_end:
            return self._of_key(key)
        prefix = _prefix_of(key, range_end)
        if prefix is not None:
            found = self._prefixes.get(len(prefix), {}).get(prefix)
            if found is not None:
                return found
        return _targets(self._tree, key, _bound(range_end))

    def add(self, key: bytes, range_end: bytes, target: Target) -> None:
        """`range_end` as in etcd: empty for the single key, TO_THE_END, or the first key not in the range."""
        if not range_end:
            targets = self._of_key(key)
            if targets:
                self._keys[key] = (*targets, target)
                self._lone_keys.pop(key, None)
            else:
                self._lone_keys[key] = target
            return
        prefix = _prefix_of(key, range_end)
        if prefix is None or (len(prefix) not in self._prefixes and len(self._prefixes) >= LENGTHS_MAX):
            self._tree = _insert(self._tree, key, range_end, target)
            return
        table = self._prefixes.get(len(prefix))
        if table is None:
            table = self._prefixes[len(prefix)] = {}
            self._lengths = tuple(self._prefixes.items())
        table[prefix] = (*table.get(prefix, ()), target)

    def remove(self, key: bytes, range_end: bytes, target: Target) -> None:
        """Take out what was added; the pair must be there."""
        if not range_end:
            if self._lone_keys.get(key) is target:
                del self._lone_keys[key]
            else:
                _take_out(self._keys, key, target)
            return
        prefix = _prefix_of(key, range_end)
        table = None if prefix is None else self._prefixes.get(len(prefix))
        if prefix is None or table is None or target not in table.get(prefix, ()):
            self._tree = _remove(self._tree, key, range_end, target)
            return
        _take_out(table, prefix, target)
        if not table:
            del self._prefixes[len(prefix)]
            self._lengths = tuple(self._prefixes.items())

    def _of_key(self, key: bytes) -> tuple[Target, ...]:
        lone = self._lone_keys.get(key)
        return self._keys.get(key, ()) if lone is None else (lone,)


def _prefix_of(key: bytes, range_end: bytes) -> bytes | None:
    """The prefix that this range is the same as; None if there is none."""
    if key == b"\0" and range_end == TO_THE_END:
        return b""
    return key if range_end == prefix_end(key) else None


def _take_out(table: dict[bytes, tuple[Target, ...]], key: bytes, target: Target) -> None:
    rest = tuple(one for one in table[key] if one is not target)
    assert len(rest) == len(table[key]) - 1, "a target is in a range once"
    if rest:
        table[key] = rest
    else:
        del table[key]


class _Node(Generic[Target]):
    """A range of the treap.

    Invariant: `reach` is the furthest end of the subtree, empty for no bound; priorities fall towards the leaves.
    """

    __slots__ = ("end", "left", "priority", "reach", "right", "start", "targets")

    def __init__(self, start: bytes, end: bytes, target: Target) -> None:
        self.start = start
        self.end = end  # empty: no bound
        self.targets: tuple[Target, ...] = (target,)
        self.priority = hash((start, end))
        self.left: _Node[Target] | None = None
        self.right: _Node[Target] | None = None
        self.reach = end

    def measure(self) -> None:
        """Bring `reach` up to date with the children."""
        reach = self.end
        for child in (self.left, self.right):
            if child is not None and reach:
                reach = max(reach, child.reach) if child.reach else b""
        self.reach = reach


def _stab(root: _Node[Target], key: bytes, found: list[Target]) -> None:
    """Append to `found` the targets of all ranges below `root` that contain `key`, in the order of the ranges."""
    nodes = []
    stack = [root]
    while stack:
        node = stack.pop()
        if node.reach and node.reach <= key:
            continue
        if node.left is not None:
            stack.append(node.left)
        if node.start <= key:
            if not node.end or key < node.end:
                nodes.append(node)
            if node.right is not None:
                stack.append(node.right)
    nodes.sort(key=lambda node: (node.start, node.end))
    for node in nodes:
        found += node.targets


def _targets(node: _Node[Target] | None, key: bytes, end: bytes) -> tuple[Target, ...]:
    while node is not None and (key, end) != (node.start, node.end):
        node = node.left if (key, end) < (node.start, node.end) else node.right
    return () if node is None else node.targets


def _bound(range_end: bytes) -> bytes:
    return b"" if range_end == TO_THE_END else range_end


def _insert(node: _Node[Target] | None, key: bytes, range_end: bytes, target: Target) -> _Node[Target]:
    """The tree with the pair in it."""
    end = _bound(range_end)
    if node is None:
        return _Node(key, end, target)
    if (key, end) == (node.start, node.end):
        node.targets = (*node.targets, target)
        return node
    if (key, end) < (node.start, node.end):
        child = node.left = _insert(node.left, key, range_end, target)
        if child.priority > node.priority:
            node.left, child.right = child.right, node
            node.measure()
            node = child
    else:
        child = node.right = _insert(node.right, key, range_end, target)
        if child.priority > node.priority:
            node.right, child.left = child.left, node
            node.measure()
            node = child
    node.measure()
    return node


def _remove(node: _Node[Target] | None, key: bytes, range_end: bytes, target: Target) -> _Node[Target] | None:
    """The tree without the pair."""
    assert node is not None, "what is removed was added"
    end = _bound(range_end)
    if (key, end) == (node.start, node.end):
        node.targets = tuple(one for one in node.targets if one is not target)
        return node if node.targets else _merge(node.left, node.right)
    if (key, end) < (node.start, node.end):
        node.left = _remove(node.left, key, range_end, target)
    else:
        node.right = _remove(node.right, key, range_end, target)
    node.measure()
    return node


def _merge(left: _Node[Target] | None, right: _Node[Target] | None) -> _Node[Target] | None:
    """One tree of two, of which the left holds the smaller ranges."""
    if left is None or right is None:
        return left or right
    if left.priority > right.priority:
        left.right = _merge(left.right, right)
        left.measure()
        return left
    right.left = _merge(left, right.left)
    right.measure()
    return right
