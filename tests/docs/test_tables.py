import pytest

from benchmarks import tables

BLOCKS = [
    (page, block) for page in tables.PAGES for block in tables.BLOCK.finditer(page.read_text())
]


@pytest.mark.parametrize("page", tables.PAGES, ids=str)
def test_tables_are_those_of_the_results(page):
    """If not: python -m benchmarks tables."""
    for block in tables.BLOCK.finditer(page.read_text()):
        assert block[0] == tables.renewed(block)


def test_every_figure_in_a_table_says_where_it_is_from():
    unknown = [(page, block[0]) for page, block in BLOCKS if tables.has_figures(block)]
    assert len(unknown) > 20
    assert [(page, block) for page, block in unknown if not block.startswith("<!-- ")] == []
