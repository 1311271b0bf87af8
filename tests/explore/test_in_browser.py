"""The page in a real browser: Debian's Chromium, driven by Playwright (make test-browser)."""

import shutil

import numpy as np
import pytest
import torch
from explore.pages import NodeModel, cloud, cloud_model, images, nano, page_of, ring

from pyg_avig import AxialGraph, attention_weights
from pyg_avig.data.datasets.molecules import molecule_graph
from pyg_avig.models import ViG

pytestmark = pytest.mark.browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: as root on Debian, `make test-browser` installs it")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser):
    """Opens a page; whatever it says on the console, or asks the network for, fails the test."""
    contexts, said, asked = [], [], []

    def open_(path, **options):
        context = browser.new_context(viewport={"width": 1300, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{path}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []
    assert all(url.startswith(("file:", "data:")) for url in asked)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def of_images(folder):
    """Three images, and two blocks of two heads in the first stage."""
    model = nano(grapher_depths=(2, 1, 1, 1), heads=(2, 1, 1, 1))
    return model, page_of(model, images(), folder / "images.html", names=["a", "b", "c"])


@pytest.fixture(scope="module")
def of_molecules(folder):
    molecules = [molecule_graph(smiles) for smiles in ("CC(=O)Oc1ccccc1C(=O)O", "CCO")]
    model = ViG(molecules[0].num_features, 1, channels=8, num_blocks=2)
    return page_of(model, molecules, folder / "molecules.html")


@pytest.fixture(scope="module")
def of_cloud(folder):
    return page_of(cloud_model(), cloud(), folder / "cloud.html", classes=list("abcd"))


@pytest.fixture(scope="module")
def of_neighbourhood(folder):
    model = NodeModel()
    return page_of(model, ring(500), folder / "ring.html", node=7, hops=2, classes=list("abc"))


def at(page, panel, x, y):
    """A point of a panel's picture, as shares of its sides, on the screen."""
    picture = page.locator(".picture").nth(panel)
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def settle(page):
    """Wait until what was asked for is drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def click(page, panel, x, y):
    page.mouse.click(*at(page, panel, x, y))
    settle(page)


def shown(page, panel):
    """The neighbours that a panel shows, by node, with their weights."""
    found = page.locator(".panel").nth(panel).locator("rect.neighbour, .links line")
    pairs = found.evaluate_all("all => all.map(e => [+e.dataset.node, +e.dataset.weight])")
    return dict(pairs)


def focus(page, panel):
    marks = page.locator(".panel").nth(panel).locator(".focus")
    return marks.evaluate_all("all => all.map(e => +e.dataset.node)")


def layer(model, image, number):
    """The edges and weights of one of the layers, by its place among the calls."""
    return list(attention_weights(model, image).values())[number]


def expected(model, image, number, node, back=False):
    """The mean weight over heads of each neighbour of a node."""
    edge_index, alpha = layer(model, image, number)
    here, there = (0, 1) if back else (1, 0)
    edges = edge_index[here] == node
    nodes = edge_index[there][edges].tolist()
    return dict(zip(nodes, alpha[edges].mean(1).tolist(), strict=True))


def same(found, wanted):
    assert found.keys() == wanted.keys()
    assert list(found.values()) == pytest.approx([wanted[i] for i in found], abs=2e-3)


def test_moving_shows_the_neighbours_of_the_node_in_all_stages(opened, of_images):
    model, path = of_images
    page = opened(path)
    assert page.locator(".panel").count() == 4
    assert page.locator(".neighbour").count() == 0
    page.mouse.move(*at(page, 1, 0.30, 0.55))
    settle(page)
    for panel, (side, stride) in enumerate([(16, 4), (8, 2), (4, 1), (2, 1)]):
        node = int(0.55 * side) * side + int(0.30 * side)
        assert focus(page, panel) == [node]
        edges = AxialGraph((side, side), stride).edge_index
        assert shown(page, panel).keys() == set(edges[0][edges[1] == node].tolist())
    same(shown(page, 0), expected(model, images(1), 1, 8 * 16 + 4))
    page.mouse.move(2, 2)
    settle(page)
    assert page.locator(".neighbour").count() == 0


def test_a_click_pins_and_a_click_on_a_neighbour_shows_the_way_back(opened, of_images):
    model, path = of_images
    page = opened(path)
    click(page, 1, 3.5 / 8, 3.5 / 8)
    page.mouse.move(*at(page, 1, 0.9, 0.1))
    settle(page)
    assert focus(page, 1) == [27]
    same(shown(page, 1), expected(model, images(1), 2, 27))
    page.mouse.move(*at(page, 1, 5.5 / 8, 3.5 / 8))
    settle(page)
    assert "(3, 5) weighs" in page.locator(".readout").nth(1).text_content()

    click(page, 1, 5.5 / 8, 3.5 / 8)  # Two along the row: a neighbour.
    assert page.locator("#back").is_checked()
    assert focus(page, 1) == [29]
    same(shown(page, 1), expected(model, images(1), 2, 29, back=True))
    assert "(3, 5) is attended to by 6 nodes" in page.locator(".readout").nth(1).text_content()
    assert page.locator(".panel").nth(1).locator(".previous").get_attribute("data-node") == "27"

    click(page, 1, 5.5 / 8, 3.5 / 8)
    assert page.locator("body").get_attribute("data-pinned") == "false"
    click(page, 1, 3.5 / 8, 3.5 / 8)
    click(page, 1, 4.5 / 8, 4.5 / 8)  # No neighbour: pinned in its place.
    assert focus(page, 1) == [36]
    assert page.locator("#forth").is_checked()


def test_blocks_and_heads_are_chosen(opened, of_images):
    model, path = of_images
    page = opened(path)
    click(page, 0, 0.03, 0.03)
    panel = page.locator(".panel").first
    for block, head in [(1, 0), (0, 1)]:
        panel.get_by_role("button", name=f"block {block + 1}").click()
        panel.get_by_role("button", name=f"head {head + 1}").click()
        settle(page)
        edge_index, alpha = layer(model, images(1), block)
        edges = edge_index[1] == 0
        wanted = dict(zip(edge_index[0][edges].tolist(), alpha[edges, head].tolist(), strict=True))
        same(shown(page, 0), wanted)
    page.locator("#by-block").check()
    assert page.locator(".panel").count() == 5
    assert page.locator("h2", has_text="stages.0, block 2").count() == 1


def test_the_slider_hides_what_is_below(opened, of_images):
    _, path = of_images
    page = opened(path)
    click(page, 1, 0.4, 0.4)
    before = shown(page, 1)
    value = sorted(before.values())[3]
    page.locator("#threshold").evaluate(
        "(e, value) => { e.value = value; e.dispatchEvent(new Event('input')) }", value
    )
    settle(page)
    limit = float(page.locator("#threshold").input_value())
    assert shown(page, 1) == {n: w for n, w in before.items() if w >= limit}
    assert 1 <= len(shown(page, 1)) < len(before)
    assert f"{len(shown(page, 1))} of 6" in page.locator(".readout").nth(1).text_content()


def test_the_histogram_counts_every_weight(opened, of_images):
    model, path = of_images
    page = opened(path)
    for panel, (_, alpha) in enumerate(list(attention_weights(model, images(1)).values())[1:]):
        histogram = page.locator(".histogram").nth(panel)
        assert f"of {len(alpha)} weights" in histogram.get_attribute("aria-label")
        counts = histogram.locator(".bars rect").evaluate_all(
            "all => all.map(e => e.__data__.length)"
        )
        assert (len(counts), sum(counts)) == (40, len(alpha))
        assert "β = 1.00" in page.locator(".readout").nth(panel).text_content()


def test_rollout_is_that_of_its_formula(opened, of_images):
    model, path = of_images
    page = opened(path)
    page.locator("#heat").check()
    settle(page)
    for panel in page.locator(".panel").all():
        assert panel.locator("image.heat").get_attribute("href").startswith("data:image/png")
    share = torch.zeros(16, dtype=torch.double)
    share[5] = 1
    for number, side in [(3, 4), (2, 8), (1, 16), (0, 16)]:
        if side * side > len(share):  # A node's share goes to the four below it, in equal parts.
            share = share.view(side // 2, side // 2) / 4
            share = share.repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
        edge_index, alpha = layer(model, images(1), number)
        a = torch.zeros(side * side, side * side, dtype=torch.double)
        a[edge_index[1], edge_index[0]] = alpha.mean(1).double()
        share = share @ ((torch.eye(len(a)) + a) / (1 + a.sum(1, keepdim=True)))
    found = page.evaluate(
        """() => {
          const share = new Float64Array(16); share[5] = 1;
          return [...rollout(page.item.stages, 2, 0, share)];
        }"""
    )
    assert sum(found) == pytest.approx(1)
    assert found == pytest.approx(share.tolist(), abs=1e-4)


def test_rollout_of_weights_that_sum_to_one_is_abnar_and_zuidemas(opened, folder):
    model = nano(affinity="softmax")
    page = opened(page_of(model, images(1), folder / "softmax.html"))
    found = page.evaluate(
        """() => {
          const share = new Float64Array(256); share[100] = 1;
          return [...throughLayer(page.item.stages[0].layers[0], share)];
        }"""
    )
    edge_index, alpha = layer(model, images(1), 0)
    wanted = torch.zeros(256)
    wanted[100] = 0.5
    edges = edge_index[1] == 100
    wanted[edge_index[0][edges]] += alpha[edges, 0] / 2
    assert found == pytest.approx(wanted.tolist(), abs=2e-3)


def test_three_images_each_with_a_prediction(opened, of_images):
    model, path = of_images
    page = opened(path)
    for i, logits in enumerate(model(images())):
        page.locator("#items button").nth(i).click()
        settle(page)
        best = logits.softmax(-1).topk(5)
        assert page.locator("#top .class").all_text_contents() == [
            str(j) for j in best.indices.tolist()
        ]
        shares = [
            float(text.split()[0]) / 100 for text in page.locator("#top .share").all_text_contents()
        ]
        assert shares == pytest.approx(best.values.tolist(), abs=6e-4)
        page.mouse.move(*at(page, 3, 0.2, 0.2))
        settle(page)
        wanted = expected(model, images()[i : i + 1], 4, 0)
        same(shown(page, 3), wanted)


def test_keys_do_what_the_pointer_does(opened, of_images):
    _, path = of_images
    page = opened(path)
    page.locator(".picture").nth(2).focus()
    page.keyboard.press("ArrowRight")  # Begins in the middle.
    settle(page)
    assert focus(page, 2) == [10]
    for key, node in [("ArrowLeft", 9), ("ArrowUp", 5), ("ArrowUp", 1), ("ArrowUp", 1)]:
        page.keyboard.press(key)
        settle(page)
        assert focus(page, 2) == [node]
    page.keyboard.press("Enter")
    settle(page)
    assert page.locator("body").get_attribute("data-pinned") == "true"
    page.keyboard.press("b")
    settle(page)
    assert page.locator("#back").is_checked()
    page.keyboard.press("Escape")
    settle(page)
    assert focus(page, 2) == []


def test_a_tap_pins(opened, of_images):
    _, path = of_images
    page = opened(path, has_touch=True)
    page.touchscreen.tap(*at(page, 1, 3.5 / 8, 3.5 / 8))
    settle(page)
    assert focus(page, 1) == [27]
    page.touchscreen.tap(*at(page, 1, 5.5 / 8, 3.5 / 8))
    settle(page)
    assert page.locator("#back").is_checked()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_the_button(scheme, opened, of_images, of_cloud):
    for path in (of_images[1], of_cloud):
        page = opened(path, color_scheme=scheme)

        def paper(page=page):
            colour = page.evaluate(
                "() => d3.lab(getComputedStyle(document.body).backgroundColor).l"
            )
            ink = page.evaluate("() => d3.lab(getComputedStyle(document.body).color).l")
            assert abs(colour - ink) > 60
            return "light" if colour > ink else "dark"

        assert paper() == scheme
        page.locator("#theme").click()
        settle(page)
        assert paper() != scheme


@pytest.mark.parametrize(("width", "columns"), [(1300, 4), (390, 2)])
def test_wide_or_narrow_nothing_is_cut_off(width, columns, opened, of_images):
    _, path = of_images
    page = opened(path)
    page.set_viewport_size({"width": width, "height": 800})
    click(page, 0, 0.5, 0.5)
    lefts = page.locator(".panel").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().left)"
    )
    assert len(set(lefts)) == columns
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_a_screenshot_shows_image_squares_and_focus(opened, of_images):
    """By structure: where neighbours are drawn the colours are theirs, elsewhere the image is."""
    from io import BytesIO

    from PIL import Image

    _, path = of_images
    page = opened(path, color_scheme="light")

    def picture():
        page.mouse.move(2, 2)
        settle(page)
        shot = page.locator(".picture").nth(2).screenshot()
        return np.asarray(Image.open(BytesIO(shot)).convert("RGB")).astype(int)

    before = picture()
    click(page, 2, 1.5 / 4, 1.5 / 4)
    after = picture()
    height, width, _ = after.shape

    def middle(image, row, column):
        y, x = int((row + 0.5) / 4 * height), int((column + 0.5) / 4 * width)
        return image[y, x]

    for row in range(4):
        for column in range(4):
            colour, grey = middle(after, row, column), middle(before, row, column)
            assert np.ptp(grey) <= 2  # The image is grey.
            if (row == 1) != (column == 1):  # A neighbour along an axis.
                assert np.ptp(colour) > 20
            else:
                assert np.ptp(colour) <= 2
                assert colour.mean() <= grey.mean()  # Under the veil.


def test_a_molecule(opened, of_molecules):
    page = opened(of_molecules)
    assert "".join(page.locator(".symbols text").all_text_contents()) == "CCOOCCCCCCCOO"
    assert page.locator("#values").text_content()
    first = page.locator(".dots circle[data-node='1']")
    first.click(force=True)
    settle(page)
    assert focus(page, 0) == [1]
    assert shown(page, 0).keys() == {0, 2, 3}
    page.locator(".dots circle[data-node='3']").click(force=True)
    settle(page)
    assert page.locator("#back").is_checked()
    assert shown(page, 0).keys() == {1, 4}
    page.locator("#heat").check()
    page.locator("#items button").nth(1).click()
    settle(page)
    assert "".join(page.locator(".symbols text").all_text_contents()) == "CCO"


def test_a_point_cloud_turns(opened, of_cloud):
    page = opened(of_cloud)
    assert page.locator(".dots circle").count() == 60
    assert page.locator("#top li").count() == 4
    where = "all => all.map(e => [e.dataset.node, e.getAttribute('cx')]).sort()"
    before = page.locator(".dots circle").evaluate_all(where)
    page.mouse.move(*at(page, 0, 0.5, 0.5))
    page.mouse.down()
    page.mouse.move(*at(page, 0, 0.7, 0.5), steps=4)
    page.mouse.up()
    settle(page)
    after = page.locator(".dots circle").evaluate_all(where)
    assert [n for n, _ in before] == [n for n, _ in after]
    assert before != after
    assert page.locator("body").get_attribute("data-pinned") == "false"
    data = cloud()
    for node in (0, 17):
        place = page.evaluate("node => page.panels[0].view.at[node]", node)
        box = page.locator(".picture").bounding_box()
        scale = box["width"] / 400
        page.mouse.click(box["x"] + scale * place[0], box["y"] + scale * place[1])
        settle(page)
        (found,) = focus(page, 0)
        sources = set(data.edge_index[0][data.edge_index[1] == found].tolist())
        if not page.locator("#back").is_checked():
            assert shown(page, 0).keys() == sources
        page.keyboard.press("Escape")


def test_a_neighbourhood_begins_at_its_middle(opened, of_neighbourhood):
    page = opened(of_neighbourhood)
    assert page.locator(".dots circle").count() == 5
    assert "node 7 attends to 2 nodes" in page.locator(".readout").text_content()
    assert page.locator("#prediction h2").text_content() == "Prediction, node 7"
    assert page.locator("#legend li").count() >= 1
    page.select_option("#colouring", label="label")
    settle(page)
    assert page.locator("#legend li").all_text_contents() == ["a", "b", "c"]


def test_a_stage_without_edges_shows_none(opened, folder):
    model = nano(graph_strides=(4, 2, 1, 2))  # Nothing is two steps away on 2 x 2 nodes.
    page = opened(page_of(model, images(1), folder / "alone.html"))
    click(page, 3, 0.2, 0.2)
    assert "(0, 0) attends to 0 nodes" in page.locator(".readout").nth(3).text_content()
    assert page.locator(".panel").nth(3).locator(".neighbour").count() == 0
    page.locator("#heat").check()
    settle(page)
