"""The trees of the benchmarks."""

import zlib
from pathlib import Path

from scipion_cloud.testing.trees import TreeSpec, append, make_tree, rewrite

SPEC = TreeSpec(small=60, big=2, links=15, big_size=(1_200_000, 1_500_000))


def _contents(root: Path) -> dict[Path, tuple[bytes, int]]:
    files = [p for p in root.rglob("*") if p.is_file() and not p.is_symlink()]
    return {p.relative_to(root): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_a_spec_tells_all_of_a_tree(tmp_path: Path) -> None:
    one, two = make_tree(tmp_path / "one", SPEC), make_tree(tmp_path / "two", SPEC)
    assert (one.small, one.big, one.links) == (two.small, two.big, two.links)
    found = _contents(one.root)
    assert found == _contents(two.root)
    assert {str(p) for p in found} == {*one.small, *one.big}
    assert (len(one.small), len(one.big), len(one.links)) == (60, 2, 15)
    assert sum(len(content) for content, _ in found.values()) == one.bytes


def test_another_seed_is_another_tree(tmp_path: Path) -> None:
    one = make_tree(tmp_path / "one", SPEC)
    two = make_tree(tmp_path / "two", TreeSpec(small=60, big=2, links=15, big_size=SPEC.big_size, seed=2))
    assert not {c for c, _ in _contents(one.root).values()} & {c for c, _ in _contents(two.root).values()}


def test_nothing_can_be_squeezed_or_is_there_twice(tmp_path: Path) -> None:
    contents = [content for content, _ in _contents(make_tree(tmp_path / "t", SPEC).root).values()]
    assert len(set(contents)) == len(contents)
    assert all(len(zlib.compress(content)) > 0.99 * len(content) for content in contents)
    assert all(1_200_000 <= len(c) <= 1_500_000 for c in contents if len(c) > 1_000_000)


def test_links_lead_to_files_of_the_tree(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "t", SPEC)
    for name in tree.links:
        link = tree.root / name
        assert link.is_symlink()
        assert str(link.resolve().relative_to(tree.root.resolve())) in tree.small


def test_changes(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "t", SPEC)
    before = _contents(tree.root)
    chosen = rewrite(tree, 0.1, seed=7)
    name = append(tree, 1000, seed=8)
    after = _contents(tree.root)
    changed = {str(path) for path, told in after.items() if told != before[path]}
    assert changed == {*chosen, name}
    assert len(chosen) == 6
    assert name == tree.big[0]
    assert after[Path(name)][0][:-1000] == before[Path(name)][0]
    assert all(len(after[Path(c)][0]) == len(before[Path(c)][0]) for c in chosen)


def test_scaled() -> None:
    assert SPEC.scaled(0.1) == TreeSpec(small=6, big=1, links=2, big_size=SPEC.big_size)
    assert TreeSpec(big=0).scaled(0.01).big == 0
