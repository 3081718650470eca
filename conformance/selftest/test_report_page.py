"""The report's page as a reader has it: opened, clicked and filtered in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.cli.main import main

from .browser import chromium, find_chromium
from .sample_report import write_matrix
from .test_report import bench

pytest.importorskip("playwright", reason="no playwright: pip install -e '.[dev]'")
pytestmark = pytest.mark.skipif(
    find_chromium() is None,
    reason="no chromium on the PATH: apt-get install chromium, or set CONFORMANCE_CHROMIUM",
)
MODELS = ("vgg16", "mobilenet", "mobilenetv2", "xception")
VERSIONS = ("4.6.0", "4.7.0", "4.8.1", "4.9.0", "4.10.0", "4.11.0", "4.12.0", "4.13.0")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a page with every section: mobilenet fails on 4.7.0 and 4.8.1."""
    folder = tmp_path_factory.mktemp("report")
    files = map(str, write_matrix(folder, VERSIONS, MODELS))
    page = folder / "report.html"
    arguments = ["--bench", bench(folder), "--expect", "5.0.0", "-o", str(page)]
    assert main(["report", *files, *arguments]) == 0
    return page.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Give one Chromium for all tests here."""
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Any, report: str) -> Iterator[Any]:
    """Give the page, opened in a window of 1280 pixels and drawn."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    drawn(opened, report)
    yield opened
    opened.close()


def drawn(page: Any, address: str) -> None:
    """Open `address` and wait until every chart is there."""
    page.goto(address)
    page.wait_for_selector("body[data-drawn]", timeout=30_000)


def shown(page: Any, selector: str) -> list[str]:
    """Return the texts of the visible elements."""
    return [
        element.inner_text() for element in page.locator(selector).all() if element.is_visible()
    ]


def test_opens_without_errors_or_requests(browser: Any, report: str) -> None:
    """The console stays empty, nothing is asked of the network, and every chart is drawn."""
    page = browser.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    drawn(page, report)
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.locator(".chart").count() == page.locator(".chart svg").count() > 10
    page.close()


def test_cell_leads_to_its_cases(page: Any) -> None:
    """A click on a failed cell shows its cases, observed and allowed, reason and command."""
    page.locator("#verdicts a.mark.failed").first.click()
    dialog = page.locator("#cases")
    dialog.wait_for()  # the page opens it in an event of its own, after the click
    assert dialog.locator("h2").inner_text() == "mobilenet on OpenCV 4.7.0 classic"
    assert dialog.locator("tbody tr").count() == 26
    article = dialog.locator("article").first.inner_text()
    assert "observed 8.00e-4, allowed 3.00e-4" in article
    assert "<script>alert(1)</script>" in article
    assert "test_softmax[mobilenet-metric_0]' --engine=classic" in article
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def test_address_leads_to_a_cell(browser: Any, report: str) -> None:
    """The address of a cell opens the page with that cell's cases."""
    page = browser.new_page()
    drawn(page, report + "#c2/vgg16")
    page.locator("#cases").wait_for()
    assert page.locator("#cases h2").inner_text() == "vgg16 on OpenCV 4.7.0 classic"
    page.close()


