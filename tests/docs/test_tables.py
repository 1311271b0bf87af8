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
    figures = [(page, block) for page, block in BLOCKS if tables.has_figures(block)]
    assert len(figures) > 20
    assert [(page, block[0]) for page, block in figures if block["source"] is None] == []


ROWS = [
    {"graph": name, "images/s": {"ours": 2.0, "theirs": 4.0}, "bytes": {"ours": 2**20, "theirs": 0}}
    for name in ("inference", "training step")
]


def page_of(source, table):
    return f"Before.\n\n<!-- {source} -->\n{table}\nAfter.\n"


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "saved", lambda name: ROWS if name == "models-there" else [])
    monkeypatch.setattr(tables, "PAGES", [tmp_path / "page.md"])
    return tmp_path / "page.md"


def test_a_stale_table_is_written_anew_with_the_columns_it_has(page):
    stale = "| model | images/s |\n|---|---|\n| ours | 9.9 |\n"
    page.write_text(page_of("benchmarks/results/models-there.json: training step", stale))
    with pytest.raises(ValueError, match=r"columns among .*'pass'.* \(got \['speed'\]\)"):
        tables.renewed(tables.BLOCK.search(page.read_text().replace("images/s", "speed")))
    assert tables.tables() == [str(page)]
    assert page.read_text() == page_of(
        "benchmarks/results/models-there.json: training step",
        "| model | images/s |\n|---|---|\n| ours | 2.0 |\n| theirs | 4.0 |\n",
    )
    assert tables.tables() == []


@pytest.mark.parametrize("name", ["models-gone", "unheard-of"])
def test_results_that_are_not_there_are_named(page, name):
    page.write_text(page_of(f"benchmarks/results/{name}.json", "| a |\n|---|\n| 1 |\n"))
    with pytest.raises(ValueError, match=name):
        tables.tables()


def test_what_a_command_printed_is_left_as_it_is(page):
    text = page_of("python examples/model_sizes.py", "| a |\n|---|\n| 1 |\n")
    page.write_text(text)
    assert tables.tables() == []
    assert page.read_text() == text