def test_command_is_copied(browser: Any, report: str) -> None:
    """The copy button puts the command on the clipboard."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    drawn(page, report)
    page.locator("#failures .copy").first.click()
    page.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == (
        "pytest 'conformance/suite/test_agreement.py::test_softmax[mobilenet-metric_0]' "
        "--engine=classic"
    )
    context.close()


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("mobilenet", ["mobilenet"]),
        ("mobile", ["mobilenet", "mobilenetv2"]),
        ("xcep vgg", ["vgg16", "xception"]),
        ("none such", []),
    ],
)
def test_filter_by_model(page: Any, typed: str, left: list[str]) -> None:
    """What is typed leaves these models, in the heat map as among the charts."""
    page.fill("#by-model", typed)
    page.wait_for_selector("body[data-drawn]")
    assert shown(page, "#verdicts .heat tbody th") == left
    assert shown(page, "#deviation figcaption") == left


def test_filter_by_version_and_engine(page: Any) -> None:
    """A version and an engine leave their columns, cells and points of the charts."""
    page.fill("#by-version", "4.1 4.7")
    page.select_option("#by-engine", "new")
    page.wait_for_selector("body[data-drawn]")
    heads = [
        " ".join(text.split()) for text in shown(page, "#verdicts .heat thead th[data-version]")
    ]
    assert heads == [
        f"{version} new" for version in ("4.7.0", "4.10.0", "4.11.0", "4.12.0", "4.13.0")
    ]
    assert len(shown(page, "#verdicts .heat tbody tr:first-child td")) == 5
    points = page.locator("#deviation .chart").first.locator(".mark-symbol.role-mark path")
    assert points.count() == 5
    assert "5 models, 5 of 17 columns" in page.locator("#shown").inner_text()


def test_filter_without_verdicts(browser: Any, tmp_path: Path) -> None:
    """A page of benchmarks alone has their models, versions and engines to choose from."""
    path = tmp_path / "times.html"
    assert main(["report", "--bench", bench(tmp_path), "-o", str(path)]) == 0
    page = browser.new_page()
    drawn(page, path.as_uri())
    assert page.locator("#shown").inner_text() == "2 models"
    assert page.locator("#by-engine option").all_inner_texts() == ["all", "new"]
    page.fill("#by-model", "resnet50")
    page.wait_for_selector("body[data-drawn]")
    assert page.locator("#shown").inner_text() == "1 of 2 models"
    assert set(shown(page, "#times tbody th")) == {"resnet50"}
    page.close()


def test_only_what_is_bad(page: Any) -> None:
    """The check box leaves the models with a failed or errored cell; expected failures go."""
    page.check("#by-trouble")
    assert shown(page, "#verdicts .heat tbody th") == ["mobilenet"]


def test_layer_profile_follows_the_choice(page: Any) -> None:
    """Another OpenCV version shows other layers' deviations of the chosen model."""
    page.select_option("#layer-model", "mobilenet")
    page.select_option("#layer-column", label="4.9.0 new")
    fine = page.locator("#layer-worst tbody tr").first.inner_text()
    page.select_option("#layer-column", label="4.7.0 new")
    worst = page.locator("#layer-worst tbody tr").first.inner_text()
    assert worst.startswith("mobilenet/block_")
    assert worst != fine
    assert page.locator("#layer-chart svg").count() == 1


def test_verdicts_are_told_without_colour(page: Any) -> None:
    """Each verdict has a symbol of its own, and each cell a name that a screen reader says."""
    symbols = {
        verdict: page.locator(f"#verdicts td .mark.{verdict}").first.inner_text()[0]
        for verdict in ("failed", "xfailed", "passed", "not-run")
    }
    assert len(set(symbols.values())) == 4
    assert page.locator("#verdicts a.mark.failed").first.get_attribute("aria-label") == (
        "mobilenet, OpenCV 4.7.0 classic: failed, 3 of 26 cases not passed"
    )
    assert page.locator("th:not([scope])").count() == 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_and_is_readable(browser: Any, report: str, width: int, scheme: str) -> None:
    """The page never scrolls sideways, its dialog neither, and text stands out from the ground."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    drawn(page, report)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, ground = (
        page.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("color", "backgroundColor")
    )
    assert brightness(ink) > brightness(ground) if scheme == "dark" else brightness(ink) < 99
    assert abs(brightness(ink) - brightness(ground)) > 150
    # A layer's name is not broken into a syllable a line.
    assert page.locator("#layer-worst tbody th").first.bounding_box()["width"] > 120
    page.locator("#verdicts a.mark.failed").first.click()
    assert page.evaluate("document.getElementById('cases').scrollWidth") <= width
    page.close()


def brightness(colour: str) -> float:
    """Return the mean of the channels of ``rgb(r, g, b)``, 0 to 255."""
    channels = [float(part) for part in colour.strip("rgb()").split(",")]
    return sum(channels) / len(channels)


def test_prints_in_light_colours_with_every_failure_open(browser: Any, report: str) -> None:
    """On paper the ground is white in dark mode too, tools are gone, and failures are unfolded."""
    page = browser.new_page(color_scheme="dark")
    drawn(page, report)
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".tools").is_visible()
    assert page.locator("#failures details:not([open])").count() == 0
    assert page.pdf()[:5] == b"%PDF-"
    page.close()
